"""Two databases that are the same, of which a change is compared in place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from sqla_rls.analyze.in_place import Side, compare_in_place
from sqla_rls.analyze.verdict import Budget, Comparison
from sqla_rls.analyze.worlds.schema import Schema, read_profiles
from sqla_rls.server.postgres import Server

ROLES = """
CREATE ROLE reader; CREATE ROLE other; CREATE ROLE owner; CREATE ROLE boss IN ROLE reader;
CREATE ROLE loner NOINHERIT IN ROLE reader; CREATE ROLE free BYPASSRLS;
"""


SETUP = """
CREATE SCHEMA auth; GRANT USAGE ON SCHEMA auth TO PUBLIC;
CREATE FUNCTION auth.user_id() RETURNS text LANGUAGE sql STABLE
  RETURN nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub';
CREATE FUNCTION is_grown(age int) RETURNS boolean LANGUAGE plpgsql STABLE AS 'BEGIN RETURN age >= 18; END';
CREATE FUNCTION is_boss() RETURNS boolean LANGUAGE sql STABLE AS $$ SELECT current_user = 'boss' $$;
CREATE FUNCTION may_all() RETURNS boolean LANGUAGE sql STABLE AS 'SELECT public.is_boss()';
CREATE FUNCTION subject() RETURNS text LANGUAGE sql IMMUTABLE AS
  $$ SELECT nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub' $$;
CREATE FUNCTION kept() RETURNS text LANGUAGE plpgsql STABLE AS 'BEGIN RETURN public.subject(); END';
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TABLE orgs (id int PRIMARY KEY, is_open boolean NOT NULL);
CREATE TABLE members (org_id int REFERENCES orgs, user_id text, role text NOT NULL DEFAULT 'member',
                      PRIMARY KEY (org_id, user_id));
CREATE FUNCTION is_member(org int) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER
  AS 'SELECT EXISTS (SELECT FROM public.members WHERE org_id = org AND user_id = auth.user_id())';
CREATE TABLE docs (id int PRIMARY KEY, org_id int NOT NULL REFERENCES orgs ON DELETE CASCADE, body text,
                   age int CHECK (age > 0), grown boolean GENERATED ALWAYS AS (age > 17) STORED);
CREATE TABLE own (id int PRIMARY KEY, user_id text NOT NULL, shared boolean NOT NULL, "Qu ote: %" text);
CREATE TABLE guarded (id int PRIMARY KEY, user_id text);
CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON guarded FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE VIEW seen WITH (security_invoker) AS SELECT id FROM own;
ALTER TABLE own OWNER TO owner;
ALTER TABLE orgs ENABLE ROW LEVEL SECURITY; ALTER TABLE members ENABLE ROW LEVEL SECURITY;
ALTER TABLE docs ENABLE ROW LEVEL SECURITY; ALTER TABLE own ENABLE ROW LEVEL SECURITY;
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY o ON orgs FOR SELECT USING (is_open);
CREATE POLICY m ON members USING (user_id = (SELECT auth.user_id()));
CREATE POLICY d ON docs TO reader USING (org_id = ANY (ARRAY(
  SELECT org_id FROM members WHERE user_id = (SELECT auth.user_id()))));
CREATE POLICY p ON own USING ((SELECT auth.user_id()) = user_id);
CREATE POLICY g ON guarded USING ((SELECT auth.user_id()) = user_id);
GRANT SELECT ON orgs, members, own, seen TO reader, other;
GRANT SELECT, INSERT, UPDATE, DELETE ON docs, own, guarded TO reader, free, loner;
GRANT SELECT, UPDATE (user_id), DELETE ON own TO other;
"""


def on(table: str, roles: Sequence[str], commands: Sequence[str], verdict: str) -> dict[Any, str]:
    return {(f"public.{table}", role, command): verdict for role in roles for command in commands}


def run(connection: Connection, script: str) -> None:
    connection.exec_driver_sql(script, execution_options={"no_parameters": True})


@dataclass(frozen=True)
class Databases:
    """Two databases that are the same."""

    before: Connection
    after: Connection

    @contextmanager
    def changed(self, change: str) -> Iterator[tuple[Connection, Connection]]:
        """Change the second one, for the block."""
        try:
            run(self.after, change)
            yield self.before, self.after
        finally:
            self.after.rollback()
            self.before.rollback()


@contextmanager
def database(server: Server) -> Iterator[Connection]:
    name = server.create_database()
    engine = create_engine(server.url(name), poolclass=NullPool)
    with engine.connect() as connection:
        run(connection, SETUP)
        connection.commit()
        yield connection
    server.drop_database(name)


def side(connection: Connection) -> Side:
    schema = Schema.read(connection)
    roles = [role.name for role in schema.roles.values() if not role.is_superuser]
    return Side(schema=schema, profiles=read_profiles(connection, schema.relations.values(), roles))


def decided(before: Connection, after: Connection, *, worlds: int = 200) -> Comparison:
    sides = side(before), side(after)
    names = [name for name, one in sides[0].schema.relations.items() if one.has_rows]
    return compare_in_place(before, *sides, names=names, budget=Budget(worlds=worlds, rows=2))


def verdicts(found: Comparison) -> dict[Any, str]:
    return {(one.object, one.role, one.command): one.verdict for one in found.changes}
