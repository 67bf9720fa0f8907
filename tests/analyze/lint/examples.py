"""The failing and the clean case of each rule, in a transaction that is rolled back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.run import Report, lint
from sqla_rls.catalog.query import undone
from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from tests.support.servers import cleared_server

#: Each example has them.
PRELUDE = """
CREATE ROLE anonymous;
CREATE ROLE authenticated;
REVOKE TEMPORARY ON DATABASE app FROM PUBLIC;
GRANT USAGE ON SCHEMA auth TO anonymous, authenticated;
"""

#: The table of most examples, whose rows have owners.
TABLE = """
CREATE TABLE docs (
  id int PRIMARY KEY, org_id int NOT NULL, owner_id text NOT NULL, is_public boolean NOT NULL);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
CREATE TABLE members (org_id int, user_id text, PRIMARY KEY (org_id, user_id));
GRANT SELECT, INSERT, UPDATE, DELETE ON docs TO anonymous, authenticated;
"""
#: Runs with the rights of its owner: in place, nobody can say which rows it sees.
IS_MEMBER = """
CREATE FUNCTION is_member(org int) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ''
  AS 'SELECT EXISTS (SELECT FROM public.members AS m WHERE m.org_id = org AND m.user_id = auth.user_id())';
"""
OWN = "owner_id = (SELECT auth.user_id())"


def policy(using: str, *, to: str = "authenticated", command: str = "SELECT", name: str = "p") -> str:
    return f"CREATE POLICY {name} ON docs FOR {command} TO {to} USING ({using});"


@dataclass
class Examples:
    """Looks at schemas that are made by SQL."""

    connection: Connection

    @classmethod
    @contextmanager
    def start(cls) -> Iterator[Examples]:
        """Start a server of its own: roles are of all databases."""
        with cleared_server() as server:
            server.create_database("app")
            engine = create_engine(server.url("app"), poolclass=NullPool)
            with engine.connect() as connection:
                connection.execute(CreateAuthFunctions())
                run(connection, PRELUDE)
                connection.commit()
                yield cls(connection)

    def look(
        self,
        sql: str,
        *,
        select: Sequence[str] = (),
        ignore: Sequence[str] = (),
        speed: bool = False,
        anonymous_roles: Sequence[str] = ("anonymous",),
    ) -> Report:
        """Return the report on the schema that *sql* makes."""
        with undone(self.connection):
            run(self.connection, sql)
            database = self.database(anonymous_roles=anonymous_roles)
            return lint(database, target="app", select=select, ignore=ignore, speed=speed)

    def database(self, *, anonymous_roles: Sequence[str] = ("anonymous",)) -> Database:
        """Return the database as it is now."""
        return Database(
            connection=self.connection,
            open_scratch=lambda: nullcontext(self.connection),
            is_scratch=True,
            anonymous_roles=anonymous_roles,
        )


def run(connection: Connection, script: str) -> None:
    """Run the statements of *script*, in the schema public."""
    # Without arguments, psycopg sends several statements, and keeps a percent sign.
    connection.connection.cursor().execute(script)


def unknown(report: Report) -> list[str]:
    """Return the sentences about the parts without an answer."""
    return [one.text for one in report.findings if one.rule == "unknown"]


def shown(report: Report) -> list[str]:
    """Return the level, the rule and the object of each finding."""
    return [f"{one.level} {one.rule} {one.object}" for one in report.findings]
