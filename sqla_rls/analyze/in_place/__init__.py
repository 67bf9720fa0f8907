"""Verdicts about a live database: Postgres evaluates policies on rows of no table."""

from sqla_rls.analyze.in_place.compare import Side, compare_in_place

__all__ = ["Side", "compare_in_place"]
