"""Every goal of speed in about five minutes: ``make bench``, or ``python -m benchmarks.bench [--json FILE]``.

A table says met or missed for each goal of ``benchmarks/goals.py``.  Latency and throughput are measured in
two conditions: as the machine is, where a host may put a core to sleep between two messages, and with an
endless loop of idle priority on each core, which keeps the cores awake.  The machine should do nothing else:
a ratio of two that take turns still differs where other programs take the cores.  A missed goal is no error.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks import autogenerate, binding, client, policies, roundtrips
from benchmarks.contenders import DRIVERS, contenders, create_database
from benchmarks.first_request.measure import first_request, imported
from benchmarks.goals import Condition, Result, report, table
from benchmarks.roundtrips import through
from benchmarks.setting import read_setting, shown
from sqla_rls.testing.postgres import Server, find_server
from sqla_rls.testing.proxy import Proxy

CONDITIONS: Final[tuple[Condition, ...]] = ("asleep", "awake")
#: For what the conditions change.
_GROUPS: Final = ("latency", "threads", "tasks", "signed")

_LOOP: Final = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
while os.getppid() == int(sys.argv[2]):
    for _ in range(10_000_000):
        pass
"""


@contextmanager
def cores(condition: Condition) -> Iterator[None]:
    """Keep each core awake in the block, or leave it alone."""
    awake = os.sched_getaffinity(0) if condition == "awake" else set()
    loops = [
        subprocess.Popen([sys.executable, "-c", _LOOP, str(core), str(os.getpid())]) for core in sorted(awake)
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


class Bench:
    """One server; *scale* is the time that a measure takes, 1 for five minutes in all."""

    def __init__(self, server: Server, proxy: Proxy, scale: float, tables: list[int]) -> None:
        self.server, self.proxy, self.scale, self.tables = server, proxy, scale, tables
        self.url = server.url(create_database(server))

    def _times(self, number: float) -> int:
        return max(1, round(number * self.scale))

    def check(self) -> Iterator[Result]:
        found = autogenerate.ratios(self.server, self.tables, self._times(7), 40 * self.scale)
        if 1000 in found:
            yield Result(goal="check", figure=found[1000][0])
        if len(found) > 1:
            yield Result(goal="growth", figure=found[max(found)][1] / found[min(found)][1])

    def cpu(self) -> Iterator[Result]:
        for driver in DRIVERS:
            ratio = client.cpu(driver, self.url, self._times(60))["ratio"]
            yield Result(goal=f"cpu {driver}", figure=ratio)

    def writes(self) -> Iterator[Result]:
        for statement, ratio in policies.writes(self.server, seconds=2 * self.scale).items():
            yield Result(goal=statement, figure=ratio)

    def first(self) -> Iterator[Result]:
        yield Result(goal="first", figure=first_request(self.server, self._times(15)).ratio)
        yield Result(goal="import", figure=imported(self._times(15)))

    def memory(self) -> Iterator[Result]:
        number = self._times(10_000)
        found = client.memory(self.url, number, number)
        yield Result(goal="session", figure=found["bound session"] - found["plain session"])
        yield Result(goal="token", figure=found["cached token"])

    def latency(self) -> Iterator[Result]:
        for delay, name in ((0, "loopback"), (1, "1 ms")):
            for driver, transport in client.TRANSPORTS.items():
                everyone = contenders(others=False)[driver]
                field = [one for one in everyone if one.transport in ("plain", transport)]
                found = roundtrips.measure(field, self.url, self.proxy, delay, 7 * self.scale)
                (figure,) = (one for one in found if one.transport == transport)
                yield Result(goal=f"{name} {driver}", figure=figure.ratio)

    def threads(self) -> Iterator[Result]:
        field = [one for one in contenders(others=False)["psycopg"] if one.transport in ("plain", "pipeline")]
        rates = roundtrips.at_one_millisecond(field, self.url, self.proxy, max(8 * self.scale, 3))
        (rate,) = (one for one in rates if one.transport == "pipeline")
        yield Result(goal="threads", figure=rate.ratio)

    def tasks(self) -> Iterator[Result]:
        for delay, name in ((0, "loopback"), (1, "1 ms")):
            self.proxy.set_delay(delay / 2000)
            url = through(self.proxy, self.url) if delay else self.url
            for driver in ("psycopg_async", "asyncpg"):
                found = client.tasks(driver, url, self._times(7), each=2)
                yield Result(goal=f"tasks {name} {driver}", figure=found["ratio"])
        self.proxy.set_delay(0)

    def signed(self) -> Iterator[Result]:
        names = {"pg_session_jwt": "extension", "functions": "functions"}
        with binding.databases(self.server) as databases:
            for driver in ("psycopg", "asyncpg"):
                for figure in binding.measure(driver, databases, 12 * self.scale):
                    if figure.binding in names and figure.people == 1 and figure.leftovers == "clean":
                        yield Result(goal=f"{names[figure.binding]} {driver}", figure=figure.to_claims)

    def run(self) -> Iterator[Result]:
        for measure in (self.check, self.first, self.writes, self.cpu, self.memory):
            yield from _said(measure)
        for condition in CONDITIONS:
            with cores(condition):
                for name in _GROUPS:
                    for result in _said(getattr(self, name)):
                        yield replace(result, condition=condition)


def _said(measure: Callable[[], Iterator[Result]]) -> list[Result]:
    began = time.monotonic()
    found = [*measure()]
    print(
        f"{getattr(measure, '__name__', '')}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300, help="for all measures, more or less")
    parser.add_argument(
        "--tables", type=int, nargs="+", default=[1000], help="of alembic check; several show its growth"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="a file to write the results to")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    with find_server() as server, Proxy(server.host, server.port) as proxy:
        postgresql = server.version
        results = [*Bench(server, proxy, arguments.seconds / 300, arguments.tables).run()]
    print(table(results))
    setting = read_setting(postgresql, load, "sqlalchemy", "alembic", "psycopg", "asyncpg")
    print(shown(setting))
    if arguments.json:
        arguments.json.write_text(json.dumps(report(results, setting), indent=1) + "\n")


if __name__ == "__main__":
    main()
