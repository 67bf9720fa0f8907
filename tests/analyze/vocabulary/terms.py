"""Terms of the predicates in the tests, and the constants that they are compared with."""

from __future__ import annotations

from sqla_rls.analyze.vocabulary import Column, Subject, Term, Vocabulary

SUBJECT = Subject()
USER, ORG, ROLE, BODY = Column("user_id"), Column("org_id"), Column("role"), Column("body")


def constants(vocabulary: Vocabulary, term: Term) -> list[str]:
    return [constant.value for constant in vocabulary.constants.get(term, ())]
