"""An intent that the models state is compared with real statements."""

from __future__ import annotations

from contextlib import AbstractContextManager

import pytest
from sqlalchemy import (
    BigInteger,
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

from sqla_rls import Caller, anonymous, auth_uid, authenticated
from sqla_rls.analyze.intent import Row, World, intends, no_one, owner
from sqla_rls.analyze.prove.mutants import run
from sqla_rls.analyze.prove.prove import Prover, prove
from sqla_rls.analyze.prove.pytest_text import failing_tests
from sqla_rls.analyze.prove.score import score
from sqla_rls.analyze.sides import Side
from sqla_rls.analyze.verdict import Budget
from sqla_rls.analyze.why.explanation import COMMANDS
from sqla_rls.exc import AnalysisError
from tests.support.proofs import changed, documents, keys
from tests.support.servers import cleared_server
from todos.models import Base as Todos


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


def changed_policy(connection: Connection, using: str) -> AbstractContextManager[None]:
    policy = "ALTER POLICY read ON documents USING"
    return changed(connection, f"{policy} ({using})", undo=[f"{policy} (true)"])


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
