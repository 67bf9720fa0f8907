"""Policies of a grammar: made, changed, dropped and restored, and judged by the catalog alone.

``SQLA_RLS_EXAMPLES=1000`` tries as many; by default it is a few.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from alembic.autogenerate import produce_migrations
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.operations.ops import OpContainer, UpgradeOps
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    and_,
    case,
    cast,
    create_engine,
    exists,
    false,
    func,
    literal,
    not_,
    or_,
    text,
    true,
)
from sqlalchemy.pool import NullPool

from sqla_rls import Policy, auth, force_row_level_security
from sqla_rls.alembic.autogenerate.render import Call, Notes, Remarks
from sqla_rls.ddl.roles import CreateRole
from sqla_rls.declare.collect import declared
from sqla_rls.snapshot import Role
from sqla_rls.testing.postgres import Server
from tests.support.project import settled_state

pytestmark = pytest.mark.exhaustive

EXAMPLES = int(os.environ.get("SQLA_RLS_EXAMPLES", "10"))
ROLES = ["PUBLIC", "CURRENT_USER", "random_reader", 'random "writer"']


class Node(NamedTuple):
    """Something of an expression, which is written both as SQLAlchemy has it and as text."""

    kind: str
    parts: tuple[Any, ...]


def node(kind: str, *parts: Any) -> st.SearchStrategy[Node]:
    return st.tuples(*parts).map(lambda made: Node(kind, made))


def one_of(*values: str) -> st.SearchStrategy[str]:
    return st.sampled_from(values)


strings = st.text(
    st.one_of(st.sampled_from("aA'\"\\%_:$ -/*{}();\nä"), st.characters(blacklist_categories=["Cs", "Cc"])),
    max_size=6,
)
integers = st.integers(-(2**31) + 1, 2**31 - 1)
texts: st.SearchStrategy[Node] = st.recursive(
    node("column", one_of("name", "code")) | node("string", strings) | node("user_id"),
    lambda inner: node("call", one_of("lower", "upper", "btrim"), inner) | node("coalesce", inner, inner),
    max_leaves=3,
)
numbers: st.SearchStrategy[Node] = st.recursive(
    node("column", one_of("id", "n")) | node("integer", integers) | node("length", texts),
    lambda inner: node("plus", one_of("+", "-", "*"), inner, inner) | node("cast", inner),
    max_leaves=3,
)
conditions: st.SearchStrategy[Node] = st.recursive(
    st.one_of(
        node("compare", one_of("=", "<>", "<", ">="), texts, texts),
        node("compare", one_of("=", "<>", "<", ">="), numbers, numbers),
        node("compare", one_of("IS DISTINCT FROM", "IS NOT DISTINCT FROM"), texts, texts),
        node("compare", one_of("LIKE", "NOT LIKE", "ILIKE"), texts, node("string", strings)),
        node("in", one_of("IN", "NOT IN"), texts, st.lists(strings, min_size=1, max_size=3).map(tuple)),
        node("in", one_of("IN", "NOT IN"), numbers, st.lists(integers, min_size=1, max_size=3).map(tuple)),
        node("null", one_of("IS NULL", "IS NOT NULL"), texts),
        node("truth", st.booleans()),
    ),
    lambda inner: st.one_of(
        node("and", inner, inner),
        node("or", inner, inner),
        node("not", inner),
        node("case", inner, inner, inner),
        node("exists", one_of("EXISTS", "NOT EXISTS"), inner),
    ),
    max_leaves=5,
)


def as_text(it: Node) -> str:
    """Every operand in parentheses, which Postgres takes or leaves."""
    kind, parts = it
    written = [f"({as_text(part)})" if isinstance(part, Node) else part for part in parts]
    match kind:
        case "column":
            return f"things.{parts[0]}"
        case "string":
            return _quoted(parts[0])
        case "integer" | "truth":
            return str(parts[0]).lower()
        case "user_id":
            return "auth.user_id()"
        case "call":
            return f"{written[0]}{written[1]}"
        case "coalesce":
            return f"coalesce({written[0]}, {written[1]})"
        case "length":
            return f"length{written[0]}"
        case "plus" | "compare":
            return f"{written[1]} {written[0]} {written[2]}"
        case "cast":
            return f"CAST({written[0]} AS bigint)"
        case "in":
            values = [_quoted(value) if isinstance(value, str) else str(value) for value in parts[2]]
            return f"{written[1]} {written[0]} ({', '.join(values)})"
        case "null":
            return f"{written[1]} {written[0]}"
        case "and" | "or":
            return f"{written[0]} {kind} {written[1]}"
        case "not":
            return f"NOT {written[0]}"
        case "case":
            return f"CASE WHEN {written[0]} THEN {written[1]} ELSE {written[2]} END"
        case "exists":
            return f"{written[0]} (SELECT FROM others WHERE others.thing_id = things.id AND {written[1]})"
    raise AssertionError(kind)


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


_OPERATORS = {"=": "__eq__", "<>": "__ne__", "<": "__lt__", ">=": "__ge__", "+": "__add__", "-": "__sub__"}
_OPERATORS |= {"*": "__mul__", "LIKE": "like", "NOT LIKE": "not_like", "ILIKE": "ilike"}
_OPERATORS |= {"IS DISTINCT FROM": "is_distinct_from", "IS NOT DISTINCT FROM": "is_not_distinct_from"}
_OPERATORS |= {"IN": "in_", "NOT IN": "not_in"}


def as_sqlalchemy(it: Node, tables: MetaData) -> Any:
    kind, parts = it
    made = [as_sqlalchemy(part, tables) if isinstance(part, Node) else part for part in parts]
    match kind:
        case "column":
            return tables.tables["things"].c[parts[0]]
        case "string":
            return literal(parts[0], Text())
        case "integer":
            return literal(parts[0], Integer())
        case "truth":
            return true() if parts[0] else false()
        case "user_id":
            return auth.user_id()
        case "call":
            return getattr(func, parts[0])(made[1], type_=Text())
        case "coalesce":
            return func.coalesce(*made, type_=Text())
        case "length":
            return func.length(made[0], type_=Integer())
        case "plus" | "compare" | "in":
            return getattr(made[1], _OPERATORS[parts[0]])(made[2])
        case "cast":
            return cast(made[0], BigInteger())
        case "null":
            return made[1].is_(None) if parts[0] == "IS NULL" else made[1].is_not(None)
        case "and" | "or":
            return (and_ if kind == "and" else or_)(*made)
        case "not":
            return not_(made[0])
        case "case":
            return case((made[0], made[1]), else_=made[2])
        case "exists":
            others = tables.tables["others"].alias()
            found = exists().where(others.c.thing_id == tables.tables["things"].c.id, made[1])
            return found if parts[0] == "EXISTS" else ~found
    raise AssertionError(kind)


class Drawn(NamedTuple):
    """A policy: its command with USING and WITH CHECK, of which it takes what it may have."""

    command: str
    roles: frozenset[str]
    using: Node
    with_check: Node | None
    permissive: bool
    textual: bool

    def declare(self, name: str, tables: MetaData) -> Policy:
        def written(it: Node) -> Any:
            return as_text(it) if self.textual else as_sqlalchemy(it, tables)

        using = None if self.command == "INSERT" else written(self.using)
        with_check = None
        if self.command == "INSERT":
            with_check = written(self.using)
        elif self.with_check and self.command in ("ALL", "UPDATE"):
            with_check = written(self.with_check)
        return Policy(
            name, self.command, self.roles, using=using, with_check=with_check, permissive=self.permissive
        )


drawn = st.builds(
    Drawn,
    one_of("ALL", "SELECT", "INSERT", "UPDATE", "DELETE"),
    st.sets(st.sampled_from(ROLES), min_size=1).map(frozenset),
    conditions,
    st.none() | conditions,
    st.booleans(),
    st.booleans(),
)
#: Some names are in both, so that policies are altered, replaced, renamed, made and dropped.
policies = st.dictionaries(one_of("a", "b", 'it\'s "c" %', "d"), drawn, min_size=1, max_size=4)


def models(drawn: dict[str, Drawn]) -> MetaData:
    metadata = MetaData()
    Table("others", metadata, Column("thing_id", Integer))
    things = Table(
        "things",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("n", BigInteger),
        Column("name", Text),
        Column("code", String(20)),
        force_row_level_security(),
    )
    for name, one in drawn.items():
        one.declare(name, metadata)._set_parent_with_dispatch(things)
    return metadata


def autogenerate(connection: Connection, metadata: MetaData) -> UpgradeOps:
    """What of row security differs; the tables are as they are."""
    plugins = ["alembic.autogenerate.schemas", "alembic.autogenerate.sqla_rls"]
    context = MigrationContext.configure(connection, opts={"autogenerate_plugins": plugins})
    upgrade = produce_migrations(context, metadata).upgrade_ops
    assert upgrade is not None
    return upgrade


def run(connection: Connection, operations: OpContainer) -> None:
    runner = Operations(MigrationContext.configure(connection))
    for operation in operations.ops:
        assert isinstance(operation, Call | Notes | Remarks)
        if isinstance(operation, Call) and "confirmed" in operation.kwargs:
            operation.kwargs["confirmed"] = True
        runner.invoke(operation)


def catalog(connection: Connection) -> list[str]:
    return list(connection.scalars(text("SELECT p::text FROM pg_policies AS p ORDER BY 1")))


_CREATE = text("""
SELECT format('CREATE POLICY %I ON things AS %s FOR %s TO %s',
              cast(:name AS text), cast(:kind AS text), cast(:command AS text),
              string_agg(CASE WHEN role IN ('public', 'CURRENT_USER') THEN role
                              ELSE quote_ident(role) END, ', '))
  FROM unnest(cast(:roles AS text[])) AS role
""")


def by_hand(connection: Connection, metadata: MetaData) -> list[str]:
    """The catalog's policies if they were made by these statements."""
    savepoint = connection.begin_nested()
    for name in list(connection.scalars(text("SELECT quote_ident(polname) FROM pg_policy"))):
        connection.exec_driver_sql(f"DROP POLICY {name.replace('%', '%%')} ON things", ())
    for policy in declared([metadata]).policies.values():
        words = {
            "name": policy.name,
            "kind": "PERMISSIVE" if policy.permissive else "RESTRICTIVE",
            "command": policy.command,
            "roles": sorted(policy.roles),
        }
        statement = connection.execute(_CREATE, words).scalar_one()
        statement += f" USING ({policy.using})" if policy.using is not None else ""
        statement += f" WITH CHECK ({policy.with_check})" if policy.with_check is not None else ""
        connection.exec_driver_sql(statement.replace("%", "%%"), ())
    made = catalog(connection)
    savepoint.rollback()
    return made


@pytest.fixture(scope="module")
def engine(server: Server) -> Iterator[Engine]:
    """Of a database with the tables."""
    name = server.create_database()
    engine = create_engine(server.url(name), poolclass=NullPool)
    with engine.begin() as connection:
        for role in ROLES[2:]:
            connection.execute(CreateRole(Role(role)))
        connection.execute(text("CREATE SCHEMA auth"))
        connection.execute(text("CREATE FUNCTION auth.user_id() RETURNS text LANGUAGE sql STABLE RETURN 'x'"))
        models({}).create_all(connection)
    yield engine
    server.drop_database(name)


#: It asks who is calling, and implies no privilege.
TO_PUBLIC = Drawn(
    command="ALL",
    roles=frozenset({"PUBLIC"}),
    using=Node("compare", ("=", Node("column", ("name",)), Node("user_id", ()))),
    with_check=None,
    permissive=False,
    textual=False,
)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    print_blob=True,
)
@given(policies, policies)
@example({"a": TO_PUBLIC}, {"a": TO_PUBLIC._replace(permissive=True)})
def test_whatever_the_policies(engine: Engine, before: dict[str, Drawn], after: dict[str, Drawn]) -> None:
    with engine.connect() as connection:
        states = [settled_state(connection)]
        undo = []
        for one in (models(before), models(after), models({})):
            previous = catalog(connection)
            upgrade = autogenerate(connection, one)
            undo.append(upgrade.reverse())
            run(connection, upgrade)

            made = catalog(connection)
            assert made == by_hand(connection, one)
            assert autogenerate(connection, one).is_empty()
            if upgrade.is_empty():
                assert made == previous
            elif made == previous:
                assert not any("policy" in repr(change) for change in upgrade.as_diffs())
            states.append(settled_state(connection))
        for downgrade, expected in zip(reversed(undo), reversed(states[:-1]), strict=True):
            run(connection, downgrade)
            assert settled_state(connection) == expected
