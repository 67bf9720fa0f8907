"""``sqla-rls lint`` and ``matrix`` on schemas of many tables: ``python -m benchmarks.analyze --many``.

The tables of one schema have five shapes.  In another, no two tables have the same policies, so that no
answer about one table holds for another.  The matrix has six roles with rights of their own.  Seconds of CPU
are those of Python and of Postgres together.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Final

from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from benchmarks.cpu import Cost, Meter
from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.run import Report, lint
from sqla_rls.analyze.matrix import matrix_of
from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from sqla_rls.server.postgres import Server

SIX_ROLES: Final = ("anonymous", "auditor", "authenticated", "manager", "member", "support")
_FIRST: Final = """
GRANT USAGE ON SCHEMA auth TO authenticated, anonymous;
CREATE TABLE members (org_id int, user_id text, role text, PRIMARY KEY (org_id, user_id));
CREATE INDEX members_user_id ON members (user_id);
ALTER TABLE members ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON members TO authenticated;
CREATE POLICY mine ON members FOR SELECT TO authenticated USING (user_id = (SELECT auth.user_id()));
"""
_ROLE: Final = """
DO $$ BEGIN CREATE ROLE {0}; EXCEPTION WHEN duplicate_object THEN NULL; END $$
"""
_ME: Final = "(SELECT auth.user_id())"
_MEMBER: Final = "EXISTS (SELECT FROM members AS m WHERE m.org_id = {name}.org_id AND m.user_id = {me})"
_WITH_ROLE: Final = _MEMBER[:-1] + " AND m.role = '{state}')"
#: Conditions for reading and for writing, by the number of the table.
_CONDITIONS: Final[tuple[tuple[str, str], ...]] = (
    ("{owner} = {me}", "{owner} = {me}"),
    ("{owner} = {me} OR state = '{state}'", "{owner} = {me} AND state <> '{state}'"),
    (_MEMBER, "{owner} = {me}"),
    (f"{{owner}} = {{me}} OR {_WITH_ROLE}", _WITH_ROLE),
    ("org_id = ((SELECT auth.jwt()) ->> 'org_{number}')::int", "{owner} = {me}"),
)
_TABLE: Final = """
CREATE TABLE {name} (
  id bigint PRIMARY KEY, org_id int NOT NULL, {owner} text NOT NULL, state text, body text
);
CREATE INDEX ON {name} ({owner});
CREATE INDEX ON {name} (org_id);
ALTER TABLE {name} ENABLE ROW LEVEL SECURITY;
"""
_POLICIES: Final = """
GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO authenticated;
CREATE POLICY read ON {name} FOR SELECT TO authenticated USING ({read});
CREATE POLICY add ON {name} FOR INSERT TO authenticated WITH CHECK ({write});
CREATE POLICY edit ON {name} FOR UPDATE TO authenticated USING ({write}) WITH CHECK ({write});
CREATE POLICY away ON {name} FOR DELETE TO authenticated USING ({write});
"""
_ROLES: Final = """
CREATE ROLE member; CREATE ROLE manager; CREATE ROLE auditor; CREATE ROLE support;
GRANT USAGE ON SCHEMA auth TO member, manager, auditor, support;
GRANT SELECT ON members TO member, manager;
CREATE POLICY theirs ON members FOR SELECT TO member, manager USING (user_id = (SELECT auth.user_id()));
"""
_SIX_ROLES: Final = f"""
GRANT SELECT, INSERT, UPDATE, DELETE ON {{name}} TO authenticated, manager;
GRANT SELECT ON {{name}} TO anonymous, member, auditor, support;
GRANT UPDATE (state) ON {{name}} TO support;
CREATE POLICY own ON {{name}} TO authenticated USING ({{owner}} = {{me}});
CREATE POLICY team ON {{name}} FOR SELECT TO member USING ({_MEMBER});
CREATE POLICY manage ON {{name}} TO manager USING ({_WITH_ROLE});
CREATE POLICY audit ON {{name}} FOR SELECT TO auditor USING (true);
CREATE POLICY published ON {{name}} FOR SELECT TO anonymous USING (state = 'published');
CREATE POLICY see ON {{name}} FOR SELECT TO support USING (state = 'waiting');
CREATE POLICY help ON {{name}} FOR UPDATE TO support USING (state = 'waiting') WITH CHECK (state IS NOT NULL);
"""


def repeated(number: int) -> Iterator[str]:
    """Yield the statements for tables of five shapes."""
    for place in range(number):
        yield _table(place, owner="owner", state="public")


def different(number: int) -> Iterator[str]:
    """Yield the statements for tables of which no two have the same policies."""
    for place in range(number):
        yield _table(place, owner=f"owner_{place}", state=f"state {place}")


def of_six_roles(number: int) -> Iterator[str]:
    """Yield the statements for tables with policies for six roles."""
    yield _ROLES
    for place in range(number):
        yield (_TABLE + _SIX_ROLES).format(name=f"table_{place}", owner="owner", me=_ME, state="manager")


def _table(place: int, *, owner: str, state: str) -> str:
    names = {"name": f"table_{place}", "owner": owner, "me": _ME, "state": state}
    number = 0 if owner == "owner" else place
    read, write = (one.format(**names, number=number) for one in _CONDITIONS[place % len(_CONDITIONS)])
    return (_TABLE + _POLICIES).format(**names, read=read, write=write)


@contextmanager
def schema(server: Server, statements: Iterator[str]) -> Iterator[Connection]:
    """Give a superuser's connection to a database with the tables."""
    name = server.create_database()
    with create_engine(server.url(name), poolclass=NullPool).connect() as connection:
        for role in ("anonymous", "authenticated"):
            connection.exec_driver_sql(_ROLE.format(role))
        connection.execute(CreateAuthFunctions())
        connection.exec_driver_sql(_FIRST)
        for statement in statements:
            connection.exec_driver_sql(statement)
        connection.commit()
        yield connection
    server.drop_database(name)


def compare_many_shapes(tables: int, of_matrix: int) -> None:
    """Print the costs of lint on *tables* tables, and those of the matrix on *of_matrix* tables."""
    with Server.start() as server:
        meter = Meter.of(server)
        for name, statements in (("of five shapes", repeated), ("of different shapes", different)):
            with schema(server, statements(tables)) as connection:
                report, cost = looked(connection, meter)
            _print(f"sqla-rls lint, {tables} tables {name}", cost, f"{len(report.findings)} findings")
        with schema(server, of_six_roles(of_matrix)) as connection, meter.measured() as cost:
            found = matrix_of(connection, name="many", roles=SIX_ROLES)
        _print(f"sqla-rls matrix, {of_matrix} tables, 6 roles", cost, f"{len(found.entries)} entries")


def _print(name: str, cost: Cost, result: str) -> None:
    print(
        f"{name:50}{cost.cpu:6.1f} s of CPU (Python {cost.client:.1f}, Postgres {cost.server:.1f}); "
        f"{cost.wall:.1f} s; {result}",
        flush=True,
    )


def looked(connection: Connection, meter: Meter) -> tuple[Report, Cost]:
    """Run all rules but those of speed."""
    database = Database(connection=connection, open_scratch=lambda: nullcontext(connection), is_scratch=True)
    with meter.measured() as cost:
        report = lint(database, target="many")
    connection.rollback()
    return report, cost
