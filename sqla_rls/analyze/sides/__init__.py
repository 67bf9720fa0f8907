"""The sides of a comparison: databases, models, revisions and snapshot files, each in a scratch server."""

from sqla_rls.analyze.sides.comparison import compare_built, compare_sides
from sqla_rls.analyze.sides.dump import Dump, read_dump
from sqla_rls.analyze.sides.side import Built, Side, build_sides

__all__ = ["Built", "Dump", "Side", "build_sides", "compare_built", "compare_sides", "read_dump"]
