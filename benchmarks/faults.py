"""Faults of schemas, by sqla-rls lint, pgrls and splinter: part of ``python -m benchmarks.analyze``.

Each fault of tests/analyze/lint/faults shows on a real Postgres, and is gone once it is mended. A program
finds it if one of its findings goes with it. So no table says which rule of a program is about which fault.
On clean schemas, findings above info count.

pgrls has the configuration that ``sqla-rls lint --export pgrls`` writes without allowlists.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from psycopg import sql
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from sqla_rls.analyze.lint.finding import Finding
from sqla_rls.analyze.lint.others import others
from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from sqla_rls.server.postgres import Server
from tests.analyze.lint.faults.case import Clean, Fault
from tests.analyze.lint.faults.measure import database_of, look
from tests.analyze.lint.faults.observe import mend, prepare

Look: TypeAlias = Callable[[Connection, bool], list[Finding]]


@dataclass
class Score:
    found: Counter[str] = field(default_factory=Counter)
    tried: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)
    #: The numbers of findings above info on clean schemas, by name.
    alarms: dict[str, int] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    def look(self, program: Look, connection: Connection, is_speed: bool) -> list[Finding]:
        begin = time.perf_counter()
        found = program(connection, is_speed)
        self.seconds.append(time.perf_counter() - begin)
        # The next program would wait for the locks of the worlds.
        connection.rollback()
        return found


def ours(connection: Connection, is_speed: bool) -> list[Finding]:
    """Run all rules but those of speed, or these alone: they generate rows."""
    return look(connection, select=["speed"] if is_speed else [])


def _program(name: str, splinter: Path | None) -> Look:
    def run(connection: Connection, is_speed: bool) -> list[Finding]:
        database = database_of(connection)
        found = others(database, [name], splinter=splinter)
        for unknown in database.unknown:
            print(f"  {name}: {unknown.reason}", flush=True)
        return found

    return run


def compare_faults(
    faults: Sequence[Fault], clean: Sequence[Clean], *, with_pgrls: bool, splinter: Path | None
) -> None:
    """Print the recall of each program on *faults*, and its findings on *clean* schemas."""
    programs: dict[str, Look] = {"sqla-rls": ours}
    if with_pgrls:
        programs["pgrls"] = _program("pgrls", None)
    if splinter is not None:
        programs["splinter"] = _program("splinter", splinter)
    scores = {name: Score() for name in programs}
    with Server.start() as server:
        for fault in faults:
            if fault.since <= server.version:
                with _schema(server, fault) as connection:
                    _try(connection, fault, programs, scores)
        for schema in clean:
            with _schema(server, schema) as connection:
                for name, program in programs.items():
                    score = scores[name]
                    found = score.look(program, connection, False)
                    if program is ours:
                        found += score.look(program, connection, True)
                    score.alarms[schema.name] = sum(one.level != "info" for one in found)
    _print(scores)


def _try(connection: Connection, fault: Fault, programs: dict[str, Look], scores: dict[str, Score]) -> None:
    is_speed = fault.group == "speed"
    before = {name: scores[name].look(program, connection, is_speed) for name, program in programs.items()}
    connection.rollback()
    driver = connection.connection.driver_connection
    assert driver is not None
    mend(driver, fault)
    connection.commit()
    for name, program in programs.items():
        score = scores[name]
        left = {(one.key, one.level) for one in score.look(program, connection, is_speed)}
        score.tried[fault.group] += 1
        if any((one.key, one.level) not in left for one in before[name]):
            score.found[fault.group] += 1
        else:
            score.missed.append(fault.name)


@contextmanager
def _schema(server: Server, case: Fault | Clean) -> Iterator[Connection]:
    """Give a superuser's connection to a database with the schema; drop it, and its roles."""
    name = server.create_database()
    engine = create_engine(server.url(name), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            if not isinstance(case, Clean) or case.has_auth:
                connection.execute(CreateAuthFunctions())
            driver = connection.connection.driver_connection
            assert driver is not None
            prepare(driver, case)
            connection.commit()
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
    print(f"{sum(first.tried.values())} faults, {len(first.alarms)} clean schemas\n")
    heads = [*groups, "all", "recall", "clean with findings", "findings", "s, median", "s, all"]
    print(f"{'':10}" + "".join(f"{head:>{max(10, len(head) + 2)}}" for head in heads))
    for name, score in scores.items():
        found, tried = sum(score.found.values()), sum(score.tried.values())
        cells = [f"{score.found[group]}/{score.tried[group]}" for group in groups]
        cells += [f"{found}/{tried}", f"{found / tried:.2f}"]
        cells += [str(sum(map(bool, score.alarms.values()))), str(sum(score.alarms.values()))]
        cells += [f"{statistics.median(score.seconds):.2f}", f"{sum(score.seconds):.0f}"]
        row = "".join(f"{cell:>{max(10, len(head) + 2)}}" for head, cell in zip(heads, cells, strict=True))
        print(f"{name:10}{row}", flush=True)
    for name, score in scores.items():
        for fault in score.missed:
            print(f"  {name} misses: {fault}")
