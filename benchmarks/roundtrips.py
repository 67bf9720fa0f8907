"""What it costs to run a transaction as somebody: ``python -m benchmarks.roundtrips [--json FILE]``.

One SELECT, then COMMIT, beside plain SQLAlchemy: logged in as the role itself, with claims fixed when it
connected, so that the same SELECT runs under the same policy and only the binding differs.  All of a driver
take turns on one server in one run; round trips are counted by a proxy, which also adds the delays.

Every transaction checks whose rows it sees: another's abort the run.  A way that spends more round trips
than it should is the exit status 1.  Times are what this machine makes of them; compare the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import threading
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from sqlalchemy import URL

from benchmarks.contenders import Contender, SyncRunner, contenders, create_database
from sqla_rls.testing.postgres import find_server
from sqla_rls.testing.proxy import Proxy

BATCH = 12  # transactions of one contender before the next one's turn
WARM_UP = 16  # until SQLAlchemy has cached and the driver has prepared
THREADS = 8


@dataclass(frozen=True, kw_only=True)
class Figure:
    driver: str
    way: str
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
            way=contender.way,
            delay=delay,
            round_trips=spent[number],
            allowed=contender.round_trips,
            median=statistics.median(times[number]) * 1e3,
            ratio=statistics.median(a / b for a, b in zip(times[number], times[0], strict=True)),
            cpu=statistics.median(cpu[number]) * 1e6,
        )
        for number, contender in enumerate(field)
    ]


def throughput(field: list[Contender], url: URL, seconds: float) -> list[float]:
    """Transactions per second of each in *field*, with THREADS threads, in turns."""
    runners = [contender.open(url, THREADS) for contender in field]
    done: list[list[float]] = [[] for _ in runners]
    for _ in range(5):
        for rates, runner in zip(done, runners, strict=True):
            assert isinstance(runner, SyncRunner)
            rates.append(rate(runner, seconds / 5 / len(runners)))
    for runner in runners:
        runner.close()
    return [statistics.median(rates) for rates in done]


def rate(runner: SyncRunner, seconds: float) -> float:
    finished = [0] * THREADS
    end = time.monotonic() + seconds
    failures: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            while time.monotonic() < end:
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


def goals(figures: list[Figure], rates: dict[str, float]) -> list[tuple[str, float, float, bool]]:
    """What was to be reached, the bound, the figure, and whether it holds."""
    by_key = {(figure.driver, figure.way, figure.delay): figure for figure in figures}
    wanted = [
        ("psycopg", "pipeline", 1, 0.85),
        ("psycopg_async", "pipeline", 1, 0.85),
        ("asyncpg", "message", 1, 1.05),
        ("psycopg", "message", 0, 1.25),
        ("psycopg_async", "message", 0, 1.25),
        ("asyncpg", "message", 0, 1.25),
    ]
    reached = []
    for driver, way, delay, bound in wanted:
        if figure := by_key.get((driver, way, delay)):
            what = f"{driver} {way}, {delay} ms: ratio to plain at most"
            reached.append((what, bound, figure.ratio, figure.ratio <= bound))
    if rates:
        ratio = rates["pipeline"] / rates["plain"]
        reached.append(
            (f"{THREADS} threads, pipeline, 1 ms: ratio to plain at least", 0.95, ratio, ratio >= 0.95)
        )
    return reached


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--delays", type=float, nargs="+", default=[0, 1, 5], help="milliseconds per round trip"
    )
    parser.add_argument("--seconds", type=float, default=20, help="for each driver and delay")
    parser.add_argument("--drivers", nargs="+", default=["psycopg", "psycopg_async", "asyncpg"])
    parser.add_argument("--json", type=Path, help="a file to write the figures to")
    arguments = parser.parse_args()
    load = [os.getloadavg()[0]]
    by_driver = contenders()
    figures: list[Figure] = []
    rates: dict[str, float] = {}
    with find_server() as server, Proxy(server.host, server.port) as proxy:
        database = create_database(server)
        url = server.url(database)
        print(
            f"{'driver':14} {'way':24} {'+ms':>4} {'round trips':>11} {'median ms':>10} {'ratio':>6} {'CPU µs':>7}"
        )
        for driver in arguments.drivers:
            for delay in arguments.delays:
                for figure in measure(by_driver[driver], url, proxy, delay, arguments.seconds):
                    figures.append(figure)
                    print(
                        f"{figure.driver:14} {figure.way:24} {delay:4g} {figure.round_trips:11g} "
                        f"{figure.median:10.3f} {figure.ratio:6.2f} {figure.cpu:7.0f}"
                    )
        if "psycopg" in arguments.drivers and 1 in arguments.delays:
            field = [each for each in by_driver["psycopg"] if each.way in ("plain", "message", "pipeline")]
            proxy.set_delay(0.0005)
            found = throughput(field, through(proxy, url), arguments.seconds)
            rates = {each.way: found for each, found in zip(field, found, strict=True)}
            for way, per_second in rates.items():
                print(
                    f"psycopg {THREADS} threads, 1 ms, {way}: {per_second:.0f}/s, {per_second / rates['plain']:.2f}"
                )
        server.drop_database(database)
        server_version = server.version
    load.append(os.getloadavg()[0])
    print(f"load of the machine {load[0]:.1f} to {load[1]:.1f}, {os.cpu_count()} CPUs")
    reached = goals(figures, rates)
    for what, bound, ratio, met in reached:
        print(f"{'met    ' if met else 'NOT MET'} {what} {bound}: {ratio:.2f}")
    if arguments.json:
        packages = ("sqlalchemy", "psycopg", "asyncpg")
        report = {
            "python": platform.python_version(),
            "postgresql": server_version,
            **{package: version(package) for package in packages},
            "cpus": os.cpu_count(),
            "load": load,
            "figures": [asdict(figure) for figure in figures],
            "transactions_per_second": rates,
        }
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    wasteful = [figure for figure in figures if figure.round_trips > figure.allowed]
    for figure in wasteful:
        print(f"{figure.driver} {figure.way} spends {figure.round_trips:g} round trips, not {figure.allowed}")
    raise SystemExit(bool(wasteful))


if __name__ == "__main__":
    main()
