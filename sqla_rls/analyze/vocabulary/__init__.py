"""The terms and constants of predicates, by PostgreSQL's own parser.

The parser is libpg_query, in the package pglast of the extra ``analyze``.
"""

from sqla_rls.analyze.vocabulary.read import has_words, read_expression, read_function, read_query
from sqla_rls.analyze.vocabulary.terms import (
    COLLATE,
    Claim,
    Column,
    Constant,
    Reference,
    Setting,
    Subject,
    Term,
    Vocabulary,
)

__all__ = [
    "COLLATE",
    "Claim",
    "Column",
    "Constant",
    "Reference",
    "Setting",
    "Subject",
    "Term",
    "Vocabulary",
    "has_words",
    "read_expression",
    "read_function",
    "read_query",
]
