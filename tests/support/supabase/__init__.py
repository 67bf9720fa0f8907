"""A stand-in for projects of Supabase: a server with its roles, and databases with its schemas.

One thing differs.  On Supabase, the extension supautils lets ``postgres`` manage policies on tables that it
doesn't own.  Here a membership in the owners of the tables allows it, as on Supabase before April 2025.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, Column, Engine, ForeignKey, MetaData, Table, Text, Uuid, create_engine, func, text
from sqlalchemy.pool import NullPool

from sqla_rls import Policy, auth_uid, crud_policy, declare_on, supabase
from sqla_rls.server.installation import Installation
from sqla_rls.testing.postgres import Server
from tests.support.project import state
from tests.support.suite import missing

ALICE, BOB = "a11ce000-0000-4000-8000-000000000001", "b0b00000-0000-4000-8000-000000000002"

_FOLDER = Path(__file__).parent

# Postgres prints none of these in state().
_MORE_STATE = """
SELECT 'role', concat_ws(' ', rolname, rolsuper, rolinherit, rolcreaterole, rolcanlogin, rolbypassrls,
                         rolconfig)
  FROM pg_catalog.pg_roles
UNION ALL
SELECT 'membership', concat_ws(' ', roleid::regrole, member::regrole, admin_option)
  FROM pg_catalog.pg_auth_members
UNION ALL
SELECT 'owner', concat_ws(' ', oid::regclass, relowner::regrole) FROM pg_catalog.pg_class
 WHERE oid >= 16384 AND relnamespace <> 'pg_toast'::regnamespace AND relname !~ 'alembic_version'
UNION ALL
SELECT 'owner', concat_ws(' ', nspname, nspowner::regrole) FROM pg_catalog.pg_namespace
UNION ALL
SELECT 'trigger', concat_ws(' ', evtname, evtenabled) FROM pg_catalog.pg_event_trigger
ORDER BY 1, 2
"""


class Supabase:
    """A server with the roles of Supabase; ``url()`` logs in as ``postgres``, which is no superuser."""

    def __init__(self, server: Server) -> None:
        self.server = server
        with _engine(server.url()).begin() as connection:
            connection.execute(text("CREATE ROLE renaming SUPERUSER LOGIN"))
        with _engine(server.url(user="renaming")).begin() as connection:
            connection.execute(text("ALTER ROLE postgres RENAME TO supabase_admin"))
            _run(connection.exec_driver_sql, "roles")
        with self.admin("postgres").begin() as connection:
            connection.execute(text("DROP ROLE renaming"))
            connection.execute(text("ALTER DATABASE postgres OWNER TO postgres"))

    def admin(self, database: str) -> Engine:
        """Return an engine of the superuser."""
        return _engine(self.server.url(database, user="supabase_admin"))

    def create_project(self, *, default_grants: bool = True, policies: bool = True) -> str:
        """Return the database of a new project.

        Args:
            default_grants: callers hold all privileges on new tables, as before October 2026.
            policies: ``postgres`` may manage policies of Storage and Realtime.
        """
        name = self.server.create_database(owner="postgres")
        owners = "supabase_storage_admin, supabase_realtime_admin"
        with self.admin(name).begin() as connection:
            _run(connection.exec_driver_sql, "project")
            if not default_grants:
                _run(connection.exec_driver_sql, "default_grants_revoked")
            connection.execute(
                text(f"GRANT {owners} TO postgres" if policies else f"REVOKE {owners} FROM postgres")
            )
        return name

    def url(self, database: str, user: str = "postgres", driver: str = "psycopg") -> URL:
        return self.server.url(database, user=user, driver=driver)

    def state(self, database: str) -> set[tuple[str, str]]:
        """Return all that a migration of row security may change, and roles and owners."""
        with self.admin(database).connect() as connection:
            more = connection.execute(text(_MORE_STATE))
            return {*state(connection), *((kind, line) for kind, line in more)}


@pytest.fixture(scope="session")
def on_supabase(installation: Installation | None) -> Iterator[Supabase]:
    """A server of its own: its roles have the names of others in the tests."""
    if installation is None:
        missing("server from binaries", "unset SQLA_RLS_TEST_URL")
    with Server.start(installation) as server:
        yield Supabase(server)


def models(*, storage: bool = True) -> MetaData:
    metadata = MetaData()
    supabase.leave_alone(metadata)
    Table(
        "todos",
        metadata,
        Column("id", Uuid, primary_key=True, server_default=func.gen_random_uuid()),
        Column("user_id", Uuid, ForeignKey(supabase.users.c.id), server_default=supabase.auth.uid()),
        Column("task", Text),
        crud_policy(supabase.authenticated, read=auth_uid("user_id"), modify=auth_uid("user_id")),
    )
    Table(
        "notices",
        metadata,
        Column("id", Uuid, primary_key=True, server_default=func.gen_random_uuid()),
        Column("message", Text),
        Column("public", Text),
        Policy("public", "SELECT", ["anon", "authenticated"], using="public = 'yes'"),
    )
    if storage:
        objects = supabase.storage_objects(metadata)
        in_avatars = objects.c.bucket_id == "avatars"
        own = supabase.auth_uid(objects.c.owner_id)
        declare_on(
            objects,
            Policy("avatars are public", "SELECT", [supabase.anon, supabase.authenticated], using=in_avatars),
            Policy("own avatars", "INSERT", supabase.authenticated, with_check=in_avatars & own),
        )
        messages = supabase.realtime_messages(metadata)
        declare_on(
            messages,
            Policy(
                "own channel",
                "SELECT",
                supabase.authenticated,
                using=(messages.c.extension == "broadcast")
                & (supabase.realtime_topic() == "user:" + supabase.auth.uid().cast(Text)),
            ),
        )
    return metadata


def _engine(url: URL) -> Engine:
    return create_engine(url, poolclass=NullPool)


def _run(execute: object, name: str) -> None:
    assert callable(execute)
    execute((_FOLDER / f"{name}.sql").read_text("utf-8").replace("%", "%%"))
