"""A database of our migrations works under PostgREST, and Neon's Data API, as it is.

No registry has PostgREST's program.  The tests send the statements of its requests by hand, as the source of
version 17 (August 2026) has them: the settings of the transaction, then one statement.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import BigInteger, Boolean, Column, Identity, MetaData, Table, Text, create_engine
from sqlalchemy.schema import CreateSchema

from sqla_rls import auth, auth_uid, authenticated, crud_policy, declare_roles, sql_function
from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from sqla_rls.declare.base import anonymous
from sqla_rls.declare.policies import Policy
from sqla_rls.rotation import rotate_signing_key
from sqla_rls.snapshot import Role
from sqla_rls.testing.postgres import Server

pytestmark = pytest.mark.every_postgres

ALICE = {"sub": "alice", "role": "authenticated"}
BOB = {"sub": "bob", "role": "authenticated"}

READ = """
WITH pgrst_source AS (SELECT "public"."notes".* FROM "public"."notes" {where} ORDER BY id)
SELECT null::bigint AS total_result_set, pg_catalog.count(_postgrest_t) AS page_total,
       coalesce(json_agg(_postgrest_t), '[]') AS body,
       nullif(current_setting('response.headers', true), '') AS response_headers,
       nullif(current_setting('response.status', true), '') AS response_status, '' AS response_inserted
  FROM (SELECT * FROM pgrst_source) _postgrest_t"""
WRITE = """
WITH pgrst_source AS ({statement} RETURNING "public"."notes".*)
SELECT '' AS total_result_set, pg_catalog.count(_postgrest_t) AS page_total,
       coalesce(json_agg(_postgrest_t), '[]') AS body,
       nullif(current_setting('pgrst.inserted', true), '') AS response_inserted
  FROM (SELECT * FROM pgrst_source) _postgrest_t"""
BODY = """
FROM (SELECT %s::json AS json_data) pgrst_payload,
     LATERAL (SELECT {} FROM json_to_recordset(
       CASE WHEN json_typeof(pgrst_payload.json_data) = 'array' THEN pgrst_payload.json_data
            ELSE json_build_array(pgrst_payload.json_data) END) AS _({})) pgrst_body"""


def models() -> MetaData:
    metadata = MetaData()
    Table(
        "notes",
        metadata,
        Column("id", BigInteger, Identity(), primary_key=True),
        Column("user_id", Text, server_default=auth.user_id(), nullable=False, index=True),
        Column("body", Text),
        Column("published", Boolean, server_default="false", nullable=False),
        crud_policy(authenticated, read=auth_uid("user_id"), modify=auth_uid("user_id")),
        Policy("published", "SELECT", anonymous, using="published"),
    )
    sql_function(
        "count_notes",
        metadata,
        returns="bigint",
        body="SELECT count(*) FROM public.notes",
        to=[authenticated, anonymous],
    )
    declare_roles(
        metadata,
        Role("authenticator", login=True, inherit=False, member_of=[authenticated, anonymous]),
    )
    return metadata


class Api:
    """The requests of PostgREST, on one connection of the role authenticator."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def request(self, claims: dict[str, str] | None, query: str, *parameters: object) -> Any:
        role = "anonymous" if claims is None else claims["role"]
        settings = {
            "search_path": '"public"',
            "role": role,
            "request.jwt.claims": json.dumps({**(claims or {}), "role": role}),
            "request.method": "GET",
            "request.path": "/notes",
            "request.headers": '{"accept": "*/*"}',
            "request.cookies": "{}",
        }
        calls = sql.SQL(", ").join(sql.SQL("set_config({}, %s, true)").format(name) for name in settings)
        with self._connection.transaction():
            self._connection.execute(sql.SQL("SELECT {}").format(calls), list(settings.values()))
            return self._connection.execute(query.encode(), parameters).fetchone()

    def get(self, claims: dict[str, str] | None, where: str = "") -> list[dict[str, Any]]:
        body: list[dict[str, Any]] = self.request(claims, READ.format(where=where))[2]
        return body

    def post(self, claims: dict[str, str], rows: object, columns: str, *, conflict: str = "") -> Any:
        names = ", ".join(f"pgrst_body.{name.split()[0]}" for name in columns.split(", "))
        plain = ", ".join(name.split()[0] for name in columns.split(", "))
        body = BODY.format(plain, columns)
        statement = f'INSERT INTO "public"."notes"({plain}) SELECT {names} {body} {conflict}'
        return self.request(claims, WRITE.format(statement=statement), json.dumps(rows))[2]

    def patch(self, claims: dict[str, str], body: str, where: str) -> Any:
        assignment = 'UPDATE "public"."notes" SET body = pgrst_body.body '
        source = BODY.format("body", "body text")
        statement = f"{assignment} {source} WHERE {where}"
        return self.request(claims, WRITE.format(statement=statement), json.dumps({"body": body}))[2]

    def delete(self, claims: dict[str, str], where: str) -> Any:
        statement = f'DELETE FROM "public"."notes" WHERE {where}'
        return self.request(claims, WRITE.format(statement=statement))[2]


@pytest.fixture(scope="module")
def name(server: Server) -> Iterator[str]:
    name = server.create_database()
    engine = create_engine(server.url(name))
    with engine.begin() as connection:
        models().create_all(connection)
    engine.dispose()
    yield name
    server.drop_database(name)
    with psycopg.connect(_url(server, "postgres"), autocommit=True) as connection:
        connection.execute("DROP ROLE authenticator")


def _url(server: Server, database: str, user: str | None = None) -> str:
    return server.url(database, user=user).set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.fixture
def api(server: Server, name: str) -> Iterator[Api]:
    with psycopg.connect(_url(server, name), autocommit=True) as owner:
        owner.execute("TRUNCATE notes RESTART IDENTITY")
    with psycopg.connect(_url(server, name, "authenticator"), autocommit=True) as connection:
        yield Api(connection)


def bodies(rows: list[dict[str, Any]]) -> list[str]:
    return [row["body"] for row in rows]


def test_each_token_reads_and_writes_the_rows_of_its_subject(api: Api) -> None:
    (written,) = api.post(ALICE, {"body": "milk"}, "body text")
    assert written["user_id"] == "alice"
    api.post(BOB, [{"body": "sleep"}, {"body": "rest"}], "body text")

    assert bodies(api.get(ALICE)) == ["milk"]
    assert bodies(api.get(BOB)) == ["sleep", "rest"]
    assert bodies(api.get(BOB, "WHERE id = 1")) == []
    assert api.patch(BOB, "taken", "true") != []
    assert bodies(api.get(ALICE)) == ["milk"]
    assert api.delete(ALICE, "id > 1") == []
    assert bodies(api.delete(ALICE, "true")) == ["milk"]


def test_a_row_for_another_subject_is_refused(api: Api) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
        api.post(ALICE, {"body": "for bob", "user_id": "bob"}, "body text, user_id text")
    assert api.get(BOB) == []


def test_an_upsert_updates_own_rows_only(api: Api) -> None:
    merge = "ON CONFLICT (id) DO UPDATE SET body = EXCLUDED.body"
    columns = "id bigint, body text"
    # An identity column takes a value of a client, as PostgREST sends it, only BY DEFAULT.
    api.post(ALICE, {"id": 7, "body": "milk"}, columns, conflict=merge)
    assert bodies(api.post(ALICE, {"id": 7, "body": "bread"}, columns, conflict=merge)) == ["bread"]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        api.post(BOB, {"id": 7, "body": "taken"}, columns, conflict=merge)
    assert bodies(api.get(ALICE)) == ["bread"]


def test_a_request_without_a_token_reads_what_is_published(api: Api, server: Server, name: str) -> None:
    api.post(ALICE, {"body": "draft"}, "body text")
    api.post(ALICE, {"body": "news", "published": True}, "body text, published boolean")
    assert bodies(api.get(None)) == ["news"]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        api.request(None, WRITE.format(statement="DELETE FROM notes"))


def test_a_function_is_called_as_the_subject(api: Api) -> None:
    api.post(ALICE, {"body": "milk"}, "body text")
    call = "SELECT pgrst_call.pgrst_scalar FROM (SELECT count_notes() pgrst_scalar) pgrst_call"
    assert [api.request(claims, call)[0] for claims in (ALICE, BOB, None)] == [1, 0, 0]


def test_nothing_is_left_on_the_connection(api: Api) -> None:
    api.post(ALICE, {"body": "milk"}, "body text")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        api._connection.execute("SELECT * FROM notes")


def test_the_role_of_a_token_that_authenticator_may_not_take_is_refused(api: Api) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied to set role"):
        api.get({"sub": "alice", "role": "postgres"})


def test_a_database_that_verifies_callers_refuses_its_requests(server: Server) -> None:
    """PostgREST signs nothing, so that its callers are refused."""
    database = server.create_database()
    engine = create_engine(server.url(database))
    with engine.begin() as connection:
        connection.execute(CreateSchema("auth"))
        connection.execute(CreateAuthFunctions(signed=True))
        rotate_signing_key(connection)
        models().create_all(connection)
    engine.dispose()
    try:
        with psycopg.connect(_url(server, database, "authenticator"), autocommit=True) as connection:
            with pytest.raises(psycopg.errors.InvalidAuthorizationSpecification, match="is not signed"):
                Api(connection).get(ALICE)
            with pytest.raises(psycopg.Error):
                Api(connection).post(ALICE, {"body": "milk"}, "body text")
    finally:
        server.drop_database(database)
