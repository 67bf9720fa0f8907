"""A database as Supabase makes it: another role than the one that migrates owns schema auth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, MetaData, Table, Text, Uuid, column, create_engine, select, text
from sqlalchemy.pool import NullPool

from sqla_rls import (
    Policy,
    auth,
    auth_uid,
    authenticated,
    crud_policy,
    grant,
    in_jwt_claim,
    jwt_claim,
    jwt_claim_contains,
    sql_function,
    view,
)
from sqla_rls.exc import DeclarationError
from sqla_rls.testing.postgres import Server
from tests.support.project import Project, operations, todos
from tests.support.suite import table

_CLAIMS = "nullif(current_setting('request.jwt.claims', true), '')::jsonb"


def _function(name: str, returns: str, value: str) -> str:
    return f"CREATE FUNCTION auth.{name}() RETURNS {returns} LANGUAGE sql STABLE AS $$SELECT {value}$$"


@pytest.fixture
def supabase(server: Server, tmp_path: Path) -> Iterator[Project]:
    """Migrated by a role that is no superuser and has no grant option on schema auth."""
    name = server.create_database()
    admin = create_engine(server.url(name), poolclass=NullPool)
    with admin.begin() as connection:
        statements = [
            "CREATE ROLE rls_supabase_admin",
            "CREATE ROLE rls_supabase_postgres LOGIN CREATEROLE",
            "DO $$ BEGIN CREATE ROLE authenticated; EXCEPTION WHEN duplicate_object THEN END $$",
            "CREATE SCHEMA auth AUTHORIZATION rls_supabase_admin",
            _function("jwt", "jsonb", _CLAIMS),
            _function("uid", "uuid", f"({_CLAIMS} ->> 'sub')::uuid"),
            _function("role", "text", f"{_CLAIMS} ->> 'role'"),
            "GRANT USAGE ON SCHEMA auth TO authenticated, rls_supabase_postgres",
            f"GRANT CREATE ON DATABASE {name} TO rls_supabase_postgres",
            "GRANT ALL ON SCHEMA public TO rls_supabase_postgres WITH GRANT OPTION",
        ]
        for statement in statements:
            connection.execute(text(statement))
    yield Project(tmp_path / "migrations", server.url(name).set(username="rls_supabase_postgres"))
    server.drop_database(name)
    with create_engine(server.url(), poolclass=NullPool).begin() as connection:
        connection.execute(text("DROP ROLE rls_supabase_postgres, rls_supabase_admin"))


def documents(policy: Any) -> MetaData:
    metadata = MetaData()
    Table("documents", metadata, Column("id", Uuid, primary_key=True), Column("team", Text), policy)
    return metadata


@table(
    "policy",
    [
        lambda: crud_policy(authenticated, read=auth_uid("id"), modify=auth_uid("id")),
        lambda: Policy("team", roles=authenticated, using=jwt_claim("team") == column("team")),
        lambda: Policy(
            "teams",
            roles=authenticated,
            using=in_jwt_claim("team", "app_metadata", "teams") & jwt_claim_contains("may", value="read"),
        ),
    ],
    ids=["auth_uid of uuid", "jwt_claim", "lists"],
)
def test_what_supabase_has_is_used(
    supabase: Project, policy: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    metadata = documents(policy())
    written = supabase.revision(metadata)
    assert "create_auth_functions" in operations(written)
    supabase.upgrade()
    assert "GRANT USAGE ON SCHEMA auth TO anonymous" in caplog.text
    supabase.check(metadata)
    assert "op.grant" not in supabase.revision(metadata)
    supabase.upgrade()
    supabase.downgrade("base")


@pytest.mark.exhaustive
def test_without_a_policy_about_callers_nothing_is_said_of_schema_auth(
    supabase: Project, caplog: pytest.LogCaptureFixture
) -> None:
    metadata = documents(Policy("all", roles=authenticated, using="team = 'a'"))
    written = supabase.migrate(metadata)
    assert "auth'" not in written
    assert "create_auth_functions" not in written
    assert "schema auth" not in caplog.text


@pytest.mark.exhaustive
def test_functions_that_supabase_lacks_are_refused_by_name(supabase: Project) -> None:
    owned = Policy("own", roles=authenticated, using=auth_uid("team"))
    with pytest.raises(DeclarationError, match=r"policy 'own' on documents .* auth\.user_id\(\).*jwt_claim"):
        supabase.revision(documents(owned))
    with pytest.raises(DeclarationError, match=r"default of todos\.user_id .* auth\.user_id\(\)"):
        supabase.revision(todos(Policy("all", using=True)))
    metadata = documents(Policy("all", roles=authenticated, using=True))
    metadata.tables["documents"].append_column(Column("by", Text, server_default=auth.jwt()["sub"].astext))
    supabase.migrate(metadata)


def _view(query: str | None = None) -> Callable[[MetaData], None]:
    def declare(metadata: MetaData) -> None:
        table = metadata.tables["documents"]
        found = select(table.c.id).where(auth_uid(table.c.team)) if query is None else query
        view("mine", metadata, found, grant("SELECT", to=authenticated))

    return declare


def _sql_function(body: str, **options: Any) -> Callable[[MetaData], None]:
    return lambda metadata: sql_function(
        "me", metadata, returns="text", body=body, to=authenticated, **options
    )


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("declare", "refused"),
    [
        (_view(), r"view 'mine' can't be created: it calls auth\.user_id\(\)"),
        (
            _view('SELECT id FROM documents WHERE team = "auth" . user_id()'),
            r"view 'mine' .* auth\.user_id\(\)",
        ),
        (_view("SELECT id FROM documents WHERE team <> 'auth.user_id()'"), None),
        (_sql_function("SELECT /* auth.jwt() */ auth. session() ->> 'team'"), r"'me' .* auth\.session\(\)"),
        (_sql_function("SELECT user_id()", search_path=["auth"]), r"function 'me' .* auth\.user_id\(\)"),
        (
            _sql_function("SELECT team FROM public.documents WHERE team = auth.user_id()"),
            r"'me' .* auth\.user_id",
        ),
        (_sql_function("SELECT auth.jwt() ->> 'auth.user_id()'"), None),
    ],
)
def test_views_and_functions_that_call_what_supabase_lacks_are_refused_by_name(
    supabase: Project, declare: Callable[[MetaData], None], refused: str | None
) -> None:
    metadata = documents(Policy("all", roles=authenticated, using=True))
    declare(metadata)
    if refused is None:
        supabase.migrate(metadata)
    else:
        with pytest.raises(DeclarationError, match=refused):
            supabase.revision(metadata)


@pytest.mark.exhaustive
def test_a_body_that_postgres_does_not_read_is_warned_of(
    supabase: Project, caplog: pytest.LogCaptureFixture
) -> None:
    metadata = documents(Policy("all", roles=authenticated, using=True))
    _sql_function("BEGIN RETURN auth.user_id(); END", language="plpgsql")(metadata)
    supabase.revision(metadata)
    assert "function me will fail: its body names auth.user_id(), which this database lacks" in caplog.text
