"""The weakenings of a database."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.pool import NullPool

from sqla_rls.analyze.prove.mutants import Mutant, access_state, mutants, run
from sqla_rls.analyze.prove.weaken import weakenings
from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from sqla_rls.exc import AnalysisError
from sqla_rls.testing.postgres import Server

SETUP = """
CREATE TABLE members (
  org_id int, inviter_org int, user_id text, is_admin bool, PRIMARY KEY (org_id, user_id));
CREATE TABLE "Docs: 100%" (
  id int PRIMARY KEY, org_id int NOT NULL, owner text, "editor's" text, deleted bool);
ALTER TABLE members ENABLE ROW LEVEL SECURITY;
ALTER TABLE "Docs: 100%" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "Docs: 100%" FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON members TO mut_reader USING (user_id = (SELECT auth.user_id()));
COMMENT ON POLICY own ON members IS 'made by hand: 100%';
CREATE POLICY "mine: %" ON "Docs: 100%" FOR SELECT TO mut_reader USING (NOT deleted AND EXISTS (
  SELECT FROM members AS m WHERE m.org_id = "Docs: 100%".org_id AND m.user_id = (SELECT auth.user_id())));
CREATE POLICY add ON "Docs: 100%" FOR INSERT TO mut_reader
  WITH CHECK (owner = (SELECT auth.user_id()) AND owner NOT LIKE '100%');
CREATE POLICY change ON "Docs: 100%" FOR UPDATE USING (owner = (SELECT auth.user_id()))
  WITH CHECK (NOT (deleted OR owner = ''));
CREATE POLICY narrow ON "Docs: 100%" AS RESTRICTIVE TO mut_reader USING (org_id > 0);
CREATE VIEW shown WITH (security_invoker = on) AS SELECT * FROM members;
GRANT SELECT ON members, shown TO mut_reader;
GRANT SELECT, INSERT ON "Docs: 100%" TO mut_reader;
GRANT UPDATE (owner) ON "Docs: 100%" TO mut_reader;
"""
DOCS = 'public."Docs: 100%"'


@pytest.fixture(scope="module")
def owner(server: Server) -> Iterator[Engine]:
    name = server.create_database()
    engine = create_engine(server.url(name), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(CreateAuthFunctions())
        connection.exec_driver_sql(
            "DO $$BEGIN CREATE ROLE mut_reader; EXCEPTION WHEN duplicate_object THEN NULL; END$$"
        )
        connection.execute(text(SETUP.replace(":", r"\:")))
    yield engine
    server.drop_database(name)


@pytest.fixture
def found(connection: Connection) -> list[Mutant]:
    found = mutants(connection)
    assert len({mutant.name for mutant in found}) == len(found)
    return found


@pytest.mark.exhaustive
def test_each_kind_of_weakening_is_made(found: list[Mutant]) -> None:
    told = {(mutant.kind, mutant.text) for mutant in found}
    assert {
        ("row_security", "Row security of public.members is off: its policies don't hold."),
        ("forced", f"Row security of {DOCS} doesn't hold for the owner of the table."),
        ("true", "Policy 'own' on public.members admits every row."),
        ("check", "Policy 'own' on public.members admits every new row."),
        ("public", "Policy 'own' on public.members is for every role."),
        ("conjunct", f"USING of policy 'mine: %' on {DOCS} lacks: NOT deleted"),
        (
            "correlation",
            (
                f"A subquery in USING of policy 'mine: %' on {DOCS} no longer depends on the row. "
                'It lacks: m.org_id = "Docs: 100%".org_id'
            ),
        ),
        (
            "conjunct",
            f"USING of policy 'mine: %' on {DOCS} lacks: m.user_id = (SELECT auth.user_id() AS user_id)",
        ),
        (
            "column",
            (
                f"USING of policy 'mine: %' on {DOCS} has column inviter_org in place of org_id, "
                'in: m.org_id = "Docs: 100%".org_id'
            ),
        ),
        ("check", f"Policy 'add' on {DOCS} admits every new row."),
        ("conjunct", f"WITH CHECK of policy 'change' on {DOCS} lacks: deleted"),
        (
            "permissive",
            f"Policy 'narrow' on {DOCS} is permissive: it admits rows, and no longer restricts them.",
        ),
        ("true", f"Policy 'narrow' on {DOCS} restricts no row."),
        ("invoker", "View public.shown reads its tables as its owner, not as the caller."),
        ("grant", "PUBLIC has the privilege SELECT on public.shown."),
        ("grant", f"PUBLIC has the privilege UPDATE on {DOCS}."),
        ("grant", "mut_reader has the privilege DELETE on public.members."),
    } <= told
    wider = [text for kind, text in told if kind == "public"]
    assert not any("'change'" in text or "'narrow'" in text for text in wider)
    # GRANT UPDATE on the table, and REVOKE, would take the privilege on the column away.
    assert ("grant", f"mut_reader has the privilege UPDATE on {DOCS}.") not in told


@pytest.mark.exhaustive
def test_a_mutant_changes_its_object_and_its_undo_restores_it(
    connection: Connection, found: list[Mutant]
) -> None:
    before = access_state(connection)
    for mutant in found:
        run(connection, mutant.apply)
        changed = {name for name, state in access_state(connection).items() if state != before[name]}
        assert changed == {mutant.object}, mutant
        run(connection, mutant.undo)
        assert access_state(connection) == before, mutant


@pytest.mark.exhaustive
def test_nothing_is_left_behind(connection: Connection) -> None:
    before = access_state(connection)
    mutants(connection)
    connection.commit()
    assert access_state(connection) == before


def test_a_mutant_opens_what_its_sentence_says(connection: Connection, found: list[Mutant]) -> None:
    connection.exec_driver_sql("INSERT INTO members VALUES (1, 1, 'alice', true), (2, 2, 'bob', false)")
    (mutant,) = [one for one in found if one.text == "Policy 'own' on public.members admits every row."]

    def seen() -> int:
        with connection.begin_nested() as savepoint:
            connection.exec_driver_sql("SET LOCAL ROLE mut_reader")
            connection.exec_driver_sql('SET LOCAL request.jwt.claims = \'{"sub": "alice"}\'')
            count: int = connection.exec_driver_sql("SELECT count(*) FROM members").scalar_one()
            savepoint.rollback()
        return count

    assert seen() == 1
    run(connection, mutant.apply)
    assert seen() == 2


ORGS = "SELECT m.org_id FROM public.members AS m"
COLUMNS = {
    ("public", "docs"): {"id": "integer", "org_id": "integer", "team_id": "integer", "gone": "boolean"},
    ("public", "members"): {"org_id": "integer", "team_id": "integer", "user_id": "text"},
}


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        ("true", []),
        ("gone", []),
        ("(NOT gone)", []),
        ("(gone OR (id = 1))", ["gone OR org_id = 1", "gone OR team_id = 1"]),
        ("(NOT (gone OR team_id IS NULL))", ["NOT(team_id IS NULL)", "NOT(gone)"]),
        # A condition that is missing below NOT would restrict.
        ("(NOT (gone AND (team_id IS NULL)))", []),
        (
            "(org_id IN ( SELECT members.org_id FROM public.members WHERE members.user_id = 'x'))",
            [
                "id IN (SELECT members.org_id FROM public.members WHERE members.user_id = 'x')",
                "team_id IN (SELECT members.org_id FROM public.members WHERE members.user_id = 'x')",
                "org_id IN (SELECT members.team_id FROM public.members WHERE members.user_id = 'x')",
                "org_id IN (SELECT members.org_id FROM public.members)",
            ],
        ),
        (
            "(id = ANY (ARRAY( SELECT m.org_id FROM public.members m WHERE (m.team_id = docs.id))))",
            [
                f"org_id = ANY(ARRAY({ORGS} WHERE m.team_id = docs.id))",
                f"team_id = ANY(ARRAY({ORGS} WHERE m.team_id = docs.id))",
                "id = ANY(ARRAY(SELECT m.team_id FROM public.members AS m WHERE m.team_id = docs.id))",
                f"id = ANY(ARRAY({ORGS}))",
                f"id = ANY(ARRAY({ORGS} WHERE m.org_id = docs.id))",
                f"id = ANY(ARRAY({ORGS} WHERE m.team_id = docs.org_id))",
                f"id = ANY(ARRAY({ORGS} WHERE m.team_id = docs.team_id))",
            ],
        ),
        ("this isn't SQL", []),
    ],
)
def test_a_predicate_is_weakened_in_one_place(predicate: str, expected: list[str]) -> None:
    assert [one.predicate for one in weakenings(predicate, ("public", "docs"), COLUMNS)] == expected


def test_without_the_parser_an_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pglast", None)
    with pytest.raises(AnalysisError, match=r"Install sqla-rls\[analyze\]"):
        weakenings("a AND b", ("public", "docs"), COLUMNS)


@pytest.mark.exhaustive
def test_what_postgres_refuses_is_no_mutant(connection: Connection) -> None:
    connection.exec_driver_sql(
        'CREATE POLICY odd ON "Docs: 100%%" USING (id IN (SELECT m.org_id FROM members m GROUP BY m.org_id))'
    )
    made = [mutant.text for mutant in mutants(connection) if mutant.policy == "odd"]
    connection.rollback()
    # Another column isn't part of the GROUP BY.
    assert any("org_id in place of id" in text for text in made)
    assert not any("inviter_org in place of org_id" in text for text in made)
