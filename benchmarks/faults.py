"""Faults of schemas, by sqla-rls lint, pgrls and splinter: part of ``python -m benchmarks.analyze``.

Each fault of tests/analyze/lint/faults shows on a real Postgres, and is gone once it is mended.  A program
finds it if one of its findings, at any level and about any object, goes with it.  So no table says which rule
of a program is about which fault.  Two findings are the same if rule, level, object, policy, column and
sentence are.  On clean schemas, findings count by level.

pgrls has the functions, columns and roles that ``sqla-rls lint --export pgrls`` writes, without allowlists.
One row has all of its rules, and one those that the exported file leaves on.  splinter sees the database as
Supabase has it: the anonymous role is ``anon``, and ``auth.uid()`` is the caller.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import psycopg
from psycopg import sql
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from benchmarks.cpu import Cost, Meter
from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import LEVELS, Finding, Level
from sqla_rls.analyze.lint.others import others
from sqla_rls.analyze.lint.pgrls_config import DISABLED, pgrls_config
from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from sqla_rls.server.postgres import Server
from tests.analyze.lint.faults.case import Clean, Fault
from tests.analyze.lint.faults.measure import database_of, look, names
from tests.analyze.lint.faults.observe import mend, prepare

#: The rules of speed generate rows, so that they run by themselves; other programs run all rules.
Part: TypeAlias = Literal["speed", "others", "all"]
Look: TypeAlias = Callable[[Connection, Part], list[Finding]]
#: The findings of each program.
Looks: TypeAlias = dict[str, list[Finding]]


@dataclass(frozen=True, slots=True)
class Program:
    """A program that looks, and the rows of the table, each with the rules that it leaves out."""

    look: Look
    rows: Mapping[str, Collection[str]]


@dataclass
class Score:
    found: Counter[str] = field(default_factory=Counter)
    tried: Counter[str] = field(default_factory=Counter)
    #: The rules that find each fault.
    by: dict[str, list[str]] = field(default_factory=dict)
    #: The rules above info about the object of each fault, whether or not the fault is mended.
    unmoved: dict[str, list[str]] = field(default_factory=dict)
    #: The findings on clean schemas, by name of the schema.
    clean: dict[str, list[Finding]] = field(default_factory=dict)
    costs: list[Cost] = field(default_factory=list)

    def alarms(self, *levels: Level) -> dict[str, int]:
        """Return the numbers of findings of these levels on clean schemas."""
        return {name: sum(one.level in levels for one in found) for name, found in self.clean.items()}


#: splinter asks for these names.  A schema that uses one of them keeps what it has.
_AS_SUPABASE: Final = """
DO $$ BEGIN
  ALTER ROLE anonymous RENAME TO anon;
EXCEPTION WHEN duplicate_object THEN
  NULL;
END $$;
DO $$ BEGIN
  DROP FUNCTION IF EXISTS auth.uid();
  ALTER FUNCTION auth.user_id() RENAME TO uid;
EXCEPTION WHEN dependent_objects_still_exist OR undefined_function OR invalid_schema_name THEN
  NULL;
END $$
"""


def ours(connection: Connection, part: Part) -> list[Finding]:
    """Run the rules of *part*."""
    return look(connection, select=["speed"] if part == "speed" else [], speed=part == "all")


def pgrls(connection: Connection, _part: Part) -> list[Finding]:
    """Run all rules of pgrls."""
    database = database_of(connection)
    with tempfile.TemporaryDirectory() as folder, _inside(folder):
        Path("pgrls.toml").write_text(pgrls_config(database, disabled={}), encoding="utf-8")
        return _others(database, "pgrls")


def splinter(path: Path) -> Look:
    """Return the run of the file *path*, with the names of Supabase."""

    def run(connection: Connection, _part: Part) -> list[Finding]:
        connection.exec_driver_sql(_AS_SUPABASE)
        return _others(database_of(connection), "splinter", path)

    return run


def _others(database: Database, name: str, path: Path | None = None) -> list[Finding]:
    found = others(database, [name], splinter=path)
    for unknown in database.unknown:
        print(f"  {name}: {unknown.reason}", flush=True)
    return found


def compare_faults(
    faults: Sequence[Fault], clean: Sequence[Clean], *, with_pgrls: bool, splinter_sql: Path | None
) -> None:
    """Print the recall of each program on *faults*, and its findings on *clean* schemas."""
    programs = [Program(ours, {"sqla-rls": ()})]
    if with_pgrls:
        off = [f"pgrls/{one}" for one in DISABLED]
        programs.append(Program(pgrls, {"pgrls": (), "pgrls, exported": off}))
    if splinter_sql is not None:
        programs.append(Program(splinter(splinter_sql.resolve()), {"splinter": ()}))
    scores = {name: Score() for program in programs for name in program.rows}
    with Server.start() as server:
        for fault in faults:
            if fault.since <= server.version:
                try_fault(server, fault, programs, scores)
        meter = Meter.of(server)
        for schema in clean:
            with _schema(server, schema) as connection:
                found = _look(programs, connection, "all", scores, meter)
                for name, score in scores.items():
                    score.clean[schema.name] = found[name]
    _print(scores)


def try_fault(server: Server, fault: Fault, programs: Sequence[Program], scores: dict[str, Score]) -> None:
    """Look at the schema of *fault* before and after it is mended, and count the programs that find it."""
    meter = Meter.of(server)
    part: Part = "speed" if fault.group == "speed" else "others"
    with _schema(server, fault) as connection:
        before = _look(programs, connection, part, scores, meter)
        driver = _driver(connection)
        mend(driver, fault)
        # SQLAlchemy knows of no transaction that the driver began.
        driver.commit()
        after = _look(programs, connection, part, scores, meter)
    for name, score in scores.items():
        left = set(map(_identity, after[name]))
        gone = [one for one in before[name] if _identity(one) not in left]
        score.tried[fault.group] += 1
        if gone:
            score.found[fault.group] += 1
        score.by[fault.name] = sorted({one.rule for one in gone})
        same = {one.rule for one in before[name] if one.level != "info" and names(one.object, fault)}
        score.unmoved[fault.name] = sorted(same)


def _look(
    programs: Sequence[Program],
    connection: Connection,
    part: Part,
    scores: dict[str, Score],
    meter: Meter,
) -> Looks:
    looks: Looks = {}
    for program in programs:
        with meter.measured() as cost:
            found = program.look(connection, part)
        # The next program would wait for the locks of the worlds.
        connection.rollback()
        for name, left_out in program.rows.items():
            looks[name] = [one for one in found if one.rule not in left_out]
            scores[name].costs.append(cost)
    return looks


def _identity(one: Finding) -> tuple[object, ...]:
    return (*one.key, one.level, one.text)


def _driver(connection: Connection) -> psycopg.Connection[Any]:
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver


@contextmanager
def _inside(folder: str) -> Iterator[None]:
    """Make *folder* the current one: pgrls takes its configuration from there."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def _schema(server: Server, case: Fault | Clean) -> Iterator[Connection]:
    """Give a superuser's connection to a database with the schema; drop it, and its roles."""
    name = server.create_database()
    engine = create_engine(server.url(name), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            if not isinstance(case, Clean) or case.has_auth:
                connection.execute(CreateAuthFunctions())
                connection.commit()
            driver = _driver(connection)
            prepare(driver, case)
            driver.commit()
            yield connection
    finally:
        server.drop_database(name)
        with create_engine(server.url(), poolclass=NullPool).begin() as superuser:
            roles = (
                superuser.exec_driver_sql("SELECT rolname FROM pg_roles WHERE oid >= 16384").scalars().all()
            )
            if roles:
                names = sql.SQL(", ").join(map(sql.Identifier, roles)).as_string(None)
                superuser.exec_driver_sql(f"DROP ROLE {names}".replace("%", "%%"))


def _print(scores: dict[str, Score]) -> None:
    first = next(iter(scores.values()))
    groups = list(first.tried)
    print(f"{sum(first.tried.values())} faults, {len(first.clean)} clean schemas\n")
    heads = [
        *groups,
        "all",
        "recall",
        "clean with findings above info",
        *LEVELS,
        "s, median",
        "CPU s, median",
    ]
    print(f"{'':18}" + "".join(f"{head:>{max(10, len(head) + 2)}}" for head in heads))
    for name, score in scores.items():
        found, tried = sum(score.found.values()), sum(score.tried.values())
        cells = [f"{score.found[group]}/{score.tried[group]}" for group in groups]
        cells += [f"{found}/{tried}", f"{found / tried:.2f}" if tried else ""]
        cells += [str(sum(map(bool, score.alarms("error", "warning").values())))]
        cells += [str(sum(score.alarms(level).values())) for level in LEVELS]
        cells += [f"{statistics.median(one.wall for one in score.costs):.2f}"]
        cells += [f"{statistics.median(one.cpu for one in score.costs):.2f}"]
        row = "".join(f"{cell:>{max(10, len(head) + 2)}}" for head, cell in zip(heads, cells, strict=True))
        print(f"{name:18}{row}", flush=True)
    for name, score in scores.items():
        for fault, rules in score.by.items():
            also = ", ".join(score.unmoved[fault])
            missed = f"missed; with the fault and without: {also}" if also else "missed"
            print(f"  {name}: {fault}: {', '.join(rules) or missed}")
        alarms = Counter(one.rule for found in score.clean.values() for one in found if one.level != "info")
        for rule, number in alarms.most_common():
            print(f"  {name} on clean schemas: {rule}: {number}")
