"""How fast a query is under the policies: plans, generated rows, and advice that is measured."""

from sqla_rls.analyze.plans.explain import advised, explain, explain_query
from sqla_rls.analyze.plans.explained import ExplainedQuery

__all__ = ["ExplainedQuery", "advised", "explain", "explain_query"]
