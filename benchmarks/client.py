"""The client's cost of a bound transaction, beside plain SQLAlchemy: ``python -m benchmarks.client``.

Calls of Python functions, bytecode instructions and waits are counted: they don't depend on the machine or
its load.  CPU time and throughput are ratios to plain SQLAlchemy, which takes turns with the others.
``calls()``, ``bytecode()``, ``cpu()``, ``tasks()`` and ``memory()`` return their figures for other programs.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL

from benchmarks.contenders import (
    DRIVERS,
    AsyncRunner,
    Contender,
    Runner,
    SyncRunner,
    contenders,
    create_database,
)
from benchmarks.roundtrips import through
from sqla_rls import Verifier
from sqla_rls.testing.issuer import Issuer
from sqla_rls.testing.postgres import find_server
from sqla_rls.testing.proxy import Proxy

#: The transport that each driver takes by default.
TRANSPORTS: Final[dict[str, str]] = dict.fromkeys(("psycopg", "psycopg_async", "asyncpg"), "pipeline")
WARM_UP: Final = 30  # until SQLAlchemy has cached and the driver has prepared
COUNTED: Final = 10
BATCH: Final = 10
TASKS: Final = 200
CONNECTIONS: Final = 20

#: The parts of a transaction, by the files of their functions; the first match counts.
PARTS: Final = {
    "sqla_rls, session": ("sqla_rls/session/", "sqla_rls/tokens/"),
    "sqla_rls, driver": ("sqla_rls/driver/",),
    "driver": ("/psycopg/", "/asyncpg/"),
    "SQLAlchemy, ORM": ("/sqlalchemy/orm/", "/sqlalchemy/ext/"),
    "SQLAlchemy, pool": ("/sqlalchemy/pool/",),
    "SQLAlchemy, other": ("/sqlalchemy/",),
    "asyncio": ("/asyncio/", "selectors.py"),
}


@contextmanager
def field(driver: str, url: URL, pool_size: int = 1) -> Iterator[dict[str, Any]]:
    """A runner for plain SQLAlchemy and one for bound sessions, after a warm-up."""
    wanted = {"plain": "plain", "bound": TRANSPORTS[driver]}
    by_transport = {each.transport: each for each in contenders(others=False)[driver]}
    chosen: dict[str, Contender] = {name: by_transport[transport] for name, transport in wanted.items()}
    runners = {name: contender.open(url, pool_size) for name, contender in chosen.items()}
    for runner in runners.values():
        runner.batch(WARM_UP)
    yield runners
    for runner in runners.values():
        runner.close()


def calls(driver: str, url: URL) -> dict[str, dict[str, float]]:
    """The calls of Python functions for a transaction, by part, and in "all"; "waits" are psycopg's."""
    with field(driver, url) as runners:
        return {name: _calls(runner) for name, runner in runners.items()}


def _calls(runner: Runner) -> dict[str, float]:
    found: Counter[str] = Counter()

    def profile(frame: Any, event: str, _: object) -> None:
        if event == "call":
            code = frame.f_code
            found["all"] += 1
            found[_part(code.co_filename)] += 1
            if code.co_qualname in ("Connection.wait", "AsyncConnection.wait"):
                found["waits"] += 1

    gc.collect()
    gc.disable()
    sys.setprofile(profile)
    try:
        runner.batch(COUNTED)
    finally:
        sys.setprofile(None)
        gc.enable()
    return {part: found[part] / COUNTED for part in (*PARTS, "other", "all", "waits")}


def bytecode(driver: str, url: URL) -> dict[str, dict[str, float]]:
    """The bytecode instructions of a transaction, by part, and in "all".

    Their ratio to plain SQLAlchemy is near that of the machine's instructions.
    """
    with field(driver, url) as runners:
        return {name: _bytecode(runner) for name, runner in runners.items()}


def _bytecode(runner: Runner) -> dict[str, float]:
    found: Counter[str] = Counter()

    def trace(frame: Any, event: str, _: object) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            found["all"] += 1
            found[_part(frame.f_code.co_filename)] += 1
        return trace

    gc.collect()
    gc.disable()
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        runner.batch(COUNTED)
    finally:
        sys.settrace(before)
        gc.enable()
    return {part: found[part] / COUNTED for part in (*PARTS, "other", "all")}


def _part(filename: str) -> str:
    for part, places in PARTS.items():
        if any(place in filename for place in places):
            return part
    return "other"


def cpu(driver: str, url: URL, rounds: int = 200) -> dict[str, float]:
    """The CPU time of the client for a transaction, in µs, and their "ratio": medians of the rounds."""
    with field(driver, url) as runners:
        return _by_turns(runners, rounds, lambda runner: runner.batch(BATCH)[1] / BATCH * 1e6)


def tasks(driver: str, url: URL, turns: int = 7, each: int = 5) -> dict[str, float]:
    """The transactions per second of 200 tasks on 20 connections, and their "ratio"."""
    with field(driver, url, CONNECTIONS) as runners:
        for runner in runners.values():
            _rate(runner, each)  # opens the connections
        return _by_turns(runners, turns, lambda runner: _rate(runner, each))


def _by_turns(
    runners: Mapping[str, Runner], turns: int, measure: Callable[[Runner], float]
) -> dict[str, float]:
    """The medians of what *measure* says of each runner in *turns*, and of its "ratio", bound by plain."""
    # A full collection would fall on one of the two.
    gc.collect()
    gc.freeze()
    found: dict[str, list[float]] = {name: [] for name in runners}
    for turn in range(turns):
        order = list(runners)
        for name in order if turn % 2 else reversed(order):
            found[name].append(measure(runners[name]))
    gc.unfreeze()
    ratio = statistics.median(a / b for a, b in zip(found["bound"], found["plain"], strict=True))
    return {name: statistics.median(values) for name, values in found.items()} | {"ratio": ratio}


def _rate(runner: Runner, each: int) -> float:
    assert isinstance(runner, AsyncRunner)
    began = time.perf_counter()
    runner.concurrent(TASKS, each)
    return TASKS * each / (time.perf_counter() - began)


def memory(url: URL, sessions: int = 10_000, tokens: int = 10_000) -> dict[str, float]:
    """The bytes of a session without a transaction, plain and bound, and of a token in a Verifier's cache."""
    found: dict[str, float] = {}
    with field("psycopg", url) as runners:
        for name, runner in runners.items():
            opened: list[Any] = []
            found[f"{name} session"] = _bytes(partial(_open, runner, sessions, opened), sessions)
            for session in opened:
                session.close()
    with Issuer() as issuer:
        verifier = Verifier(issuer.provider, cache_size=tokens)
        issued = [issuer.token(f"person_{number}") for number in range(tokens)]
        verifier.verify(issuer.token("first"))  # fetches the keys

        def verify() -> None:
            for token in issued:
                verifier.verify(token)

        found["cached token"] = _bytes(verify, tokens)
    return found


def _open(runner: SyncRunner, sessions: int, opened: list[Any]) -> None:
    opened.extend(runner.open_session(number) for number in range(sessions))


def _bytes(work: Callable[[], None], number: int) -> float:
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        work()
        gc.collect()
        return (tracemalloc.get_traced_memory()[0] - before) / number
    finally:
        tracemalloc.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drivers", nargs="+", default=list(DRIVERS), choices=DRIVERS)
    parser.add_argument("--rounds", type=int, default=200, help="of the CPU time")
    parser.add_argument("--json", type=Path, help="a file to write the figures to")
    arguments = parser.parse_args()
    report: dict[str, Any] = {"calls": {}, "bytecode": {}, "cpu": {}, "tasks": {}, "tasks, 1 ms": {}}
    with find_server() as server, Proxy(server.host, server.port, delay=0.0005) as proxy:
        database = create_database(server)
        url = server.url(database)
        for driver in arguments.drivers:
            report["calls"][driver] = calls(driver, url)
            report["bytecode"][driver] = bytecode(driver, url)
            report["cpu"][driver] = cpu(driver, url, arguments.rounds)
            if driver != "psycopg":
                report["tasks"][driver] = tasks(driver, url)
                report["tasks, 1 ms"][driver] = tasks(driver, through(proxy, url))
        report["memory"] = memory(url)
        server.drop_database(database)
    for driver, counted in report["calls"].items():
        print(f"{driver}: calls and bytecode of a transaction, plain and bound")
        code = report["bytecode"][driver]
        for part, plain in counted["plain"].items():
            instructions = "".join(f"{code[name].get(part, 0):9.0f}" for name in ("plain", "bound"))
            print(f"  {part:20}{plain:8.1f}{counted['bound'][part]:8.1f}{instructions}")
    for measure, unit in (("cpu", "µs of CPU"), ("tasks", "a second"), ("tasks, 1 ms", "a second")):
        for driver, found in report[measure].items():
            figures = f"plain {found['plain']:.0f}, bound {found['bound']:.0f} {unit}"
            print(f"{measure}, {driver}: {figures}, ratio {found['ratio']:.2f}")
    for name, used in report["memory"].items():
        print(f"memory, {name}: {used:.0f} bytes")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
