"""Who runs a one-SELECT transaction as somebody, and how: plain SQLAlchemy, every way of ours, others.

Everybody sends the same SELECT, of all the notes there are, and must get the caller's one and no other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeAlias

from sqlalchemy import URL, Column, Connection, MetaData, Table, Text, create_engine, event, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.schema import ExecutableDDLElement

from sqla_rls import (
    BindingOptions,
    Caller,
    auth_uid,
    authenticated,
    crud_policy,
    enforce_row_security,
    identify,
)
from sqla_rls.driver.base import Transport
from sqla_rls.testing.postgres import Server

Maker: TypeAlias = sessionmaker[Session] | async_sessionmaker[AsyncSession]
#: ``prepare(maker)`` lets its sessions run as somebody, and returns what opens one.
Prepare: TypeAlias = Callable[[Maker], Callable[[Caller], Any]]

DRIVERS = ("psycopg", "psycopg_async", "asyncpg")
PEOPLE = [
    Caller(
        role="authenticated",
        subject=f"person_{number}",
        claims={
            "iss": "https://caller.example.com/api/v1/projects/0b3a76f1",
            "aud": "0b3a76f1-4dfe-4ab6-93ac-2e8d5d0d3f60",
            "email": f"person_{number}@example.com",
            "name": f"Person o'{number}",
            "org": {"id": "7d8f2d0e-6f1b-4a5e-8f0c-0a8a3c1f7c55", "role": "member"},
        },
    )
    for number in range(8)
]

_metadata = MetaData()
_notes = Table(
    "notes",
    _metadata,
    Column("user_id", Text),
    crud_policy(authenticated, read=auth_uid("user_id"), modify=False),
)
NOTES = select(_notes.c.user_id)

# "app" switches to the caller's role.  "plain" has that role, and the claims of whoever it connects as;
# the others log in as their documentation has it.
_LOGINS = """
DO $$ BEGIN
  CREATE ROLE bench_app LOGIN NOINHERIT PASSWORD 'bench';
  CREATE ROLE bench_plain LOGIN INHERIT PASSWORD 'bench';
  CREATE ROLE bench_other LOGIN PASSWORD 'bench';
EXCEPTION WHEN duplicate_object THEN END $$;
GRANT authenticated TO bench_app, bench_plain;
GRANT SELECT ON notes TO bench_other;
CREATE POLICY other ON notes TO bench_other
  USING ((SELECT nullif(current_setting('rls.user_id', true), '')) = user_id);
"""
_TENANT = """
DO $$ BEGIN CREATE ROLE tenant_{0} NOLOGIN; EXCEPTION WHEN duplicate_object THEN END $$;
GRANT tenant_{0} TO bench_other;
GRANT SELECT ON notes TO tenant_{0};
CREATE POLICY tenant_{0} ON notes TO tenant_{0}
  USING ((SELECT replace(current_user, 'tenant_', '')) = user_id);
"""


def create_database(server: Server, *statements: ExecutableDDLElement) -> str:
    """A database with a note of everybody's, made after *statements*, and who may log in; its name."""
    name = server.create_database()
    engine = create_engine(server.url(name))
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(statement)
    _metadata.create_all(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(_LOGINS)
        for person in PEOPLE:
            connection.execute(_notes.insert().values(user_id=person.subject))
            connection.exec_driver_sql(_TENANT.format(person.subject))
    engine.dispose()
    return name


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A driver, and a way to run as somebody; *round_trips* is what a transaction may spend."""

    driver: str
    transport: str
    round_trips: int
    prepare: Prepare
    login: str = "bench_app"
    autocommit: bool = False
    people: int = len(PEOPLE)

    def open(self, url: URL, pool_size: int = 1) -> Runner:
        options: dict[str, Any] = {"pool_size": pool_size, "max_overflow": 0}
        if self.autocommit:
            options["isolation_level"] = "AUTOCOMMIT"
        if self.login == "bench_plain":
            claims = PEOPLE[0].claims_json.replace("\\", "\\\\").replace(" ", "\\ ")
            options["connect_args"] = (
                {"server_settings": {"request.jwt.claims": PEOPLE[0].claims_json}}
                if self.driver == "asyncpg"
                else {"options": f"-c request.jwt.claims={claims}"}
            )
        url = url.set(drivername=f"postgresql+{self.driver}", username=self.login, password="bench")
        if self.driver == "asyncpg":
            url = url.update_query_dict({"ssl": "disable"})
        return (SyncRunner if self.driver == "psycopg" else AsyncRunner)(self, url, options)

    def callers(self) -> Sequence[Caller]:
        return PEOPLE[: 1 if self.login == "bench_plain" else self.people]


class Runner:
    """Runs transactions on an engine of its own."""

    def batch(self, transactions: int) -> tuple[list[float], float]:
        """The seconds that each took, and those of CPU that all took."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class SyncRunner(Runner):
    def __init__(self, contender: Contender, url: URL, options: dict[str, Any]) -> None:
        self._engine = create_engine(url, **options)
        self._open = contender.prepare(sessionmaker(self._engine))
        self._callers = contender.callers()

    def open_session(self, number: int) -> Any:
        """A session of a caller, without a transaction."""
        return self._open(self._callers[number % len(self._callers)])

    def transaction(self, number: int) -> None:
        caller = self._callers[number % len(self._callers)]
        with self._open(caller) as session:
            rows = session.scalars(NOTES).all()
            session.commit()
        _check(rows, caller)

    def batch(self, transactions: int) -> tuple[list[float], float]:
        taken = []
        cpu = time.process_time()
        for number in range(transactions):
            began = time.perf_counter()
            self.transaction(number)
            taken.append(time.perf_counter() - began)
        return taken, time.process_time() - cpu

    def close(self) -> None:
        self._engine.dispose()


class AsyncRunner(Runner):
    def __init__(self, contender: Contender, url: URL, options: dict[str, Any]) -> None:
        self._engine = create_async_engine(url, **options)
        self._open = contender.prepare(async_sessionmaker(self._engine))
        self._callers = contender.callers()
        self._loop = asyncio.Runner()

    def batch(self, transactions: int) -> tuple[list[float], float]:
        return self._loop.run(self._batch(transactions))

    async def _batch(self, transactions: int) -> tuple[list[float], float]:
        taken = []
        cpu = time.process_time()
        for number in range(transactions):
            began = time.perf_counter()
            await self._transaction(number)
            taken.append(time.perf_counter() - began)
        return taken, time.process_time() - cpu

    async def _transaction(self, number: int) -> None:
        caller = self._callers[number % len(self._callers)]
        async with self._open(caller) as session:
            rows = (await session.scalars(NOTES)).all()
            await session.commit()
        _check(rows, caller)

    def concurrent(self, tasks: int, transactions: int) -> None:
        """Run as many *tasks* at once, each of which runs its *transactions* one after the other."""
        self._loop.run(self._concurrent(tasks, transactions))

    async def _concurrent(self, tasks: int, transactions: int) -> None:
        async def work(task: int) -> None:
            for number in range(transactions):
                await self._transaction(task + number)

        async with asyncio.TaskGroup() as group:
            for task in range(tasks):
                group.create_task(work(task))

    def close(self) -> None:
        self._loop.run(self._engine.dispose())
        self._loop.close()


def _check(rows: Sequence[str], caller: Caller) -> None:
    if rows != [caller.subject]:
        raise SystemExit(f"{caller.subject} was shown the notes of {rows}")


def plain(maker: Maker) -> Callable[[Caller], Any]:
    return lambda caller: maker()


def ours(transport: Transport, *, signing_key: str | None = None, **options: Any) -> Prepare:
    """Row security enforced with *options*."""

    def prepare(maker: Maker) -> Callable[[Caller], Any]:
        enforce_row_security(
            maker, signing_key=signing_key, options=BindingOptions(transport=transport, **options)
        )

        def open_session(caller: Caller) -> Any:
            session = maker()
            identify(session, caller)
            return session

        return open_session

    return prepare


_SET_ROLE = text("SET LOCAL ROLE authenticated")
_SET_CLAIMS = text("SELECT set_config('request.jwt.claims', :claims, true)")


def two_statements(maker: Maker) -> Callable[[Caller], Any]:
    """What one writes without a library."""
    bound = type("Bound", (Session,), {})
    if isinstance(maker, sessionmaker):
        maker.class_ = bound
    else:
        maker.configure(sync_session_class=bound)

    @event.listens_for(bound, "after_begin")
    def bind(session: Session, transaction: object, connection: Connection) -> None:
        connection.execute(_SET_ROLE)
        connection.execute(_SET_CLAIMS, {"claims": session.info["caller"].claims_json})

    return lambda caller: maker(info={"caller": caller})


def rls(maker: Maker) -> Callable[[Caller], Any]:
    from pydantic import create_model

    context: Any = create_model("Context", user_id=(str, ...), __config__={"frozen": True})
    maker.class_ = import_module("rls.rls_session").RlsSession
    return lambda caller: maker(context=context(user_id=caller.subject))


def sqlalchemy_tenants(maker: Maker) -> Callable[[Caller], Any]:
    manager_class = import_module("sqlalchemy_tenants.managers").PostgresManager
    manager: Any = manager_class(schema_name="public", engine=maker.kw["bind"], session_maker=maker)
    return lambda caller: manager.new_tenant_session(caller.subject, create_if_missing=False)


def contenders(*, others: bool = True) -> dict[str, list[Contender]]:
    """By driver; plain SQLAlchemy comes first, and other packages last, if *others*."""

    def on(driver: str, *names: Transport) -> list[Contender]:
        spent = {"with_begin": 3, "pipeline": 2, "statement": 4}
        return [
            Contender(driver=driver, transport="plain", round_trips=3, prepare=plain, login="bench_plain"),
            *(
                Contender(
                    driver=driver, transport=transport, round_trips=spent[transport], prepare=ours(transport)
                )
                for transport in names
            ),
            Contender(
                driver=driver, transport="one-shot", round_trips=1, prepare=ours("auto"), autocommit=True
            ),
            Contender(driver=driver, transport="two statements", round_trips=5, prepare=two_statements),
        ]

    return {
        "psycopg": [*on("psycopg", "with_begin", "pipeline", "statement"), *(_others() if others else [])],
        "psycopg_async": on("psycopg_async", "with_begin", "pipeline", "statement"),
        "asyncpg": on("asyncpg", "with_begin", "pipeline", "statement"),
    }


def _others() -> list[Contender]:
    found = []
    for package, prepare in (("rls", rls), ("sqlalchemy-tenants", sqlalchemy_tenants)):
        try:
            transport = f"{package} {version(package)}"
        except PackageNotFoundError:
            print(f"{package} isn't installed, and so isn't measured")
            continue
        found.append(
            Contender(
                driver="psycopg", transport=transport, round_trips=4, prepare=prepare, login="bench_other"
            )
        )
    print('rlsalchemy isn\'t measured: it wants Python 3.14; like "statement" it binds in one SELECT')
    return found
