"""Many callers on few connections, checked in every transaction: ``python -m benchmarks.soak``.

One process for psycopg in threads, one for psycopg and one for asyncpg under asyncio, each with a pool of
five connections and twelve who want one.  Every transaction counts the rows that it may see, and whose they
are, in the database.  Exit status 1 if anybody saw what is another's, was bound to the wrong role, met
another error than what was provoked, or left anything behind on a connection.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import nullcontext
from typing import Final

from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from benchmarks.soak.turn import Tally
from benchmarks.soak.worker import POOL, SABOTAGE, SPAWN, TRANSPORTS, Orders, report_to, work
from benchmarks.soak.world import forged, person, world
from sqla_rls.testing.issuer import Issuer
from sqla_rls.testing.pgbouncer import PgBouncer
from sqla_rls.testing.postgres import Server, find_server

#: In transactions; one backend is killed for each.
KILL_EVERY: Final = 500
PGBOUNCER_POOL: Final = 6  # server connections, for the 15 that the workers have
PROGRESS_EVERY: Final = 30.0  # seconds
KILL: Final = text(
    "SELECT pg_terminate_backend(pid) FROM "
    "(SELECT pid FROM pg_stat_activity WHERE usename = :user ORDER BY random() LIMIT 1) AS victim"
)


def soak(server: Server, orders: Orders, tokens: list[str]) -> Tally:
    """Have workers take their turns, and kill backends meanwhile; what there was of each."""
    tally = Tally()
    admin = create_engine(server.url(), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with (
        admin.connect() as connection,
        ProcessPoolExecutor(len(TRANSPORTS), SPAWN, initializer=report_to, initargs=(orders,)) as processes,
    ):
        begin = told = time.monotonic()
        running = {processes.submit(work, driver, tokens) for driver in TRANSPORTS}
        while running:
            finished, running = wait(running, timeout=0.05, return_when=FIRST_COMPLETED)
            for worker in finished:
                tally.update(worker.result())
            done = orders.done.value
            if orders.faults and tally["fault", "backend killed"] < done // KILL_EVERY:
                killed = connection.scalar(KILL, {"user": orders.url.username})
                tally["fault", "backend killed"] += bool(killed)
            if time.monotonic() > told + PROGRESS_EVERY:
                told = time.monotonic()
                rate, violations = done / (told - begin), orders.violations.value
                print(f"{done:,} transactions, {rate:.0f} a second, {violations} violations", flush=True)
    return tally


def table(tally: Tally, orders: Orders, seconds: float) -> str:
    """What there was, by kind."""
    transactions = tally["transactions", "bound"] + tally["transactions", "refused"]
    lines = [
        ("transactions", transactions),
        ("  bound to a caller", tally["transactions", "bound"]),
        ("  bound and checked", tally["transactions", "checked"]),
        ("  refused when they began", tally["transactions", "refused"]),
        ("callers", orders.people),
        ("connections in pools", len(TRANSPORTS) * POOL["pool_size"]),
        ("seconds", round(seconds)),
        ("raw connections found clean", tally["checks", "raw connections found clean"]),
        ("cursors of another class", tally["checks", "cursors of another class"]),
        ("settings left", tally["checks", "settings left"]),
    ]
    for what, heading in (("fault", "faults"), ("refusal", "refusals"), ("violation", "violations")):
        kinds = sorted((kind, count) for (name, kind), count in tally.items() if name == what)
        lines += [(heading, sum(count for _, count in kinds))]
        lines += [(f"  {kind}", count) for kind, count in kinds if count]
    lines += [(kind, count) for (name, kind), count in sorted(tally.items()) if name == "seen"]
    width = max(len(label) for label, _ in lines)
    return "\n".join(f"{label:{width}}{count:14,}" for label, count in lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--transactions", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--callers", type=int, default=500)
    parser.add_argument("--url", help="of a superuser of a server to test on; default is one of its own")
    parser.add_argument("--without-faults", action="store_true")
    parser.add_argument("--through-pgbouncer", action="store_true", help="in transaction mode")
    parser.add_argument("--sabotage", choices=SABOTAGE, help="break every other transaction: must be found")
    arguments = parser.parse_args()
    with (
        Server.connect(arguments.url) if arguments.url else find_server() as server,
        Issuer() as issuer,
        world(server, arguments.callers) as url,
        PgBouncer(url, pool_size=PGBOUNCER_POOL) if arguments.through_pgbouncer else nullcontext() as bouncer,
    ):
        subjects = (person(number).subject for number in range(arguments.callers))
        tokens = [issuer.token(subject, expires_in=86_400) for subject in subjects]
        orders = Orders(
            url=bouncer.url if bouncer else url,
            transactions=arguments.transactions,
            people=arguments.callers,
            issuer_url=issuer.base_url,
            project_id=issuer.project_id,
            seed=arguments.seed,
            faults=not arguments.without_faults,
            sabotage=arguments.sabotage,
            pgbouncer=bouncer is not None,
        )
        for number in (signal.SIGINT, signal.SIGTERM):
            # The table is printed all the same.
            signal.signal(number, lambda *_: orders.stop.set())
        begin = time.monotonic()
        tally = soak(server, orders, tokens)
        seconds = time.monotonic() - begin
        tally["seen", "notes in another's name"] += forged(server, url.database)
        tally["seen", "rows of another caller"] += 0
    print(table(tally, orders, seconds))
    return any(count for (what, _), count in tally.items() if what in ("violation", "seen"))


if __name__ == "__main__":
    sys.exit(main())
