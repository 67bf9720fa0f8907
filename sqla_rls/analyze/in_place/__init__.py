"""Verdicts about a live database: Postgres evaluates policies on rows of no table."""

from sqla_rls.analyze.in_place.compare import compare_in_place
from sqla_rls.analyze.in_place.declared import Sides
from sqla_rls.analyze.in_place.migration import Migration
from sqla_rls.analyze.in_place.sides import Side

__all__ = ["Migration", "Side", "Sides", "compare_in_place"]
