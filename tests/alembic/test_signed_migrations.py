"""Installing functions that verify callers, and taking them away: by whom, over what, and what autogenerate
makes of it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from click.testing import CliRunner
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from sqla_rls.cli import main
from sqla_rls.driver import server_info as origin
from sqla_rls.exc import SigningUnavailable
from sqla_rls.rotation import rotate_signing_key
from sqla_rls.testing.postgres import Server
from tests.support.project import Project, execute, operations, own_todos
from tests.support.signing import ask, bind, refusal, token

_HOLDERS = text("""
SELECT pg_get_userbyid(nspowner)::text FROM pg_namespace WHERE nspname = 'sqla_rls_secret'
UNION ALL SELECT pg_get_userbyid(relowner)::text FROM pg_class WHERE relname = 'signing_key'
UNION ALL SELECT pg_get_userbyid(proowner)::text FROM pg_proc
           WHERE proname = 'rotate_signing_key' OR prosecdef AND pronamespace = 'auth'::regnamespace
""")
_TRACES = text("""
SELECT nspname::text FROM pg_namespace WHERE nspname IN ('auth', 'sqla_rls_secret')
UNION ALL SELECT rolname::text FROM pg_roles WHERE rolname = 'sqla_rls_keyholder'
""")
KEYHOLDER = "sqla_rls_keyholder"


def op(connection: Connection) -> Any:
    return Operations(MigrationContext.configure(connection))


def sign(connection: Connection) -> None:
    op(connection).create_auth_functions(signed=True)


def assert_signed(connection: Connection, key: str) -> None:
    bind(connection, json.dumps({"sub": "bob"}), "request.jwt.claims")
    bind(connection, token(key))
    assert ask(connection) == "alice"
    bind(connection, token("A" * 43))
    refusal(connection)
    bind(connection, "")
    assert refusal(connection).sqlstate == "28000"


class Cluster:
    """A server of one's own, since roles belong to it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.superuser = self.engine("postgres")
        self._made: list[str] = []

    def engine(self, database: str, user: str | None = None) -> Engine:
        return create_engine(self.server.url(database, user=user), poolclass=NullPool)

    def database_of(self, owner: str, attributes: str = "") -> tuple[Engine, Engine]:
        """A new database as *owner*, a new role, and as the superuser."""
        with self.superuser.begin() as connection:
            connection.exec_driver_sql(f"CREATE ROLE {owner} LOGIN {attributes}")
        self._made.append(owner)
        name = self.server.create_database(f"db_{owner}", owner=owner)
        return self.engine(name, owner), self.engine(name)

    def clean(self) -> None:
        for owner in self._made:
            self.server.drop_database(f"db_{owner}")
        with self.superuser.begin() as connection:
            # Who made it last: on it hang the others' memberships.
            for role in (KEYHOLDER, *reversed(self._made)):
                connection.exec_driver_sql(f"DROP ROLE IF EXISTS {role}")


@pytest.fixture(scope="module")
def own_server(server: Server) -> Iterator[Server]:
    if server.installation is None:
        pytest.skip("roles are made and dropped here: that needs a server of our own")
    with Server.start(server.installation) as own:
        yield own


@pytest.fixture
def cluster(own_server: Server) -> Iterator[Cluster]:
    cluster = Cluster(own_server)
    yield cluster
    cluster.clean()


def members(connection: Connection) -> list[tuple[str, bool]]:
    """Who is a member of the key's holder, and whether they can act as it."""
    options = text("""
        SELECT m.member::regrole::text,
               coalesce((o ->> 'set_option')::boolean OR (o ->> 'inherit_option')::boolean, true)
          FROM pg_auth_members AS m, to_jsonb(m) AS o
         WHERE m.roleid = to_regrole('sqla_rls_keyholder')""")
    return [(member, acts) for member, acts in connection.execute(options)]


@pytest.mark.exhaustive
def test_an_owner_who_may_make_roles_keeps_the_key_from_themselves(cluster: Cluster) -> None:
    owner, superuser = cluster.database_of("maker", "CREATEROLE")
    with owner.begin() as connection:
        sign(connection)
        key = rotate_signing_key(connection)
    with owner.begin() as connection:
        sign(connection)
    with owner.connect() as connection:
        assert set(connection.scalars(_HOLDERS)) == {KEYHOLDER}
        assert not [member for member, acts in members(connection) if acts]
        assert_signed(connection, key)
        with pytest.raises(DBAPIError, match="permission denied"):
            connection.exec_driver_sql("TABLE sqla_rls_secret.signing_key")
    with superuser.connect() as connection:
        owned = text("SELECT count(*) FROM pg_shdepend WHERE refobjid = to_regrole('sqla_rls_keyholder')")
        assert connection.scalar(owned) == 4
    with owner.begin() as connection:
        op(connection).drop_auth_functions()
        assert list(connection.scalars(_TRACES)) == []


@pytest.mark.exhaustive
def test_an_owner_who_may_not_keeps_it_and_is_warned(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    owner, superuser = cluster.database_of("plain")
    notices: list[str] = []
    with owner.begin() as connection:
        driver: Any = connection.connection.driver_connection
        driver.add_notice_handler(
            lambda notice: notices.append(f"{notice.severity} {notice.message_primary}")
        )
        sign(connection)
        key = rotate_signing_key(connection)
        assert set(connection.scalars(_HOLDERS)) == {"plain"}
        assert_signed(connection, key)
    assert any(
        notice.startswith("WARNING") and "plain and its members can sign" in notice for notice in notices
    )
    assert "plain and its members can sign as any caller" in caplog.text

    # As the warning says.
    with superuser.begin() as connection:
        sign(connection)
        assert set(connection.scalars(_HOLDERS)) == {KEYHOLDER}
    with owner.connect() as connection:
        assert_signed(connection, key)
        for statement in ("TABLE sqla_rls_secret.signing_key", "SET ROLE sqla_rls_keyholder"):
            savepoint = connection.begin_nested()
            with pytest.raises(DBAPIError, match="permission denied"):
                connection.exec_driver_sql(statement)
            savepoint.rollback()
    caplog.clear()
    with superuser.begin() as connection:
        op(connection).create_auth_functions()
        assert_signed(connection, key)
        op(connection).drop_auth_functions()
        assert list(connection.scalars(_TRACES)) == []
    assert "can sign as any caller" not in caplog.text


@pytest.mark.exhaustive
def test_an_owner_who_keeps_it_drops_it(cluster: Cluster) -> None:
    owner, _ = cluster.database_of("plain")
    with owner.begin() as connection:
        sign(connection)
        rotate_signing_key(connection)
        sign(connection)
        op(connection).drop_auth_functions()
        assert list(connection.scalars(_TRACES)) == []


@pytest.mark.exhaustive
def test_an_owner_who_inherits_nothing_can_all_the_same(cluster: Cluster) -> None:
    owner, _ = cluster.database_of("maker", "CREATEROLE NOINHERIT")
    with owner.begin() as connection:
        for _ in range(2):
            sign(connection)
        # Before 16 there is no inheriting for a moment.
        holder = KEYHOLDER if cluster.server.version >= 16 else "maker"
        assert set(connection.scalars(_HOLDERS)) == {holder}
        assert_signed(connection, rotate_signing_key(connection))
        op(connection).drop_auth_functions()
        assert list(connection.scalars(_TRACES)) == []


@pytest.mark.exhaustive
def test_an_owner_who_may_make_roles_later_gives_it_away(cluster: Cluster) -> None:
    owner, superuser = cluster.database_of("plain")
    with owner.begin() as connection:
        sign(connection)
        key = rotate_signing_key(connection)
    with superuser.begin() as connection:
        connection.exec_driver_sql("ALTER ROLE plain CREATEROLE")
    with owner.begin() as connection:
        sign(connection)
        assert set(connection.scalars(_HOLDERS)) == {KEYHOLDER}
        assert rotate_signing_key(connection) != key
    with owner.begin() as connection:
        assert_signed(connection, key)
        op(connection).drop_auth_functions()
        assert list(connection.scalars(_TRACES)) == []


@pytest.mark.exhaustive
def test_two_databases_share_the_role(cluster: Cluster) -> None:
    one, _ = cluster.database_of("one", "CREATEROLE")
    other, _ = cluster.database_of("other", "CREATEROLE")
    keys = []
    for owner in (one, other):
        with owner.begin() as connection:
            sign(connection)
            keys.append(rotate_signing_key(connection))
    with other.connect() as connection:
        # From 16 on only who made a role may give it away.
        holder = KEYHOLDER if cluster.server.version < 16 else "other"
        assert set(connection.scalars(_HOLDERS)) == {holder}
        assert_signed(connection, keys[1])
        bind(connection, token(keys[0]))
        refusal(connection)
    with one.begin() as connection:
        op(connection).drop_auth_functions()
        left = [KEYHOLDER] if cluster.server.version < 16 else []
        assert list(connection.scalars(_TRACES)) == left
    with other.begin() as connection:
        assert_signed(connection, keys[1])
        op(connection).drop_auth_functions()
        assert list(connection.scalars(_TRACES)) == []


@pytest.mark.exhaustive
def test_who_drops_it_keeps_no_way_to_the_keys_of_others(cluster: Cluster) -> None:
    maker, _ = cluster.database_of("maker", "CREATEROLE")
    _, superuser = cluster.database_of("plain")
    for engine in (maker, superuser):
        with engine.begin() as connection:
            sign(connection)
    with maker.begin() as connection:
        op(connection).drop_auth_functions()
        assert list(connection.scalars(_TRACES)) == [KEYHOLDER]
        assert not [member for member, acts in members(connection) if acts]
    with superuser.begin() as connection:
        op(connection).drop_auth_functions()


@pytest.mark.exhaustive
def test_what_a_superuser_installed_is_for_an_owner_to_leave_alone(cluster: Cluster) -> None:
    owner, superuser = cluster.database_of("plain")
    with superuser.begin() as connection:
        sign(connection)
        key = rotate_signing_key(connection)
        connection.exec_driver_sql("GRANT USAGE ON SCHEMA auth TO plain")
    with owner.connect() as connection, pytest.raises(SigningUnavailable, match="a superuser, run"):
        sign(connection)
    with owner.connect() as connection:
        assert_signed(connection, key)
    with superuser.begin() as connection:
        # Such as what deploys.
        connection.exec_driver_sql("GRANT USAGE ON SCHEMA sqla_rls_secret TO plain")
        connection.exec_driver_sql(
            "GRANT EXECUTE ON FUNCTION sqla_rls_secret.rotate_signing_key(interval) TO plain"
        )
        sign(connection)
    with owner.connect() as connection:
        rotate_signing_key(connection)


def test_a_role_that_may_log_in_holds_no_key(cluster: Cluster) -> None:
    owner, _ = cluster.database_of("maker", "CREATEROLE")
    with owner.begin() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {KEYHOLDER} LOGIN")
        sign(connection)
        assert set(connection.scalars(_HOLDERS)) == {"maker"}


@pytest.mark.exhaustive
def test_a_schema_that_somebody_laid_out_is_refused(cluster: Cluster) -> None:
    owner, superuser = cluster.database_of("maker", "CREATEROLE")
    with superuser.begin() as connection:
        connection.exec_driver_sql("CREATE ROLE mallory")
        connection.exec_driver_sql("CREATE SCHEMA sqla_rls_secret AUTHORIZATION mallory")
        connection.exec_driver_sql("COMMENT ON SCHEMA sqla_rls_secret IS 'made by sqla_rls'")
    for engine in (owner, superuser):
        with engine.connect() as connection:
            with pytest.raises(SigningUnavailable, match="belongs to mallory, which could read the key"):
                sign(connection)
            connection.rollback()
            assert list(connection.scalars(_TRACES)) == ["sqla_rls_secret"]
    with superuser.begin() as connection:
        connection.exec_driver_sql("DROP OWNED BY mallory")
        connection.exec_driver_sql("DROP ROLE mallory")


def test_functions_of_something_else_are_refused(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE SCHEMA auth")
        connection.exec_driver_sql("CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql RETURN NULL::uuid")
        connection.commit()
        before = list(connection.scalars(_TRACES))
        with pytest.raises(SigningUnavailable, match=r"another program created auth\.uid\(\)"):
            sign(connection)
        connection.rollback()
        assert list(connection.scalars(_TRACES)) == before


def test_the_extension_is_refused(engine: Engine) -> None:
    with engine.connect() as connection:
        if not connection.scalar(
            text("SELECT true FROM pg_available_extensions WHERE name = 'pg_session_jwt'")
        ):
            pytest.skip("this server has no pg_session_jwt")
        op(connection).create_auth_functions()
        with pytest.raises(SigningUnavailable, match="the extension pg_session_jwt owns schema auth"):
            sign(connection)


def portable(project: Project) -> None:
    """What this library makes where the server doesn't offer the extension."""
    execute(project, "CREATE SCHEMA auth")


@pytest.mark.exhaustive
def test_they_replace_those_that_believe_in_place_and_back(project: Project) -> None:
    portable(project)
    project.migrate(own_todos())
    believing = project.state()
    with project.engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO todos (user_id, task) VALUES ('alice', 'hers'), ('bob', 'his')"
        )
        connection.exec_driver_sql("ALTER TABLE todos FORCE ROW LEVEL SECURITY")
        sign(connection)
        key = rotate_signing_key(connection)
    with project.engine.connect() as connection:
        bind(connection, "authenticated", "role")
        bind(connection, token(key))
        assert list(connection.scalars(text("SELECT task FROM todos"))) == ["hers"]
        connection.exec_driver_sql("INSERT INTO todos (task) VALUES ('new')")
    with project.engine.begin() as connection:
        op(connection).drop_auth_functions()
        assert_signed(connection, key)
        op(connection).create_auth_functions(signed=False)
        bind(connection, "", "pg_session_jwt.jwt")
        bind(connection, json.dumps({"sub": "bob"}), "request.jwt.claims")
        assert ask(connection) == "bob"
        connection.exec_driver_sql("ALTER TABLE todos NO FORCE ROW LEVEL SECURITY")
    roles = {line for line in project.state() if line[0] == "role"} - set(believing)
    assert roles <= {("role", KEYHOLDER)}  # other databases of this server may have it
    assert [line for line in project.state() if line not in roles] == [
        line for line in believing if line != ("role", KEYHOLDER) or line in project.state()
    ]


@pytest.mark.exhaustive
def test_signing_is_not_taken_away_in_passing(project: Project) -> None:
    with project.engine.begin() as connection:
        sign(connection)
        key = rotate_signing_key(connection)
        op(connection).create_auth_functions()
        assert_signed(connection, key)
    project.migrate(own_todos())
    own_todos().create_all(project.engine)
    with project.engine.begin() as connection:
        assert_signed(connection, key)


@pytest.fixture
def signed_project(project: Project) -> Project:
    """With a database that verifies, and is as the models have it."""
    with project.engine.begin() as connection:
        sign(connection)
        rotate_signing_key(connection)
    written = project.revision(own_todos())
    assert "op.create_auth_functions()" in written
    assert "op.drop_auth_functions(signed=False)" in written
    project.upgrade()
    return project


@pytest.mark.exhaustive
@pytest.mark.parametrize("include_schemas", [False, True])
def test_a_database_that_verifies_is_settled(signed_project: Project, include_schemas: bool) -> None:
    signed_project.options["include_schemas"] = include_schemas
    signed_project.check(own_todos())
    written = signed_project.revision(own_todos())
    for direction in ("upgrade", "downgrade"):
        assert operations(written, direction) == []


@pytest.mark.exhaustive
def test_a_downgrade_leaves_the_key_alone(signed_project: Project) -> None:
    signed_project.options["include_schemas"] = True
    signed_project.downgrade("base")
    signed_project.upgrade()
    signed_project.check(own_todos())
    with signed_project.engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM sqla_rls_secret.signing_key")) == 1


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "edit",
    [
        "CREATE OR REPLACE FUNCTION auth.user_id() RETURNS text LANGUAGE sql STABLE RETURN 'bob'",
        "ALTER FUNCTION auth.session() SECURITY INVOKER",
        "ALTER FUNCTION auth.session() SET search_path = ''",
        "ALTER FUNCTION auth.session() PARALLEL SAFE",
        "ALTER FUNCTION auth.uid() VOLATILE",
        "ALTER FUNCTION sqla_rls_secret.rotate_signing_key(interval) RESET search_path",
        "DROP FUNCTION sqla_rls_secret.rotate_signing_key(interval)",
        "DROP FUNCTION auth.organization()",
        "DROP TABLE sqla_rls_secret.signing_key",
        "DROP SCHEMA sqla_rls_secret CASCADE",
    ],
)
def test_what_was_edited_by_hand_is_seen_and_mended(signed_project: Project, edit: str) -> None:
    project = signed_project
    keys = text("SELECT slot, encode(inner_pad, 'hex') FROM sqla_rls_secret.signing_key")
    with project.engine.connect() as connection:
        before = connection.execute(keys).all()
    made = project.state()
    execute(project, edit)
    written = project.migrate(own_todos())
    assert "op.create_auth_functions(signed=True)" in written
    assert operations(written, "downgrade") == []
    assert project.state() == made
    with project.engine.begin() as connection:
        after = connection.execute(keys).all()
        assert after == ([] if edit.startswith(("DROP TABLE", "DROP SCHEMA")) else before)
        assert_signed(connection, rotate_signing_key(connection))


def verifies(project: Project) -> bool:
    """Whether sessions take the database for one that verifies callers."""
    with project.engine.connect() as connection:
        answer: Any = connection.exec_driver_sql(origin.QUERY.replace("%", "%%")).scalar()
        return origin.read(answer, connection.connection.driver_connection, is_new=False).verifier


@pytest.mark.exhaustive
def test_a_comment_by_hand_ends_no_signing(signed_project: Project) -> None:
    project = signed_project
    execute(project, *(f"COMMENT ON FUNCTION auth.{name}() IS 'asks'" for name in ("session", "uid")))
    project.check(own_todos())
    assert verifies(project)
    with project.engine.begin() as connection:
        sign(connection)
        assert_signed(connection, rotate_signing_key(connection))
        op(connection).create_auth_functions(signed=False)
        bind(connection, "", "pg_session_jwt.jwt")
        bind(connection, json.dumps({"sub": "bob"}), "request.jwt.claims")
        assert ask(connection) == "bob"
    assert not verifies(project)
    execute(project, "DROP TABLE todos", "DROP TABLE alembic_version")
    with project.engine.begin() as connection:
        op(connection).drop_auth_functions()
        assert connection.scalar(text("SELECT to_regproc('auth.session')")) is None


def test_no_comment_makes_a_verifier(project: Project) -> None:
    execute(
        project,
        "CREATE SCHEMA auth",
        "CREATE FUNCTION auth.session() RETURNS jsonb LANGUAGE sql SECURITY DEFINER RETURN '{}'::jsonb",
        "COMMENT ON FUNCTION auth.session() IS 'made by sqla_rls'",
    )
    assert not verifies(project)


@pytest.mark.exhaustive
def test_what_is_imported_says_nothing_of_it(signed_project: Project) -> None:
    url = signed_project.url.set(drivername="postgresql").render_as_string(hide_password=False)
    for arguments in ([], ["--schema", "sqla_rls_secret"]):
        result = CliRunner().invoke(main, ["import", url, *arguments], catch_exceptions=False)
        assert "sqla_rls_" not in result.output.replace(f"database {signed_project.url.database!r}", "")
    assert "pass" in result.output


@pytest.mark.exhaustive
@pytest.mark.parametrize("signed", [True, False, None])
def test_offline_it_is_written_as_a_script(engine: Engine, signed: bool | None) -> None:
    output = io.StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql",
        opts={"as_sql": True, "output_buffer": output},
        dialect_opts={"paramstyle": "named"},
    )
    migration: Any = Operations(context)
    migration.create_auth_functions(signed=signed)
    migration.drop_auth_functions()
    script = output.getvalue()
    assert ("CREATE TABLE sqla_rls_secret.signing_key" in script) is bool(signed)
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE SCHEMA auth")
        driver: Any = connection.connection.driver_connection
        driver.execute(script)


@pytest.mark.exhaustive
def test_the_sql_can_be_run_by_hand(engine: Engine) -> None:
    create = CliRunner().invoke(main, ["auth-functions", "--signed"]).output
    drop = CliRunner().invoke(main, ["auth-functions", "--signed", "--drop"]).output
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        driver.execute(create)
        assert_signed(connection, rotate_signing_key(connection))
        driver.execute(drop)
        assert set(connection.scalars(_TRACES)) <= {KEYHOLDER}
