"""Schemas whose callers set sequences back or skip numbers, and schemas that grant what inserts need."""

from __future__ import annotations

from typing import Final

from tests.analyze.lint.faults.case import ANONYMOUS, DENIED, OWN, Clean, Fault, Look, Works

_SERIAL: Final = "id serial PRIMARY KEY"
_IDENTITY: Final = "id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
_ADD: Final = "INSERT INTO docs (owner) VALUES ('alice') RETURNING id"


def _docs(key: str, grants: str = "") -> str:
    return f"""
CREATE TABLE docs ({key}, owner text NOT NULL);
CREATE INDEX docs_owner ON docs (owner);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT ON docs TO authenticated;
CREATE POLICY own ON docs TO authenticated USING ({OWN}) WITH CHECK ({OWN});
{grants}
"""


def _fault(name: str, key: str, grants: str, mend: str, *shows: Look) -> Fault:
    return Fault(
        name=name,
        group="openings",
        rule="caller-privileges",
        objects=("public.docs_id_seq",),
        schema=_docs(key, grants),
        rows="INSERT INTO docs (owner) VALUES ('bob');",
        mend=mend,
        shows=shows,
    )


FAULTS: list[Fault] = [
    _fault(
        "A caller sets the sequence of a key back",
        _SERIAL,
        "GRANT ALL ON SEQUENCE docs_id_seq TO authenticated;",
        "REVOKE UPDATE ON SEQUENCE docs_id_seq FROM authenticated;",
        Look(
            first=("SELECT setval('docs_id_seq', 1, false)",),
            statement=_ADD,
            faulty="23505",
            mended=DENIED,
        ),
    ),
    _fault(
        "A caller sets the sequence of an identity column back",
        _IDENTITY,
        "GRANT UPDATE ON ALL SEQUENCES IN SCHEMA public TO PUBLIC;",
        "REVOKE UPDATE ON SEQUENCE docs_id_seq FROM PUBLIC;",
        Look(statement="SELECT setval('docs_id_seq', 1000)", faulty=[1000], mended=DENIED, caller=ANONYMOUS),
    ),
    _fault(
        "A caller who inserts no row skips the numbers of a key",
        _SERIAL,
        "GRANT USAGE ON SEQUENCE docs_id_seq TO authenticated, anonymous;",
        "REVOKE USAGE ON SEQUENCE docs_id_seq FROM anonymous;",
        Look(statement="SELECT nextval('docs_id_seq')", faulty=[2], mended=DENIED, caller=ANONYMOUS),
    ),
]

CLEAN: list[Clean] = [
    Clean(
        name="Serial keys, whose sequences those who insert may use",
        schema=_docs(_SERIAL, "GRANT USAGE, SELECT ON SEQUENCE docs_id_seq TO authenticated;"),
        rows="INSERT INTO docs (owner) VALUES ('bob');",
        works=(
            Works(statement=_ADD, outcome=[2]),
            Works(statement="SELECT setval('docs_id_seq', 1)", outcome=DENIED),
        ),
    ),
    Clean(
        name="Identity keys, whose sequences nobody may use",
        schema=_docs(_IDENTITY),
        rows="INSERT INTO docs (owner) VALUES ('bob');",
        works=(
            Works(statement=_ADD, outcome=[2]),
            Works(statement="SELECT nextval('docs_id_seq')", outcome=DENIED),
        ),
    ),
    Clean(
        name="A sequence of its own, from which an application takes the numbers of invoices",
        schema=_docs(
            "id int PRIMARY KEY",
            "CREATE SEQUENCE invoices; GRANT USAGE ON SEQUENCE invoices TO authenticated;",
        ),
        rows="",
        works=(
            Works(
                statement="INSERT INTO docs VALUES (nextval('invoices'), 'alice') RETURNING id", outcome=[1]
            ),
            Works(statement="SELECT setval('invoices', 1)", outcome=DENIED),
        ),
    ),
]
