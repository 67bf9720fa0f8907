"""Answers from Postgres about the access of roles and callers, for the owner of a database."""

from sqla_rls.analyze.constraints import OnConflict
from sqla_rls.analyze.denials import DenialExplainer
from sqla_rls.analyze.explanation import Explanation, PolicyResult
from sqla_rls.analyze.why import explain_access

__all__ = ["DenialExplainer", "Explanation", "OnConflict", "PolicyResult", "explain_access"]
