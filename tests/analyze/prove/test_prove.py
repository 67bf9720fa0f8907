"""What Postgres permits, compared with the intent."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    MetaData,
    Table,
    Text,
    create_engine,
    text,
)
from sqlalchemy.pool import NullPool
from teams.models import Base as Teams

from sqla_rls import Caller, Policy, anonymous, auth_uid, authenticated
from sqla_rls.analyze.intent import Row, World, intends, no_one, owner
from sqla_rls.analyze.prove import prove as module
from sqla_rls.analyze.prove.mutants import access_state, run
from sqla_rls.analyze.prove.oracle import COMMANDS
from sqla_rls.analyze.prove.proof import Proof
from sqla_rls.analyze.prove.prove import Prover, prove
from sqla_rls.analyze.prove.pytest_text import failing_tests
from sqla_rls.analyze.prove.score import score
from sqla_rls.analyze.sides import Built, Side
from sqla_rls.analyze.verdict import Budget
from sqla_rls.cli import main
from sqla_rls.exc import AnalysisError
from tests.support.modules import imported_anew
from tests.support.servers import cleared_server
from tests.support.suite import table
from todos.models import Base as Todos

SELECT = '"crud-authenticated-policy-select" ON todos'
UPDATE = '"crud-authenticated-policy-update" ON todos'


@pytest.fixture(scope="module")
def built() -> Iterator[Built]:
    with Side.parse("models", models=Todos.metadata).build() as built:
        yield built


@contextmanager
def changed(connection: Connection, *statements: str) -> Iterator[None]:
    connection.commit()
    connection.execution_options(isolation_level="AUTOCOMMIT")
    run(connection, statements)
    try:
        yield
    finally:
        run(connection, UNDO)


#: The policies and privileges of todos, as they were.
UNDO = (
    "ALTER TABLE todos ENABLE ROW LEVEL SECURITY",
    f"DROP POLICY IF EXISTS {SELECT}",
    f"CREATE POLICY {SELECT} FOR SELECT TO authenticated USING ((SELECT auth.user_id()) = user_id)",
    f"ALTER POLICY {UPDATE} USING ((SELECT auth.user_id()) = user_id)",
    f"ALTER POLICY {UPDATE} WITH CHECK ((SELECT auth.user_id()) = user_id)",
    "DROP POLICY IF EXISTS narrow ON todos",
    "REVOKE ALL ON todos FROM anonymous",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON todos TO authenticated",
)


def keys(proof: Proof) -> set[tuple[str, str, str]]:
    return {(one.role, one.command, one.direction) for one in proof.violations}


@pytest.mark.exhaustive
def test_todos_are_proved(built: Built) -> None:
    before = access_state_of(built.connection)
    proof = prove(built.connection, [Todos.metadata])
    assert (proof.violations, proof.not_stated) == ((), ())
    assert {(one.role, one.source, one.control) for one in proof.kept} == {
        ("anonymous", "declared", "hole"),
        ("authenticated", "declared", "hole"),
    }
    assert (len(proof.kept), proof.controls) == (8, 8)
    assert all(one.statements for one in proof.kept)
    assert access_state_of(built.connection) == before


def access_state_of(connection: Connection) -> Any:
    connection.rollback()
    connection.execution_options(isolation_level="READ COMMITTED")
    found = access_state(connection)
    connection.rollback()
    return found


@pytest.mark.exhaustive
@table(
    ("statements", "expected"),
    [
        ([f"ALTER POLICY {SELECT} USING (true)"], {("authenticated", "SELECT", "more")}),
        ([f"ALTER POLICY {UPDATE} WITH CHECK (true)"], {("authenticated", "UPDATE", "more")}),
        (
            [f"ALTER POLICY {SELECT} TO PUBLIC USING (true)", "GRANT SELECT ON todos TO anonymous"],
            {("authenticated", "SELECT", "more"), ("anonymous", "SELECT", "more")},
        ),
        (["REVOKE DELETE ON todos FROM authenticated"], {("authenticated", "DELETE", "less")}),
        (
            ["CREATE POLICY narrow ON todos AS RESTRICTIVE FOR UPDATE USING (NOT is_complete)"],
            {("authenticated", "UPDATE", "less")},
        ),
        (
            ["ALTER TABLE todos DISABLE ROW LEVEL SECURITY"],
            {("authenticated", command, "more") for command in ("SELECT", "INSERT", "UPDATE", "DELETE")},
        ),
        # By the key, UPDATE and DELETE need a SELECT policy.
        (
            [f"DROP POLICY {SELECT}"],
            {("authenticated", command, "less") for command in ("SELECT", "INSERT", "UPDATE", "DELETE")},
        ),
    ],
)
def test_a_difference_is_found(
    built: Built, statements: list[str], expected: set[tuple[str, str, str]]
) -> None:
    with changed(built.connection, *statements):
        assert keys(prove(built.connection, [Todos.metadata])) == expected


def test_a_violation_is_the_smallest_world_in_words(built: Built) -> None:
    with changed(built.connection, f"ALTER POLICY {SELECT} USING (true)"):
        (violation,) = prove(built.connection, [Todos.metadata]).violations
    assert re.fullmatch(
        r"authenticated without claims can read public\.todos\(id=\d, user_id=\w+\); the intent denies it",
        violation.text,
    )
    assert (violation.intended, violation.found, violation.claims) == (0, 1, None)
    assert [len(rows) for rows in violation.rows.values()] == [1]


CONFTEST = """
import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool
from sqla_rls.testing.access import Access

@pytest.fixture
def access():
    engine = create_engine({url!r}, poolclass=NullPool)
    with engine.connect() as connection, connection.begin() as transaction:
        yield Access(connection)
        transaction.rollback()
"""


def run_pytest(directory: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(directory)]
    # Plugins are of no use here, and take seconds to import.
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run([*command, str(directory)], capture_output=True, text=True, check=False, env=env)


@pytest.mark.exhaustive
def test_a_violation_is_a_failing_pytest_until_the_policy_is_mended(built: Built, tmp_path: Path) -> None:
    narrow = "CREATE POLICY narrow ON todos AS RESTRICTIVE FOR UPDATE USING (NOT is_complete)"
    (tmp_path / "conftest.py").write_text(
        CONFTEST.format(url=built.url.render_as_string(hide_password=False))
    )
    with changed(built.connection, f"ALTER POLICY {SELECT} USING (true)", narrow):
        tests = failing_tests(prove(built.connection, [Todos.metadata]).violations)
        (tmp_path / "test_pasted.py").write_text(tests)
        failed = run_pytest(tmp_path)
    assert "def test_authenticated_may_not_select_public_todos(access: Access) -> None:" in tests
    assert "2 failed" in failed.stdout, failed.stdout
    assert "the statement reaches 1 rows, not 0" in failed.stdout
    assert "the statement reaches 0 rows, not 1" in failed.stdout
    mended = run_pytest(tmp_path)
    assert "2 passed" in mended.stdout, mended.stdout


def documents(using: Any) -> Table:
    return Table(
        "documents",
        MetaData(),
        Column("id", BigInteger, primary_key=True),
        Column("author", Text),
        Column("state", Text),
        Column("in_trash", Boolean, nullable=False),
        Policy("read", "SELECT", [authenticated, anonymous], using=using),
        Policy("delete", "DELETE", authenticated, using=auth_uid("author")),
    )


def may_read(caller: Caller, row: Row, world: World) -> bool:
    return is_author(caller, row, world) or bool(row["state"] == "public" or "staff" in caller.claims)


is_author = owner("author")


@pytest.mark.exhaustive
def test_a_condition_that_the_policy_forgets_is_in_the_worlds() -> None:
    """The policy names neither the column, nor the constant, nor the claim of the intent."""
    table = documents("true")
    intends(table, "SELECT", role=authenticated, rows=may_read)
    intends(table, "SELECT", role=anonymous, rows=no_one)
    with Side.parse("models", models=table.metadata).build() as built:
        proof = prove(built.connection, [table.metadata])
        assert keys(proof) == {("authenticated", "SELECT", "more"), ("anonymous", "SELECT", "more")}
        read = "state = 'public' OR author = (SELECT auth.user_id())"
        with changed_policy(built.connection, read):
            # The claim is missing in the policy, and anonymous callers still see public rows.
            assert keys(prove(built.connection, [table.metadata])) == {
                ("authenticated", "SELECT", "less"),
                ("anonymous", "SELECT", "more"),
            }
        with changed_policy(built.connection, f"{read} OR auth.session() ? 'staff'"):
            assert keys(prove(built.connection, [table.metadata])) == {("anonymous", "SELECT", "more")}


@contextmanager
def changed_policy(connection: Connection, using: str) -> Iterator[None]:
    connection.commit()
    connection.execution_options(isolation_level="AUTOCOMMIT")
    run(connection, [f"ALTER POLICY read ON documents USING ({using})"])
    yield
    run(connection, ["ALTER POLICY read ON documents USING (true)"])


@pytest.mark.exhaustive
def test_without_an_intent_nothing_is_proved_and_every_mutant_survives() -> None:
    table = documents("author = 'x'")
    with Side.parse("models", models=table.metadata).build() as built:
        prover = Prover.of(built.connection, [table.metadata], Budget(worlds=30))
        proof = prover.run((), (), None)
        assert {(one.role, one.command) for one in proof.not_stated} == {
            ("anonymous", "SELECT"),
            ("authenticated", "SELECT"),
        }
        (reason, *_) = [one.reason for one in proof.not_stated]
        assert "policy 'read' is SQL text" in reason
        assert 'State it: intends(documents, "SELECT", role="anonymous"' in reason
        scored = score(prover, proof)
    assert "Policy 'read' on public.documents admits every row." in {one.text for one in scored.survivors}
    assert not [one for one in scored.found if one.policy == "read"]


@pytest.mark.exhaustive
def test_rows_that_constraints_keep_out_of_the_worlds_are_not_proved() -> None:
    table = documents("state IN ('public', 'secret')")
    table.append_column(Column("iban", Text, nullable=False))
    table.append_constraint(CheckConstraint("state <> 'secret' OR char_length(iban) = 22"))
    table.append_constraint(CheckConstraint("author <> 'bob'"))
    intends(
        table, "SELECT", role=[authenticated, anonymous], rows=lambda _, row, world: row["state"] == "public"
    )
    with Side.parse("models", models=table.metadata).build() as built:
        proof = prove(built.connection, [table.metadata])
    assert (proof.kept, proof.violations) == ((), ())
    reasons = {one.reason for one in proof.not_stated}
    assert len(reasons) == 1
    assert reasons.pop().startswith("public.documents: no row with state=secret was tried: 23514: ")


GROUPS = """
CREATE TABLE groups (id uuid PRIMARY KEY, name text NOT NULL);
CREATE TABLE users (id text PRIMARY KEY);
CREATE TABLE members (
  user_id text REFERENCES users, group_id uuid REFERENCES groups, is_admin boolean NOT NULL,
  PRIMARY KEY (user_id, group_id));
CREATE FUNCTION mine(any_kind boolean) RETURNS SETOF uuid LANGUAGE sql STABLE SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp
  BEGIN ATOMIC
    SELECT group_id FROM public.members WHERE user_id = (SELECT auth.user_id()) AND (is_admin OR any_kind);
  END;
CREATE POLICY mine ON groups TO authenticated USING (id IN (SELECT mine(false)));
ALTER TABLE groups ENABLE ROW LEVEL SECURITY;
GRANT SELECT, UPDATE ON groups TO authenticated;
"""


@pytest.mark.exhaustive
def test_rows_that_refer_to_the_row_in_question_are_in_the_worlds() -> None:
    def may(caller: Caller, row: Row, world: World) -> bool:
        return any(
            one["group_id"] == row["id"] and one["user_id"] == caller.subject and one["is_admin"]
            for one in world["members"]
        )

    metadata = MetaData()
    intends(Table("groups", metadata), "SELECT", "UPDATE", role=authenticated, rows=may)
    with Side.parse("models", models=Todos.metadata).build() as built:
        run(built.connection, [GROUPS])
        assert not prove(built.connection, [metadata]).violations
        run(built.connection, ["ALTER POLICY mine ON groups USING (id IN (SELECT mine(true)))"])
        violations = {one.command: one for one in prove(built.connection, [metadata]).violations}
    assert violations.keys() == {"SELECT", "UPDATE"}
    (group,), (member,) = (violations["UPDATE"].rows[f"public.{name}"] for name in ("groups", "members"))
    assert group["id"] == member["group_id"]


@pytest.mark.exhaustive
def test_a_public_table_is_controlled_by_a_privilege_that_is_taken() -> None:
    table = documents(True)
    with Side.parse("models", models=table.metadata).build() as built:
        proof = prove(built.connection, [table.metadata])
    assert {one.command: one.control for one in proof.kept}["SELECT"] == "revoked"
    assert not proof.violations


def test_an_intent_for_public_holds_for_roles_that_do_not_exist_yet() -> None:
    metadata = MetaData()
    docs, drafts = (
        Table(name, metadata, Column("id", BigInteger, primary_key=True), Column("author", Text))
        for name in ("docs", "drafts")
    )
    intends(docs, "SELECT", role="public", rows=owner("author"))
    own = "author = current_setting('request.jwt.claims', true)::json ->> 'sub'"
    with cleared_server() as server:
        url = server.url(server.create_database())
        with create_engine(url, poolclass=NullPool).begin() as connection:
            for one in (docs, drafts):
                connection.exec_driver_sql(
                    f"CREATE TABLE {one.name} (id bigint PRIMARY KEY, author text);"
                    f"ALTER TABLE {one.name} ENABLE ROW LEVEL SECURITY;"
                    f"CREATE POLICY p ON {one.name} USING ({own})"
                )
            connection.exec_driver_sql("GRANT SELECT ON docs TO PUBLIC")
        with Side.parse(url.render_as_string()).build() as built:
            proof = prove(built.connection, [metadata])
            assert [(one.object, one.role, one.command, one.source) for one in proof.kept] == [
                ("public.docs", "PUBLIC", "SELECT", "stated")
            ]
            assert (proof.violations, proof.not_stated) == ((), ())
            run(built.connection, ["ALTER POLICY p ON docs USING (true)", "CREATE ROLE later"])
            proof = prove(built.connection, [metadata])
    assert keys(proof) == {("PUBLIC", "SELECT", "more"), ("later", "SELECT", "more")}
    assert 'CREATE ROLE "PUBLIC"' in failing_tests(proof.violations)
    assert proof.not_stated == ()


@pytest.mark.exhaustive
def test_each_mutant_of_todos_is_found_or_equivalent(built: Built) -> None:
    before = access_state_of(built.connection)
    prover = Prover.of(built.connection, [Todos.metadata], Budget(worlds=30))
    scored = score(prover, prover.run((), (), None))
    assert str(scored).splitlines()[0] == "11 of 11 mutants found, 4 equivalent within the worlds tried."
    assert {one.kind for one in scored.equivalent} == {"public"}
    assert access_state_of(built.connection) == before


def test_a_run_that_would_notice_no_hole_is_an_error(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_opening", lambda relation, roles: [])
    with pytest.raises(AnalysisError, match=r"can't be trusted: it didn't notice .* on public\.todos"):
        prove(built.connection, [Todos.metadata])


AUDITED = """
CREATE TABLE audit_log (todo_id bigint);
GRANT INSERT ON audit_log TO authenticated;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN INSERT INTO public.audit_log VALUES (NEW.id); RETURN NEW; END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE ON todos FOR EACH ROW EXECUTE FUNCTION note();
"""


@pytest.mark.exhaustive
def test_a_trigger_that_denies_a_statement_hides_no_hole_that_is_planted() -> None:
    with Side.parse("models", models=Todos.metadata).build() as built:
        run(built.connection, [AUDITED])
        proof = prove(built.connection, [Todos.metadata])
        assert {(one.role, one.command) for one in proof.kept} == {
            (role, command) for role in ("anonymous", "authenticated") for command in COMMANDS
        }
        run(built.connection, [f"ALTER POLICY {UPDATE} WITH CHECK (true)"])
        assert keys(prove(built.connection, [Todos.metadata])) == {("authenticated", "UPDATE", "more")}


def test_a_table_that_lacks_a_part_is_not_proved(built: Built) -> None:
    incomplete = frozenset({"public.todos"})
    prover = Prover.of(built.connection, [Todos.metadata], Budget(worlds=5), incomplete=incomplete)
    proof = prover.run((), (), None)
    assert not proof.kept
    assert {one.reason.partition(",")[0] for one in proof.not_stated} == {
        "the scratch database lacks a part of it"
    }


def test_without_time_nothing_is_proved(built: Built) -> None:
    proof = prove(built.connection, [Todos.metadata], budget=Budget(seconds=0))
    assert proof.violations == ()
    assert {one.reason for one in proof.not_stated} == {"the time was over"}


@pytest.mark.exhaustive
def test_an_intent_that_fails_is_an_error() -> None:
    table = documents(auth_uid("author"))

    @intends(table, "SELECT", role=authenticated)
    def wrong(caller: Caller, row: Row, world: World) -> bool:
        return bool(row["owner"])

    with (
        Side.parse("models", models=table.metadata).build() as built,
        pytest.raises(
            AnalysisError, match=r"the intent for SELECT on public\.documents .* KeyError: 'owner'"
        ),
    ):
        prove(built.connection, [table.metadata])


@pytest.mark.exhaustive
def test_a_view_needs_a_stated_intent() -> None:
    from sqlalchemy import select

    from sqla_rls import grant, view

    table = documents(auth_uid("author"))
    shown = view(
        "shown", table.metadata, select(table.c.id, table.c.author), grant("SELECT", to=authenticated)
    )
    side = Side.parse("models", models=table.metadata)
    with side.build() as built:
        proof = prove(built.connection, [table.metadata])
        assert [(one.object, one.role) for one in proof.not_stated] == [("public.shown", "authenticated")]
        intends(shown, "SELECT", role=authenticated, rows=owner("author"))
        proof = prove(built.connection, [table.metadata])
        assert ("public.shown", "stated") in {(one.object, one.source) for one in proof.kept}, proof
        assert not proof.violations
        built.connection.exec_driver_sql("ALTER VIEW shown SET (security_invoker = false)")
        assert keys(prove(built.connection, [table.metadata])) == {("authenticated", "SELECT", "more")}


@pytest.mark.exhaustive
def test_the_documents_of_teams_are_proved() -> None:
    with Side.parse("models", models=Teams.metadata).build() as built:
        proof = prove(built.connection, [Teams.metadata], budget=Budget(worlds=60))
    assert (proof.violations, proof.not_stated) == ((), ())


TODOS = ["prove", "--models", "todos.models:Base", "--worlds", "20"]


def test_the_command_prints_the_proof_and_the_score() -> None:
    found = CliRunner().invoke(main, [*TODOS, "--mutants"])
    assert found.exit_code == 0, found.output
    assert "authenticated: DELETE, INSERT, SELECT, UPDATE as declared" in found.output
    assert "11 of 11 mutants found" in found.output


@pytest.mark.exhaustive
def test_the_command_prints_json() -> None:
    told = CliRunner().invoke(main, [*TODOS, "--format", "json"])
    assert json.loads(told.output)["controls"] == 8


@pytest.mark.exhaustive
def test_the_exit_code_tells_a_violation_from_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wide.py").write_text(
        "from sqlalchemy import *\nfrom sqla_rls import *\nfrom sqla_rls.analyze.intent import *\n"
        "metadata = MetaData()\n"
        "docs = Table('docs', metadata, Column('id', Integer, primary_key=True), Column('author', Text),\n"
        "             Policy('read', 'SELECT', authenticated, using='true'))\n"
    )
    (tmp_path / "wide_intents.py").write_text(
        "from wide import docs\nfrom sqla_rls.analyze.intent import intends, owner\n"
        "intends(docs, 'SELECT', role='authenticated', rows=owner('author'))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    given = ["prove", "--models", "wide:metadata", "--worlds", "20"]
    unstated = CliRunner().invoke(main, given)
    assert (unstated.exit_code, "Not proved:" in unstated.output) == (0, True), unstated.output
    violated = CliRunner().invoke(main, [*given, "--intents", "wide_intents"])
    assert violated.exit_code == 1
    assert "def test_authenticated_may_not_select_public_docs" in violated.output
    for wrong, hint in (
        (["prove"], "--models"),
        (["prove", "--models", "nowhere:Base"], "can't be imported"),
        ([*given, "--intents", "nowhere"], "can't be imported"),
    ):
        told = CliRunner().invoke(main, wrong)
        assert (told.exit_code, hint in told.output) == (2, True), told.output


GUIDE = Path(__file__).parents[3] / "docs" / "guide" / "prove.md"


@pytest.mark.exhaustive
def test_the_guide_shows_real_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLA_RLS_WRITE_GUIDE=1 writes the listings."""
    guide = GUIDE.read_text(encoding="utf-8")
    (tmp_path / "models.py").write_text(guide.split("```python\n")[1].split("```")[0])
    monkeypatch.syspath_prepend(str(tmp_path))
    written = guide
    for call in ("prove --models models:Base", "prove --models todos.models:Base --mutants"):
        with imported_anew("models"):
            told = CliRunner().invoke(main, call.split())
        listing = re.compile(rf"```console\n\$ sqla-rls {re.escape(call)}\n.*?```", re.DOTALL)
        shown = f"```console\n$ sqla-rls {call}\n{told.output}```"
        assert listing.search(written)
        written = listing.sub(lambda match, shown=shown: shown, written)  # type: ignore[misc]
    if os.environ.get("SQLA_RLS_WRITE_GUIDE"):
        GUIDE.write_text(written, encoding="utf-8")
    assert GUIDE.read_text(encoding="utf-8") == written


BY_HAND = """
CREATE ROLE by_hand_reader;
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN short AS text CHECK (length(VALUE) < 9);
CREATE TABLE "Odd: 100%" (
  "the id" int GENERATED ALWAYS AS IDENTITY, "user's" short, mood mood, pair pair,
  twice int GENERATED ALWAYS AS (2) STORED, at timestamptz DEFAULT now());
CREATE TABLE parts (id int, author text, PRIMARY KEY (id, author)) PARTITION BY LIST (author);
CREATE TABLE parts_alice PARTITION OF parts FOR VALUES IN ('alice');
CREATE TABLE parts_others PARTITION OF parts DEFAULT;
CREATE TABLE loops (id int PRIMARY KEY);
CREATE TABLE never (id int PRIMARY KEY, CHECK (id > 1 AND id < 1));
CREATE TABLE trees (id int PRIMARY KEY, parent int REFERENCES trees, author text);
ALTER TABLE "Odd: 100%" ENABLE ROW LEVEL SECURITY;
ALTER TABLE parts ENABLE ROW LEVEL SECURITY;
ALTER TABLE loops ENABLE ROW LEVEL SECURITY;
ALTER TABLE never ENABLE ROW LEVEL SECURITY;
ALTER TABLE trees ENABLE ROW LEVEL SECURITY;
CREATE POLICY "p: %" ON "Odd: 100%" TO by_hand_reader USING ("user's" = current_setting('app.user', true));
CREATE POLICY p ON parts TO by_hand_reader USING (author = current_setting('app.user', true));
CREATE POLICY p ON loops TO by_hand_reader USING (id IN (SELECT id FROM loops));
CREATE POLICY p ON never TO by_hand_reader USING (true);
CREATE POLICY p ON trees TO by_hand_reader
  USING (author = current_setting('request.jwt.claims')::json ->> 'sub');
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO by_hand_reader;
REVOKE ALL ON parts_alice, parts_others FROM by_hand_reader;
"""


@pytest.mark.exhaustive
def test_a_database_made_by_hand_needs_only_the_names_of_its_tables() -> None:
    metadata = MetaData()
    role, every = "by_hand_reader", COMMANDS
    for name in ("loops", "never"):
        intends(Table(name, metadata), *every, role=role, rows=no_one)
    intends(Table("trees", metadata), *every, role=role, rows=owner("author"))
    intends(Table("Odd: 100%", metadata), "SELECT", role=role, rows=no_one)
    with Side.parse("models", models=MetaData()).build() as built:
        built.connection.execute(text(BY_HAND.replace(":", "\\:")))
        proof = prove(built.connection, [metadata], budget=Budget(worlds=40))
        kept = {(one.object, one.command) for one in proof.kept}
        assert {("public.trees", command) for command in every} <= kept, proof
        assert ("public.loops", "SELECT") in kept
        assert {(one.object, one.command, one.direction) for one in proof.violations} == {
            ('public."Odd: 100%"', "SELECT", "more")
        }
        reasons = {one.object: one.reason for one in proof.not_stated}
        assert reasons["public.never"].startswith("public.never: no row was tried: 23514: ")
        assert 'State it: intends(parts, "' in reasons["public.parts"]
