"""Answers from Postgres about the access of roles and callers, for the owner of a database."""

from sqla_rls.analyze.denials import DenialExplainer
from sqla_rls.analyze.explain import explain_access
from sqla_rls.analyze.why.constraints import OnConflict
from sqla_rls.analyze.why.explanation import Explanation, PolicyResult

__all__ = ["DenialExplainer", "Explanation", "OnConflict", "PolicyResult", "explain_access"]
