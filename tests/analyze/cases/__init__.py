"""Changes of access, with the verdicts that real commands on real rows give of them."""

from tests.analyze.cases import conditions, functions, policies, roles, tables, values
from tests.analyze.cases.case import Case

CASES: list[Case] = [
    *conditions.CASES,
    *values.CASES,
    *policies.CASES,
    *roles.CASES,
    *functions.CASES,
    *tables.CASES,
]
QUICK: list[Case] = [case for case in CASES if case.is_quick]
