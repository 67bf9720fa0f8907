"""Answers from Postgres about the access of roles and callers, for the owner of a database."""

from sqla_rls.analyze.explanation import Explanation, PolicyResult
from sqla_rls.analyze.why import explain_access

__all__ = ["Explanation", "PolicyResult", "explain_access"]
