"""The rows that callers reach in small worlds: each policy, and each command, evaluated on rows of no table.

Policies that need real rows, since a function reads tables, are evaluated in the scratch database.
"""

from sqla_rls.analyze.lint.reach.opening import Opening, opening
from sqla_rls.analyze.lint.reach.reach import Case, Reach
from sqla_rls.analyze.lint.reach.reaches import Reaches

__all__ = ["Case", "Opening", "Reach", "Reaches", "opening"]
