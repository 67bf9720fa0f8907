"""What it costs to run a transaction as somebody: ``python -m benchmarks.roundtrips [--json FILE]``.

One SELECT, then COMMIT, beside plain SQLAlchemy: logged in as the role itself, with claims fixed when it
connected, so that the same SELECT runs under the same policy and only the binding differs.  All of a driver
take turns on one server in one run; round trips are counted by a proxy, which also adds the delays.

Every transaction checks whose rows it sees: another's abort the run.  A way that spends more round trips
than it should is the exit status 1.  Times are what this machine makes of them; compare the ratios.  rls and
sqlalchemy-tenants take part where they are installed: ``uv run --with rls --with sqlalchemy-tenants …``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import URL

from benchmarks.contenders import DRIVERS, Contender, SyncRunner, contenders, create_database
from benchmarks.setting import read_setting, shown
from sqla_rls.testing.postgres import find_server
from sqla_rls.testing.proxy import Proxy

BATCH = 12  # transactions of one contender before the next one's turn
WARM_UP = 16  # until SQLAlchemy has cached and the driver has prepared
THREADS = 8
TURNS = 11  # of each contender, with threads


@dataclass(frozen=True, kw_only=True)
class Figure:
    driver: str
    transport: str
    delay: float  # milliseconds added to a round trip
    round_trips: float
    allowed: int
    median: float  # milliseconds
    ratio: float  # to plain SQLAlchemy
    cpu: float  # microseconds, of the client


def through(proxy: Proxy, url: URL) -> URL:
    return url.set(host=proxy.host, port=proxy.port)


def count(contender: Contender, url: URL, proxy: Proxy) -> float:
    """Round trips of a transaction."""
    runner = contender.open(through(proxy, url))
    runner.batch(WARM_UP)
    before = proxy.round_trips
    runner.batch(BATCH)
    spent = (proxy.round_trips - before) / BATCH
    runner.close()
    return spent


def measure(field: list[Contender], url: URL, proxy: Proxy, delay: float, seconds: float) -> list[Figure]:
    proxy.set_delay(delay / 2000)
    spent = [count(contender, url, proxy) for contender in field]
    # Without a delay the proxy would be one.
    runners = [contender.open(through(proxy, url) if delay else url) for contender in field]
    for runner in runners:
        runner.batch(WARM_UP)
    times: list[list[float]] = [[] for _ in runners]
    cpu: list[list[float]] = [[] for _ in runners]
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(times[0]) < 3:
        for number, runner in enumerate(runners):
            taken, used = runner.batch(BATCH)
            times[number].append(statistics.median(taken))
            cpu[number].append(used / BATCH)
    for runner in runners:
        runner.close()
    proxy.set_delay(0)
    return [
        Figure(
            driver=contender.driver,
            transport=contender.transport,
            delay=delay,
            round_trips=spent[number],
            allowed=contender.round_trips,
            median=statistics.median(times[number]) * 1e3,
            ratio=statistics.median(a / b for a, b in zip(times[number], times[0], strict=True)),
            cpu=statistics.median(cpu[number]) * 1e6,
        )
        for number, contender in enumerate(field)
    ]


@dataclass(frozen=True, kw_only=True)
class Throughput:
    transport: str
    per_second: float  # transactions of THREADS threads
    ratio: float  # to plain SQLAlchemy


def throughput(field: list[Contender], url: URL, seconds: float) -> list[Throughput]:
    """What each in *field* gets done, in turns."""
    runners = [contender.open(url, THREADS) for contender in field]
    done: list[list[float]] = [[] for _ in runners]
    for turn in range(TURNS + 1):
        for rates, runner in zip(done, runners, strict=True):
            assert isinstance(runner, SyncRunner)
            found = rate(runner, seconds / TURNS / len(runners))
            if turn:  # the first is to warm up
                rates.append(found)
    for runner in runners:
        runner.close()
    return [
        Throughput(
            transport=contender.transport,
            per_second=statistics.median(rates),
            ratio=statistics.median(a / b for a, b in zip(rates, done[0], strict=True)),
        )
        for contender, rates in zip(field, done, strict=True)
    ]


def rate(runner: SyncRunner, seconds: float) -> float:
    finished = [0] * THREADS
    end = time.monotonic() + seconds
    failures: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            # On a busy machine, a turn may be over before its first transaction.
            while not finished[thread] or time.monotonic() < end:
                runner.transaction(thread + finished[thread])
                finished[thread] += 1
        except BaseException as failure:
            failures.append(failure)

    began = time.monotonic()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return sum(finished) / (time.monotonic() - began)


def at_one_millisecond(field: list[Contender], url: URL, proxy: Proxy, seconds: float) -> list[Throughput]:
    field = [contender for contender in field if contender.transport in ("plain", "with_begin", "pipeline")]
    proxy.set_delay(0.0005)
    rates = throughput(field, through(proxy, url), seconds)
    proxy.set_delay(0)
    for each in rates:
        rate = f"{each.per_second:.0f}/s, {each.ratio:.2f}"
        print(f"{THREADS} threads, 1 ms, psycopg, {each.transport}: {rate}")
    return rates


def goals(figures: list[Figure], rates: list[Throughput]) -> dict[str, bool]:
    """What the ways that are taken by default were to reach, and whether they did."""
    wanted = [
        ("psycopg", "pipeline", 1, 2, 0.85),
        ("psycopg_async", "pipeline", 1, 2, 0.85),
        ("asyncpg", "pipeline", 1, 2, 0.85),
        ("psycopg", "pipeline", 0, 2, 1.25),
        ("psycopg_async", "pipeline", 0, 2, 1.25),
        ("asyncpg", "pipeline", 0, 2, 1.25),
    ]
    by_key = {(figure.driver, figure.transport, figure.delay): figure for figure in figures}
    reached = {}
    for driver, transport, delay, round_trips, ratio in wanted:
        if figure := by_key.get((driver, transport, delay)):
            goal = f"{driver}, {transport}, +{delay} ms: {round_trips} round trips, at most {ratio} of plain"
            reached[goal] = figure.round_trips <= round_trips and figure.ratio <= ratio
    for each in rates:
        if each.transport == "pipeline":
            reached[f"{THREADS} threads, pipeline, +1 ms: at least 0.95 of plain"] = each.ratio >= 0.95
    return reached


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delays", type=float, nargs="+", default=[0, 1, 5], help="milliseconds")
    parser.add_argument("--seconds", type=float, default=20, help="for each driver and delay")
    parser.add_argument("--drivers", nargs="+", default=list(DRIVERS), choices=DRIVERS)
    parser.add_argument("--json", type=Path, help="a file to write the figures to")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    fields = contenders()
    figures: list[Figure] = []
    rates: list[Throughput] = []
    with find_server() as server, Proxy(server.host, server.port) as proxy:
        postgresql = server.version
        database = create_database(server)
        url = server.url(database)
        print("driver         transport                 +ms  round trips  median ms  ratio  CPU µs")
        for driver in arguments.drivers:
            for delay in arguments.delays:
                for figure in measure(fields[driver], url, proxy, delay, arguments.seconds):
                    figures.append(figure)
                    print(
                        f"{driver:14} {figure.transport:24} {delay:4g}{figure.round_trips:13g}"
                        f"{figure.median:11.3f}{figure.ratio:7.2f}{figure.cpu:8.0f}"
                    )
        if "psycopg" in arguments.drivers and 1 in arguments.delays:
            rates = at_one_millisecond(fields["psycopg"], url, proxy, arguments.seconds)
        server.drop_database(database)
    reached = goals(figures, rates)
    for goal, met in reached.items():
        print(f"{'met    ' if met else 'NOT MET'}  {goal}")
    setting = read_setting(postgresql, load, "sqlalchemy", "psycopg", "asyncpg")
    print(shown(setting))
    if arguments.json:
        report = {
            "setting": setting,
            "figures": [asdict(figure) for figure in figures],
            "throughput": [asdict(each) for each in rates],
            "goals": reached,
        }
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    wasteful = [figure for figure in figures if figure.round_trips > figure.allowed]
    for figure in wasteful:
        name = f"{figure.driver} {figure.transport}"
        print(f"{name} spends {figure.round_trips:g} round trips, not {figure.allowed}")
    raise SystemExit(bool(wasteful))


if __name__ == "__main__":
    main()
