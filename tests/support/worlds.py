"""Two servers, on which a change of a database is compared with the database before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from sqla_rls.analyze.sides.side import Built
from sqla_rls.analyze.verdict import Budget, Comparison
from sqla_rls.analyze.worlds.compare import compare_databases
from sqla_rls.server.postgres import Server

ROLES = """
CREATE ROLE reader; CREATE ROLE other; CREATE ROLE owner; CREATE ROLE member IN ROLE reader;
CREATE ROLE loner NOINHERIT IN ROLE reader;
"""
SETUP = """
CREATE SCHEMA auth; GRANT USAGE ON SCHEMA auth TO PUBLIC;
CREATE FUNCTION auth.user_id() RETURNS text LANGUAGE sql STABLE
  RETURN nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub';
CREATE TABLE members (org_id int, user_id text, role text NOT NULL DEFAULT 'member',
                      PRIMARY KEY (org_id, user_id));
CREATE TABLE docs (id serial PRIMARY KEY, org_id int NOT NULL, user_id text, body text, secret text);
CREATE FUNCTION my_orgs() RETURNS SETOF int LANGUAGE sql STABLE SECURITY DEFINER
  SET search_path = public, pg_temp
  AS 'SELECT org_id FROM members WHERE user_id = (SELECT auth.user_id())';
ALTER TABLE docs OWNER TO owner;
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
ALTER TABLE docs FORCE ROW LEVEL SECURITY;
CREATE POLICY mine ON docs TO reader USING (org_id IN (SELECT my_orgs()));
CREATE POLICY not_secret ON docs AS RESTRICTIVE USING (secret IS NULL);
CREATE VIEW seen WITH (security_invoker) AS SELECT id, org_id FROM docs;
GRANT SELECT, INSERT, UPDATE, DELETE ON docs TO reader;
GRANT USAGE ON SEQUENCE docs_id_seq TO reader;
GRANT SELECT ON seen TO reader;
GRANT SELECT ON docs TO other;
CREATE FUNCTION is_me(text) RETURNS boolean LANGUAGE plpgsql STABLE
  AS 'BEGIN RETURN $1 = auth.user_id(); END';
CREATE TABLE drafts (id int PRIMARY KEY, user_id text);
ALTER TABLE drafts ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON drafts TO reader USING (is_me(user_id));
GRANT SELECT ON drafts TO reader;
"""


@dataclass(frozen=True)
class Sides:
    before: Server
    after: Server

    @contextmanager
    def compared(
        self, change: str, *, setup: str = "", setup_before: str = "", **options: Any
    ) -> Iterator[tuple[Comparison, Connection, Connection]]:
        with (
            self._database(self.before, SETUP + setup + setup_before) as before,
            self._database(self.after, SETUP + setup + change) as after,
        ):
            options = {"budget": Budget(worlds=60), **options}
            yield compare_databases(before, after, **options), before, after

    @contextmanager
    def built(self, change: str, *, setup: str = "") -> Iterator[tuple[Built, Built]]:
        """Both databases as sides."""
        with (
            self._database(self.before, SETUP + setup) as before,
            self._database(self.after, SETUP + setup + change) as after,
        ):
            first, second = (
                Built(connection=one, url=one.engine.url, left_out=(), incomplete={})
                for one in (before, after)
            )
            yield first, second

    @contextmanager
    def _database(self, server: Server, script: str) -> Iterator[Connection]:
        name = server.create_database()
        engine = create_engine(server.url(name), poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            raw: Any = connection.connection.driver_connection
            raw.execute(script)
            yield connection
        server.drop_database(name)


def verdicts(found: Comparison) -> Mapping[tuple[str, str, str], str]:
    return {(one.object, one.role, one.command): one.verdict for one in found.changes}


ALL = ("DELETE", "INSERT", "SELECT", "UPDATE")
