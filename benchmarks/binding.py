"""What it costs that the database verifies who is calling: ``python -m benchmarks.binding [--json FILE]``.

One SELECT, then COMMIT, on one connection: as claims, signed for pg_session_jwt, and signed for the portable
functions; for one person, and for eight by turns; with what the last caller left kept (reset="none"), with
the session clean (the default), and with everything discarded (reset="all").  Plain SQLAlchemy logs in as the
role itself, with claims fixed when it connected.  All take turns on one server in one run, and every
transaction checks whose rows it sees.

The extension is measured where the server has it: ``SQLA_RLS_TEST_URL`` names another server.  Times are what
this machine makes of them; compare the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal, TypeAlias

from sqlalchemy import URL, create_engine, text
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.schema import CreateSchema

from benchmarks.contenders import PEOPLE, Contender, create_database, ours, plain
from benchmarks.roundtrips import BATCH, WARM_UP
from benchmarks.setting import read_setting, shown
from sqla_rls import BindingOptions, enforce_row_security, identify
from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from sqla_rls.driver.base import Reset, Transport
from sqla_rls.rotation import rotate_signing_key
from sqla_rls.session.options import Signing
from sqla_rls.testing.postgres import Server, find_server

Verifier: TypeAlias = Literal["pg_session_jwt", "functions"]

#: For each driver, the transport that both claims and tokens can take without another round trip.
TRANSPORTS: Final[dict[str, Transport]] = dict.fromkeys(("psycopg", "psycopg_async", "asyncpg"), "pipeline")
LEFTOVERS: Final[dict[str, Reset]] = {"kept": "none", "clean": "settings", "strict": "all"}
CALLS: Final = 20_000


@dataclass(frozen=True, kw_only=True)
class Database:
    """One where callers are verified by *verifier*; None: where they are claims."""

    url: URL
    verifier: Verifier | None
    key: str | None = None

    @property
    def signing(self) -> Signing:
        return "off" if self.verifier is None else "required"


@dataclass(frozen=True, kw_only=True)
class Figure:
    binding: str
    people: int
    leftovers: str
    median: float  # milliseconds
    to_plain: float
    to_claims: float  # with the same people and leftovers
    to_kept: float  # the same binding with reset="none"


@contextmanager
def databases(server: Server) -> Iterator[list[Database]]:
    """Of each kind that *server* can have; the first is for claims."""
    # A schema that is there already keeps the extension out.
    signed = [CreateSchema("auth"), CreateAuthFunctions(signed=True)]
    names = [create_database(server, CreateSchema("auth")), create_database(server, *signed)]
    engine = create_engine(server.url(names[1]))
    with engine.begin() as connection:
        key = rotate_signing_key(connection, grace=timedelta(0))
    engine.dispose()
    found = [
        Database(url=server.url(names[0]), verifier=None),
        Database(url=server.url(names[1]), verifier="functions", key=key),
    ]
    engine = create_engine(server.url(names[0]))
    with engine.connect() as connection:
        offered = connection.scalar(
            text("SELECT true FROM pg_available_extensions WHERE name = 'pg_session_jwt'")
        )
    engine.dispose()
    if offered:
        names.append(create_database(server))
        found.append(Database(url=server.url(names[2]), verifier="pg_session_jwt"))
    yield found
    for name in names:
        server.drop_database(name)


def measure(driver: str, found: list[Database], seconds: float) -> list[Figure]:
    transport = TRANSPORTS[driver]
    field = [
        (
            (database.verifier or "claims", people, leftovers),
            Contender(
                driver=driver,
                transport=transport,
                round_trips=4,
                prepare=ours(transport, reset=reset, signing=database.signing, signing_key=database.key),
                people=people,
            ),
            database.url,
        )
        for database in found
        for people in (1, len(PEOPLE))
        for leftovers, reset in LEFTOVERS.items()
    ]
    baseline = Contender(driver=driver, transport="plain", round_trips=3, prepare=plain, login="bench_plain")
    runners = [baseline.open(found[0].url), *(contender.open(url) for _, contender, url in field)]
    for runner in runners:
        runner.batch(WARM_UP)
    times: list[list[float]] = [[] for _ in runners]
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(times[0]) < 3:
        for taken, runner in zip(times, runners, strict=True):
            taken.append(statistics.median(runner.batch(BATCH)[0]))
    for runner in runners:
        runner.close()
    by_key = {key: taken for (key, _, _), taken in zip(field, times[1:], strict=True)}

    def ratio(taken: list[float], other: list[float]) -> float:
        return statistics.median(a / b for a, b in zip(taken, other, strict=True))

    return [
        Figure(
            binding=binding,
            people=people,
            leftovers=leftovers,
            median=statistics.median(taken) * 1e3,
            to_plain=ratio(taken, times[0]),
            to_claims=ratio(taken, by_key["claims", people, leftovers]),
            to_kept=ratio(taken, by_key[binding, people, "kept"]),
        )
        for (binding, people, leftovers), taken in by_key.items()
    ]


def call(database: Database, url: URL) -> float:
    """Microseconds for a call of auth.user_id() in a bound transaction, beyond those of a row."""
    engine = create_engine(url.set(drivername="postgresql+psycopg", username="bench_app", password="bench"))
    maker = sessionmaker(engine)
    enforce_row_security(maker, signing_key=database.key, options=BindingOptions(signing=database.signing))
    taken: dict[str, list[float]] = {"user_id IS NULL": [], "auth.user_id()": []}
    for _ in range(5):
        with maker() as session:
            identify(session, PEOPLE[0])
            for expression, times in taken.items():
                times.append(_count(session, expression))
    engine.dispose()
    row, called = (min(times) for times in taken.values())
    return (called - row) / CALLS * 1e6


def _count(session: Session, expression: str) -> float:
    counting = text(f"SELECT count({expression}) FROM generate_series(1, {CALLS}) AS user_id")
    began = time.perf_counter()
    session.execute(counting)
    return time.perf_counter() - began


def goals(figures: list[Figure]) -> dict[str, bool]:
    """What was to be reached, and whether it was."""
    reached = {}
    for figure in figures:
        name = f"{figure.binding}, {figure.people} by turns" if figure.people > 1 else figure.binding
        if figure.leftovers == "clean":
            reached[f"{name}: clean at most 1.05 of not"] = figure.to_kept <= 1.05
            if figure.binding != "claims":
                reached[f"{name}: at most 1.10 of claims"] = figure.to_claims <= 1.10
    return reached


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--driver", default="psycopg", choices=TRANSPORTS)
    parser.add_argument("--json", type=Path, help="a file to write the figures to")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    with find_server() as server, databases(server) as found:
        postgresql = server.version
        print("binding         people  leftovers  median ms  to plain  to claims  to kept")
        figures = measure(arguments.driver, found, arguments.seconds)
        for figure in figures:
            print(
                f"{figure.binding:15} {figure.people:6}  {figure.leftovers:9}{figure.median:11.3f}"
                f"{figure.to_plain:10.2f}{figure.to_claims:11.2f}{figure.to_kept:9.2f}"
            )
        calls = {database.verifier or "claims": call(database, database.url) for database in found}
    for binding, microseconds in calls.items():
        print(f"a call of auth.user_id(), {binding}: {microseconds:.1f} µs")
    if "pg_session_jwt" not in calls:
        print("this server doesn't offer pg_session_jwt, which therefore isn't measured")
    reached = goals(figures)
    for goal, met in reached.items():
        print(f"{'met    ' if met else 'NOT MET'}  {goal}")
    setting = {
        "driver": arguments.driver,
        "transport": TRANSPORTS[arguments.driver],
        **read_setting(postgresql, load, "sqlalchemy", "psycopg", "asyncpg"),
    }
    print(shown(setting))
    if arguments.json:
        rows = [asdict(figure) for figure in figures]
        report = {"setting": setting, "figures": rows, "microseconds_per_call": calls, "goals": reached}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
