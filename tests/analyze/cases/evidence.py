"""The verdicts of a case by brute force: real rows, real roles, real commands, on both sides.

It shares nothing with the comparison that it judges.  One transaction has both sides, and is rolled back.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import psycopg
from psycopg import sql

from tests.analyze.cases.case import COMMANDS, Caller, Case, Key, Rows, Sql, Verdict

_ATTEMPTS: Final = Path(__file__).with_name("attempts.sql").read_bytes()

World: TypeAlias = Mapping[str, Rows]
#: The rows that a statement shows, adds and removes, and how often.  An error permits nothing.
Effects: TypeAlias = Counter[str]


class Attempt(NamedTuple):
    object: str
    command: str
    statement: str


class Outcome(NamedTuple):
    effects: Effects
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """A world in which a statement has other effects after the change."""

    object: str
    role: str
    command: str
    shows: str
    caller: Caller
    rows: World
    statement: str
    before: str
    after: str

    def as_json(self) -> str:
        return json.dumps(asdict(self), default=str, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Evidence:
    verdicts: Mapping[Key, Verdict]
    witnesses: tuple[Witness, ...]
    worlds: int
    statements: int


class _Object(NamedTuple):
    name: str
    #: It has rows of its own: a table, but no partition.
    is_stored: bool
    #: The names are quoted.
    columns: tuple[str, ...]
    key: tuple[str, ...]
    has_column_privileges: bool
    #: Roles and commands, for which there is a privilege on the object or on a column.
    privileges: frozenset[tuple[str, str]]


_Objects: TypeAlias = Mapping[str, _Object]

_OBJECTS = """
SELECT c.oid::regclass::text, c.relkind IN ('r', 'p') AND NOT c.relispartition,
       array_agg(quote_ident(a.attname) ORDER BY a.attnum),
       coalesce(array_agg(quote_ident(a.attname) ORDER BY a.attnum) FILTER (WHERE a.attnum = ANY (i.indkey)), '{}'),
       bool_or(a.attacl IS NOT NULL),
       ARRAY(SELECT ARRAY[role, command] FROM unnest(%s::text[]) AS role, unnest(%s::text[]) AS command
              WHERE CASE command WHEN 'DELETE' THEN has_table_privilege(role, c.oid, command)
                    ELSE has_any_column_privilege(role, c.oid, command) END)
  FROM pg_class AS c
  JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_index AS i ON i.indrelid = c.oid AND i.indisprimary
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relnamespace <> ALL (ARRAY(
         SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_|^information_schema$|^auth$'))
 GROUP BY c.oid ORDER BY c.oid
"""


def gather(connection: psycopg.Connection[Any], case: Case) -> Evidence:
    """Run the *case* in a transaction, and roll it back.

    Args:
        connection: a superuser's, to a database with the functions of schema ``auth``.
    """
    with connection.transaction(force_rollback=True):
        connection.execute(_ATTEMPTS)
        prepare(connection, case)
        before = _objects(connection, case)
        with connection.transaction(force_rollback=True):
            change(connection, case)
            after = _objects(connection, case)
        attempts = {role: list(_attempts(case, role, before, after)) for role in case.roles}
        worlds = list(_worlds(case))
        results = []
        for is_after in (False, True):
            if is_after:
                change(connection, case)
            results.append([_try(connection, case, before, world, attempts) for world in worlds])
        return _compared(case, worlds, *results)


def prepare(connection: psycopg.Connection[Any], case: Case) -> None:
    """Create the roles and the objects before the change."""
    for role in case.roles:
        if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,)).fetchall():
            connection.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(role)))
        # The role of that name has no rights of its own.
        grantee = sql.SQL("PUBLIC") if role == "PUBLIC" else sql.Identifier(role)
        connection.execute(sql.SQL("GRANT USAGE ON SCHEMA auth TO {}").format(grantee))
    _script(connection, case.before)


def change(connection: psycopg.Connection[Any], case: Case) -> None:
    _script(connection, case.after)


def _script(connection: psycopg.Connection[Any], script: str) -> None:
    connection.execute(script.encode())


def _objects(connection: psycopg.Connection[Any], case: Case) -> _Objects:
    with connection.transaction(force_rollback=True):
        # Postgres writes the schema to names that the path doesn't find.
        connection.execute("SET LOCAL search_path = ''")
        found = connection.execute(_OBJECTS, (list(case.roles), list(COMMANDS))).fetchall()
    return {
        name: _Object(
            name, is_stored, tuple(columns), tuple(key), by_column, frozenset(map(tuple, privileges))
        )
        for name, is_stored, columns, key, by_column, privileges in found
    }


def _worlds(case: Case) -> Iterator[World]:
    """No row, one, all subsets of a few, or all but one, and all; small worlds first."""
    universe = [(table, row) for table, several in case.rows.items() for row in several]
    count = len(universe)
    subsets: Iterable[int]
    if count <= 4:
        subsets = range(2**count)
    else:
        everything = 2**count - 1
        ones = [1 << number for number in range(count)]
        subsets = dict.fromkeys([0, *ones, *(everything - one for one in ones), everything])
    for bits in sorted(subsets, key=lambda bits: (bits.bit_count(), bits)):
        world: dict[str, list[Mapping[str, Any]]] = {}
        for number, (table, row) in enumerate(universe):
            if bits >> number & 1:
                world.setdefault(table, []).append(row)
        yield world


def _literal(value: Any) -> str:
    return str(value) if isinstance(value, Sql) else sql.Literal(value).as_string()


def _insert(table: str, row: Mapping[str, Any], *, by_superuser: bool = False) -> str:
    if not row:
        return f"INSERT INTO {table} DEFAULT VALUES"
    values = ", ".join(map(_literal, row.values()))
    # What is GENERATED ALWAYS AS IDENTITY gets its value here, so that both sides have the same rows.
    overriding = "OVERRIDING SYSTEM VALUE " if by_superuser else ""
    return f"INSERT INTO {table} ({', '.join(row)}) {overriding}VALUES ({values})"


def _attempts(case: Case, role: str, before: _Objects, after: _Objects) -> Iterator[Attempt]:
    """The statements that the *role* tries, where it has the privilege on one side at least."""
    for name, old in before.items():
        new = after[name]
        for command in COMMANDS:
            if (role, command) in old.privileges | new.privileges:
                for statement in _statements(case, command, old, new):
                    yield Attempt(name, command, statement)


def _statements(case: Case, command: str, old: _Object, new: _Object) -> Iterator[str]:
    name, columns = old.name, tuple(dict.fromkeys([*old.columns, *new.columns]))
    by_column = old.has_column_privileges or new.has_column_privileges or old.columns != new.columns
    universe = [*_of(case.rows, name), *_of(case.inserts, name)]
    if not universe:  # a view, or a partition
        every = (row for several in case.rows.values() for row in several)
        universe = [{column: row[column] for column in columns} for row in every if {*columns} <= {*row}]
    key = old.key or columns[:1]
    conditions = dict.fromkeys(
        " AND ".join(f"{column} = {_literal(row[column])}" for column in key)
        for row in universe
        if all(row.get(column) is not None for column in key)
    )
    # With a condition, the policies of SELECT hold, too.
    wheres = ["", *(f" WHERE {condition}" for condition in conditions)]
    endings = ["", " RETURNING *"] if by_column else [""]
    updates = [
        ", ".join(f"{column} = {_literal(value)}" for column, value in row.items())
        for row in _of(case.updates, name) or _updates(universe, key)
    ]
    match command:
        case "SELECT":
            for some in [columns, *((column,) for column in columns if by_column)]:
                yield f"SELECT {', '.join(some)} FROM {name}"
        case "INSERT":
            for row in universe:
                yield _insert(name, row)
                yield f"{_insert(name, row)} RETURNING *"
                for values in updates if old.key else ():
                    action = f"DO UPDATE SET {values}"
                    yield f"{_insert(name, row)} ON CONFLICT ({', '.join(old.key)}) {action}"
        case "UPDATE":
            for values in updates:
                for where, ending in product(wheres, endings):
                    yield f"UPDATE {name} SET {values}{where}{ending}"
        case _:
            for where, ending in product(wheres, endings):
                yield f"DELETE FROM {name}{where}{ending}"


def _updates(universe: Rows, key: tuple[str, ...]) -> Iterator[Mapping[str, Any]]:
    """Each value of each column; NULL for a column that has one value."""
    for column in dict.fromkeys(column for row in universe for column in row if column not in key):
        values = list({json.dumps(row[column]): row[column] for row in universe if column in row}.values())
        for value in values if len(values) > 1 else [None]:
            yield {column: value}


def _of(rows: Mapping[str, Rows], name: str) -> Rows:
    return next((several for table, several in rows.items() if _qualified(table) == name), ())


def _qualified(name: str) -> str:
    return name if "." in name else f"public.{name}"


def _try(
    connection: psycopg.Connection[Any],
    case: Case,
    objects: _Objects,
    world: World,
    attempts: Mapping[str, list[Attempt]],
) -> dict[tuple[str, int, Attempt], Outcome] | None:
    """The outcome of each attempt of each role and caller; None if a constraint rejects the *world*."""
    with connection.transaction(force_rollback=True):
        try:
            for table, several in world.items():
                for row in several:
                    connection.execute(_insert(table, row, by_superuser=True).encode())
            connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        except psycopg.errors.IntegrityError:
            return None
        contents = _contents(objects)
        stored = Counter(connection.execute(contents.encode()).fetchall()[0][0])
        return {
            (role, number, attempt): outcome
            for role, several in attempts.items()
            for number, caller in enumerate(case.callers)
            for attempt, outcome in _outcomes(connection, contents, stored, role, caller, several)
        }


def _contents(objects: _Objects) -> str:
    """A query for all rows of all tables, as an array."""
    rows = " UNION ALL ".join(
        f"SELECT tableoid::pg_catalog.regclass::text || t::text FROM {one.name} AS t"
        for one in objects.values()
        if one.is_stored
    )
    return f"SELECT coalesce(pg_catalog.array_agg(r), '{{}}') FROM ({rows or 'SELECT NULL'}) AS stored (r)"


def _outcomes(
    connection: psycopg.Connection[Any],
    contents: str,
    stored: Effects,
    role: str,
    caller: Caller,
    attempts: list[Attempt],
) -> Iterator[tuple[Attempt, Outcome]]:
    # A transaction without claims has no such setting, or an empty one.
    claims = "" if caller.claims is None else json.dumps(caller.claims)
    settings = {"request.jwt.claims": claims, **caller.settings, "role": role}
    found = connection.execute(
        "SELECT effects, told FROM pg_temp.attempts(%s, %s, %s) ORDER BY number",
        ([attempt.statement for attempt in attempts], json.dumps(settings), contents),
    )
    for attempt, (rows, told) in zip(attempts, found, strict=True):
        if rows is None:
            effects = Counter[str]()
        elif attempt.command == "SELECT":
            effects = Counter(rows)
        else:
            now = Counter(rows)
            effects = Counter({f"+ {row}": count for row, count in (now - stored).items()})
            effects.update({f"- {row}": count for row, count in (stored - now).items()})
        yield attempt, Outcome(effects, told)


def _compared(
    case: Case,
    worlds: list[World],
    before: list[dict[tuple[str, int, Attempt], Outcome] | None],
    after: list[dict[tuple[str, int, Attempt], Outcome] | None],
) -> Evidence:
    witnesses: dict[tuple[Key, str], Witness] = {}
    tried = statements = 0
    for world, one, other in zip(worlds, before, after, strict=True):
        if one is None or other is None:
            continue
        tried += 1
        statements += len(one)
        for (role, number, attempt), old in one.items():
            new = other[role, number, attempt]
            for shows, more in (("opens", new.effects - old.effects), ("closes", old.effects - new.effects)):
                key = (attempt.object, role, attempt.command)
                if not more or (key, shows) in witnesses:
                    continue
                witnesses[key, shows] = Witness(
                    object=attempt.object,
                    role=role,
                    command=attempt.command,
                    shows=shows,
                    caller=case.callers[number],
                    rows=world,
                    statement=attempt.statement,
                    before=old.text,
                    after=new.text,
                )
    found: dict[Key, set[str]] = {}
    for key, shows in witnesses:
        found.setdefault(key, set()).add(shows)
    verdicts: dict[Key, Verdict] = {
        key: "both" if len(shows) == 2 else "opens" if "opens" in shows else "closes"
        for key, shows in sorted(found.items(), key=lambda item: (item[0][:2], COMMANDS.index(item[0][2])))
    }
    return Evidence(verdicts, tuple(witnesses.values()), tried, statements)
