"""A process that takes turns with one driver, on a pool of its own that is too small for all who wait."""

from __future__ import annotations

import asyncio
import itertools
import logging
import multiprocessing as mp
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from benchmarks.soak.operations import play
from benchmarks.soak.turn import Tally, Turn, check_nothing_left, fail, fault_of, token
from benchmarks.soak.world import person
from sqla_rls import BindingOptions, Caller, Verifier, enforce_row_security, provider
from sqla_rls.driver.base import Transport
from sqla_rls.testing.pgbouncer import CONNECT_ARGS

#: A fork would share the connections and the threads of its parent.
SPAWN: Final = mp.get_context("spawn")
#: The ways that a binding travels, by driver; each turn takes one of them, on the same connections.
TRANSPORTS: Final[dict[str, list[Transport]]] = {
    "psycopg": ["with_begin", "pipeline", "statement"],
    "psycopg_async": ["with_begin", "pipeline", "statement"],
    "asyncpg": ["with_begin", "pipeline", "statement"],
}
POOL: Final[dict[str, Any]] = {"pool_size": 5, "max_overflow": 0, "pool_timeout": 1.0}
AT_ONCE: Final = 12
#: How often, of all turns: a task is cancelled; somebody looks at a connection from the pool.
CANCELLED: Final = 0.02
LOOKS: Final = 0.05
#: How many violations are told in full.
REPORTED: Final = 10


def _execute(sql: str, connection: Connection) -> None:
    connection.execute(text(sql.replace(":", "\\:")))


def _forgo_the_reset(connection: Connection) -> None:
    driver: Any = connection.connection.driver_connection
    if hasattr(driver, "pgconn"):
        driver.is_reset = True
    else:
        driver._reset_at = driver._protocol.queries_count


#: What a broken binding would do, to show that it is found out.
SABOTAGE: Final[dict[str, Callable[[Connection], None]]] = {
    "unbound": partial(
        _execute, "SELECT set_config('role', 'none', true), set_config('request.jwt.claims', '', true)"
    ),
    "another": partial(_execute, "SELECT set_config('request.jwt.claims', '{\"sub\": \"user-0\"}', true)"),
    "lasting": partial(_execute, "SELECT set_config('role', 'authenticated', false)"),
    "unreset": _forgo_the_reset,
}


@dataclass(frozen=True)
class Orders:
    """What all workers share, and are told."""

    url: URL
    transactions: int
    people: int
    issuer_url: str
    project_id: str
    seed: int
    faults: bool
    sabotage: str | None
    pgbouncer: bool
    turns: Any = field(default_factory=lambda: SPAWN.Value("q", 0))
    done: Any = field(default_factory=lambda: SPAWN.Value("q", 0))
    violations: Any = field(default_factory=lambda: SPAWN.Value("q", 0))
    stop: Any = field(default_factory=SPAWN.Event)

    def next_turn(self) -> int | None:
        if self.stop.is_set() or self.done.value >= self.transactions:
            return None
        with self.turns:
            self.turns.value += 1
            return int(self.turns.value)


def count_transactions(sessions: type[Session], sabotage: str | None) -> None:
    """Count those of *sessions*; fail or do harm where that is the plan."""
    begun = itertools.count(1)

    @event.listens_for(sessions, "after_begin")
    def after_begin(session: Session, transaction: Any, connection: Connection) -> None:
        if transaction.nested:
            return
        session.info["unchecked"] = True
        session.info["tally"]["transactions", "bound"] += 1
        if sabotage and next(begun) % 2 == 0:
            SABOTAGE[sabotage](connection)
            session.info["tally"]["fault", "sabotage"] += 1
        fail("after_begin")


def listen(engine: Engine) -> None:
    """Fail where that is the plan."""
    for name in ("checkout", "reset"):
        event.listen(engine, name, lambda *_, name=name: fail(name))


_orders: Orders


async def ask() -> str | Caller | None:
    await asyncio.sleep(0)
    return token.get()


def on_bind(*_: object) -> None:
    fail("on_bind")


class Worker:
    """Takes turns, *AT_ONCE* at a time, until there have been enough transactions."""

    def __init__(self, driver: str, orders: Orders, tokens: list[str]) -> None:
        self.driver, self.orders, self.tokens = driver, orders, tokens
        name = driver.removesuffix("_async")
        self.url = orders.url.set(drivername=f"postgresql+{name}")
        self.options = {**POOL, "connect_args": CONNECT_ARGS[name] if orders.pgbouncer else {}}
        self.verifier = Verifier(provider.stack_auth(orders.project_id, base_url=orders.issuer_url))

    def run(self) -> Tally:
        if self.driver == "psycopg":
            return self._run_threads()
        return asyncio.run(self._run_tasks())

    def _run_threads(self) -> Tally:
        engine = create_engine(self.url, **self.options)
        listen(engine)
        makers = [sessionmaker(engine) for _ in TRANSPORTS[self.driver]]
        for maker, transport in zip(makers, TRANSPORTS[self.driver], strict=True):
            enforce_row_security(
                maker,
                verifier=self.verifier,
                token=token.get,
                on_bind=on_bind,
                options=BindingOptions(transport=transport),
            )
            count_transactions(maker.class_, self.orders.sabotage)

        def work() -> Tally:
            tally = Tally()
            for chance in self._turns(tally):
                with self._faults_told(tally):
                    with chance.choice(makers)(info={"tally": tally}) as session:
                        self._play(session, chance, tally)
                    if chance.random() < LOOKS:
                        with engine.connect() as connection:
                            check_nothing_left(connection, chance, tally)
            return tally

        with ThreadPoolExecutor(AT_ONCE) as threads:
            tallies = [threads.submit(work) for _ in range(AT_ONCE)]
        engine.dispose()
        return sum((tally.result() for tally in tallies), Tally())

    async def _run_tasks(self) -> Tally:
        engine = create_async_engine(self.url, **self.options)
        listen(engine.sync_engine)
        makers = [async_sessionmaker(engine) for _ in TRANSPORTS[self.driver]]
        for maker, transport in zip(makers, TRANSPORTS[self.driver], strict=True):
            enforce_row_security(
                maker,
                verifier=self.verifier,
                token=ask,
                on_bind=on_bind,
                options=BindingOptions(transport=transport),
            )
            count_transactions(maker.kw["sync_session_class"], self.orders.sabotage)

        async def take(chance: Random, tally: Tally) -> None:
            async with chance.choice(makers)(info={"tally": tally}) as session:
                await session.run_sync(self._play, chance, tally)
            if chance.random() < LOOKS:
                async with engine.connect() as connection:
                    await connection.run_sync(check_nothing_left, chance, tally)

        async def work() -> Tally:
            tally = Tally()
            for chance in self._turns(tally):
                with self._faults_told(tally):
                    if self.orders.faults and chance.random() < CANCELLED:
                        await cancel(asyncio.create_task(take(chance, tally)), chance.random() * 0.01, tally)
                    else:
                        await take(chance, tally)
            return tally

        tallies = await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        await engine.dispose()
        return sum(tallies, Tally())

    def _turns(self, tally: Tally) -> Iterator[Random]:
        """What happens in a turn follows from the seed and its number; when it happens doesn't."""
        counted = 0
        while (number := self.orders.next_turn()) is not None:
            yield Random(self.orders.seed << 40 | number)
            transactions = tally["transactions", "bound"] + tally["transactions", "refused"]
            with self.orders.done:
                self.orders.done.value += transactions - counted
            counted = transactions

    def _play(self, session: Session, chance: Random, tally: Tally) -> None:
        number = chance.randrange(self.orders.people)
        turn = Turn(
            session,
            person(number),
            self.tokens[number],
            self.orders.people,
            chance,
            tally,
            direct=not self.orders.pgbouncer,
        )
        play(turn, faults=self.orders.faults)

    @contextmanager
    def _faults_told(self, tally: Tally) -> Iterator[None]:
        """Whatever else is raised shouldn't have been."""
        try:
            yield
        except Exception as error:
            if fault := fault_of(error):
                tally["fault", fault] += 1
                return
            tally["violation", type(error).__name__] += 1
            with self.orders.violations:
                self.orders.violations.value += 1
                if self.orders.violations.value <= REPORTED:
                    print(f"{self.driver}: {''.join(traceback.format_exception(error))}", file=sys.stderr)


async def cancel(task: asyncio.Task[None], after: float, tally: Tally) -> None:
    """Cancel *task* after so many seconds, unless it has ended by then."""
    timer = asyncio.get_running_loop().call_later(after, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        tally["fault", "task cancelled"] += 1
    finally:
        timer.cancel()


def report_to(orders: Orders) -> None:
    """In a new process: take *orders*."""
    global _orders
    _orders = orders
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent says when to stop
    # They tell of each connection that a fault has cost.
    for name in ("sqlalchemy.pool", "psycopg"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def work(driver: str, tokens: list[str]) -> Tally:
    """Take turns with *driver*, as ordered, where *tokens* are those of each person; what came of them."""
    return Worker(driver, _orders, tokens).run()
