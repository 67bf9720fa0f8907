"""BEGIN and the binding ahead of asyncpg's own messages, and what comes instead of the expected answers."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
import pytest
from sqlalchemy import URL, Integer, bindparam, insert, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from sqla_rls import BindingOptions, Caller, enforce_row_security, identify
from sqla_rls.driver import asyncpg_pipeline as pipeline
from sqla_rls.driver.base import Transport
from sqla_rls.exc import BindingError, ExpiredToken, TransactionRefused
from tests.support.clocks import Clocks
from tests.support.sessions import ANYTHING, CALLER, TASKS, Todo
from tests.support.suite import table

pytestmark = [pytest.mark.every_postgres, pytest.mark.sqlalchemy]

ALICE = ("authenticated", "alice")
BACKEND = text("SELECT pg_backend_pid()")
NUMBER = text("SELECT :number + pg_backend_pid() * 0").bindparams(bindparam("number", type_=Integer))
SLEEP = text("SELECT pg_sleep(CAST(:seconds AS float))")
PIPELINE = BindingOptions(transport="pipeline")
NOBODY = Caller(role="nobody_has_it", subject="alice")

Maker = async_sessionmaker[AsyncSession]
Open = Callable[..., Maker]


@pytest.fixture
def open_pool(url: URL, runner: asyncio.Runner) -> Iterator[Open]:
    """``open_pool(options, **connect_args)``: a factory of sessions on a pool of one connection."""
    engines = []

    def opened(options: BindingOptions = PIPELINE, **connect_args: Any) -> Maker:
        engine = create_async_engine(
            url.set(drivername="postgresql+asyncpg").update_query_dict({"ssl": "disable"}),
            connect_args=connect_args,
            pool_size=1,
            max_overflow=0,
        )
        engines.append(engine)
        maker = async_sessionmaker(engine)
        enforce_row_security(maker, options=options)
        return maker

    yield opened
    for engine in engines:
        runner.run(engine.dispose())


async def scalar(maker: Maker, caller: Caller, statement: Any, **values: Any) -> Any:
    async with maker() as session:
        identify(session, caller)
        found = await session.scalar(statement, values)
        await session.commit()
    return found


async def tasks(maker: Maker, caller: Caller) -> object:
    async with maker() as session:
        identify(session, caller)
        found = (await session.scalars(TASKS)).all()
        await session.commit()
    return found


async def test_a_statement_that_asyncpg_refuses_leaves_the_transaction_bound(
    runner: asyncio.Runner, open_pool: Open, todos: None, alice: Caller, bob: Caller
) -> None:
    maker = open_pool()
    backend = await scalar(maker, alice, BACKEND)
    assert await scalar(maker, alice, NUMBER, number=1) == 1  # from now on it is prepared
    async with maker() as session:
        identify(session, alice)
        for _ in range(2):
            with pytest.raises(DBAPIError, match="out of int32 range"):
                await session.scalar(NUMBER, {"number": 2**40})
            assert (await session.execute(CALLER)).one() == ALICE
            assert await session.scalar(NUMBER, {"number": 2}) == 2
        await session.commit()
        with pytest.raises(DBAPIError, match="out of int32 range"):
            await session.scalar(NUMBER, {"number": 2**40})
    assert await tasks(maker, bob) == ["bob's"]
    assert await scalar(maker, bob, BACKEND) == backend


@table("then", ["stream", "executemany"])
async def test_a_new_statement_that_asyncpg_refuses_leaves_a_transaction_that_asyncpg_knows(
    runner: asyncio.Runner, open_pool: Open, todos: None, alice: Caller, then: str
) -> None:
    maker = open_pool()
    assert await tasks(maker, alice) == ["alice's"]  # the checks of the pool's first transaction are done
    async with maker() as session:
        identify(session, alice)
        with pytest.raises(DBAPIError, match="out of int32 range"):
            await session.scalar(NUMBER, {"number": 2**40})
        if then == "stream":
            assert [row.task async for row in await session.stream(TASKS)] == ["alice's"]
        else:
            added = text("INSERT INTO todos (id, task) VALUES (:number, 'x')")
            added = added.bindparams(bindparam("number", type_=Integer))
            # More than asyncpg sends at once, so that it has sent some when it finds the wrong one.
            values = [{"number": number} for number in (*range(1000, 8000), 2**40)]
            with pytest.raises(DBAPIError, match="out of int32 range"):
                await session.execute(added, values)
        assert (await session.execute(CALLER)).one() == ALICE


@pytest.mark.parametrize("is_prepared", [True, False])
async def test_a_refused_binding_skips_the_statement_and_costs_no_connection(
    runner: asyncio.Runner, open_pool: Open, todos: None, alice: Caller, bob: Caller, is_prepared: bool
) -> None:
    maker = open_pool()
    another = insert(Todo).values(task="another")
    backend = await scalar(maker, bob, BACKEND)
    if is_prepared:
        async with maker() as session:
            identify(session, alice)
            await session.execute(another)
            await session.rollback()
    for _ in range(2):
        async with maker() as session:
            identify(session, NOBODY)
            with pytest.raises(BindingError, match="no such role"):
                await session.execute(another)
            with pytest.raises(SQLAlchemyError):
                await session.execute(another)
            await session.rollback()
    assert await tasks(maker, alice) == ["alice's"]
    assert await tasks(maker, bob) == ["bob's"]
    assert await scalar(maker, bob, BACKEND) == backend


@pytest.mark.exhaustive
async def test_a_statement_without_a_name_never_is_that_of_the_binding(
    runner: asyncio.Runner, open_pool: Open, todos: None, alice: Caller, bob: Caller
) -> None:
    maker = open_pool(prepared_statement_name_func=str)
    # As many parameters as the binding has, in its order: the first one would be the role.
    values = text("SELECT " + ", ".join(f"CAST(:value_{number} AS text)" for number in range(5)))
    roles = {f"value_{number}": "anonymous" for number in range(5)}
    for _ in range(2):
        async with maker() as session:
            identify(session, alice)
            assert (await session.execute(values, roles)).one() == ("anonymous",) * 5
            assert (await session.execute(CALLER)).one() == ALICE
        assert await tasks(maker, bob) == ["bob's"]


@pytest.mark.exhaustive
async def test_a_refused_binding_ahead_of_a_statement_that_asyncpg_refuses_is_the_error(
    runner: asyncio.Runner, open_pool: Open, todos: None, alice: Caller, bob: Caller
) -> None:
    maker = open_pool()
    backend = await scalar(maker, bob, BACKEND)
    assert await scalar(maker, alice, NUMBER, number=1) == 1
    async with maker() as session:
        identify(session, NOBODY)
        with pytest.raises(BindingError, match="no such role") as refused:
            await session.scalar(NUMBER, {"number": 2**40})
        assert isinstance(refused.value.__cause__, asyncpg.DataError)
        with pytest.raises(SQLAlchemyError):
            await session.execute(ANYTHING)
    assert await tasks(maker, bob) == ["bob's"]
    assert await scalar(maker, bob, BACKEND) == backend


@pytest.mark.exhaustive
async def test_a_caller_who_expires_costs_no_connection(
    runner: asyncio.Runner, open_pool: Open, alice: Caller, clocks: Clocks
) -> None:
    maker = open_pool()
    backend = await scalar(maker, alice, BACKEND)
    async with maker() as session:
        identify(session, Caller(role="authenticated", subject="alice", expires_at=time.time() + 60))
        await session.connection()
        clocks.ahead = 60
        for statement in (BACKEND, CALLER):
            with pytest.raises(ExpiredToken):
                await session.execute(statement)
    assert await scalar(maker, alice, BACKEND) == backend


@pytest.mark.exhaustive
async def test_a_statement_without_its_begin_is_refused(
    runner: asyncio.Runner, open_pool: Open, todos: None, alice: Caller, bob: Caller
) -> None:
    maker = open_pool()
    async with maker() as session:
        identify(session, alice)
        with pytest.raises(DBAPIError, match="syntax error"):
            await session.execute(text("SELEC 1"))
        with pytest.raises(DBAPIError, match="aborted"):
            await session.execute(TASKS)
        await session.rollback()
        raw: Any = (await (await session.connection()).get_raw_connection()).driver_connection
        # Nothing was executed, so the server has seen no BEGIN.
        await session.rollback()
        identify(session, bob)
        assert (await session.scalars(TASKS)).all() == ["bob's"]
        await raw.execute("COMMIT")
        for _ in range(2):
            with pytest.raises(TransactionRefused, match="ended the transaction"):
                await session.execute(TASKS)


@pytest.mark.exhaustive
@pytest.mark.parametrize("is_prepared", [True, False])
@pytest.mark.parametrize("way", ["cancelled", "timed out"])
async def test_nobody_gets_the_answer_to_a_first_statement_that_was_given_up(
    runner: asyncio.Runner,
    open_pool: Open,
    todos: None,
    alice: Caller,
    bob: Caller,
    is_prepared: bool,
    way: str,
) -> None:
    maker = open_pool(**({"command_timeout": 0.3} if way == "timed out" else {}))
    if is_prepared:
        await scalar(maker, alice, SLEEP, seconds=0)
    for _ in range(2):
        async with maker() as session:
            identify(session, alice)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3 if way == "cancelled" else None):
                    await session.execute(SLEEP, {"seconds": 30})
            if way == "timed out":
                await session.rollback()
                assert (await session.execute(CALLER)).one() == ALICE
        assert await tasks(maker, bob) == ["bob's"]


@pytest.mark.exhaustive
@pytest.mark.parametrize("is_prepared", [True, False])
async def test_an_error_in_place_of_the_answer_costs_that_connection(
    runner: asyncio.Runner,
    open_pool: Open,
    todos: None,
    alice: Caller,
    bob: Caller,
    is_prepared: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    maker = open_pool()
    backend = await scalar(maker, alice, BACKEND)
    prepare = asyncpg.Connection.prepare

    async def interrupted(connection: Any, *args: Any, **kw: Any) -> Any:
        await prepare(connection, *args, **kw)
        raise KeyboardInterrupt

    def expect(self: pipeline.Answers, answer: bytes) -> None:
        raise KeyboardInterrupt

    async with maker() as session:
        identify(session, alice)
        with monkeypatch.context() as patch:
            if is_prepared:
                patch.setattr(pipeline.Answers, "expect", expect)
            else:
                patch.setattr(asyncpg.Connection, "prepare", interrupted)
            with pytest.raises(KeyboardInterrupt):
                await session.execute(BACKEND if is_prepared else TASKS)
    assert await tasks(maker, bob) == ["bob's"]
    assert await scalar(maker, bob, BACKEND) != backend


async def _first(session: AsyncSession, way: str) -> None:
    """Let the transaction of *session* begin in one of the ways that no message goes ahead of."""
    if way == "stream":
        assert [row.task async for row in await session.stream(TASKS)] == ["alice's"]
    elif way == "executemany":
        await session.execute(text("INSERT INTO todos (task) VALUES (:task)"), [{"task": "x"}, {"task": "y"}])
    else:
        raw: Any = (await (await session.connection()).get_raw_connection()).driver_connection
        async with raw.transaction():
            assert await raw.fetchval("SELECT auth.user_id()") == "alice"


@pytest.mark.exhaustive
@pytest.mark.parametrize("encoding", ["UTF8", "LATIN1"])
@pytest.mark.parametrize("way", ["stream", "executemany", "transaction"])
async def test_the_claims_are_parameters_whatever_comes_first(
    runner: asyncio.Runner, open_pool: Open, todos: None, alice: Caller, way: str, encoding: str
) -> None:
    maker = open_pool(server_settings={"client_encoding": encoding})
    texts: list[str] = []
    async with maker() as session:
        identify(session, alice)
        await session.execute(TASKS)
        raw: Any = (await (await session.connection()).get_raw_connection()).driver_connection
        await session.rollback()
        raw.add_query_logger(lambda record: texts.append(record.query))
        for _ in range(2):
            await _first(session, way)
            await session.rollback()
        await asyncio.sleep(0)
    assert texts
    assert not [sent for sent in texts if "alice" in sent]


@pytest.mark.exhaustive
@pytest.mark.parametrize("way", ["stream", "executemany", "transaction"])
async def test_a_refused_binding_is_the_error_whatever_comes_first(
    runner: asyncio.Runner, open_pool: Open, todos: None, alice: Caller, bob: Caller, way: str
) -> None:
    maker = open_pool()
    backend = await scalar(maker, bob, BACKEND)
    for _ in range(2):
        async with maker() as session:
            identify(session, NOBODY)
            with pytest.raises(BindingError, match="no such role") as refused:
                await _first(session, way)
            assert isinstance(refused.value.__cause__, asyncpg.InvalidParameterValueError)
            with pytest.raises(SQLAlchemyError):
                await session.execute(ANYTHING)
            await session.rollback()
        async with maker() as session:
            identify(session, alice)
            await _first(session, way)
        assert await tasks(maker, bob) == ["bob's"]
    if way != "transaction":
        assert await scalar(maker, bob, BACKEND) == backend


@pytest.mark.exhaustive
@pytest.mark.parametrize("is_known", [True, False])
async def test_a_begin_of_asyncpg_that_times_out_costs_its_connection(
    runner: asyncio.Runner, open_pool: Open, todos: None, alice: Caller, bob: Caller, is_known: bool
) -> None:
    maker = open_pool(command_timeout=0.2)
    backend = await scalar(maker, bob, BACKEND)
    if is_known:
        async with maker() as session:
            identify(session, alice)
            await _first(session, "transaction")
    async with maker() as session:
        identify(session, alice)
        raw: Any = (await (await session.connection()).get_raw_connection()).driver_connection
        os.kill(backend, signal.SIGSTOP)
        try:
            with pytest.raises(TimeoutError):
                async with raw.transaction():
                    pass
        finally:
            os.kill(backend, signal.SIGCONT)
        with pytest.raises((SQLAlchemyError, asyncpg.InterfaceError)):
            await session.execute(ANYTHING)
    assert await tasks(maker, bob) == ["bob's"]
    assert await scalar(maker, bob, BACKEND) != backend


@pytest.mark.exhaustive
async def test_two_statements_at_once_read_nothing_of_anybody_else(
    runner: asyncio.Runner, open_pool: Open, todos: None, alice: Caller, bob: Caller
) -> None:
    maker = open_pool()
    assert await tasks(maker, alice) == ["alice's"]
    async with maker() as session:
        identify(session, bob)
        raw: Any = (await (await session.connection()).get_raw_connection()).driver_connection
        await session.rollback()
        # As of an application that keeps a connection that it has returned.
        slow = asyncio.create_task(raw.fetch("SELECT 'slow', pg_sleep(0.2)"))
        await asyncio.sleep(0)
        with pytest.raises((SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError)):
            await session.scalars(TASKS)
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
            await slow
    assert await tasks(maker, bob) == ["bob's"]


@pytest.mark.exhaustive
async def test_a_session_joins_no_transaction_that_a_kept_connection_has_begun(
    runner: asyncio.Runner, open_pool: Open, todos: None, alice: Caller, bob: Caller
) -> None:
    maker = open_pool()
    assert await tasks(maker, alice) == ["alice's"]
    async with maker() as session:
        identify(session, alice)
        raw: Any = (await (await session.connection()).get_raw_connection()).driver_connection
    # As of an application that keeps a connection that it has returned.
    begin = asyncio.create_task(raw.execute("BEGIN"))
    await asyncio.sleep(0)
    async with maker() as session:
        identify(session, bob)
        await session.connection()
        await begin
        with pytest.raises(DBAPIError, match="manually started transaction"):
            await session.execute(TASKS)
    assert await tasks(maker, bob) == ["bob's"]


@pytest.mark.exhaustive
@pytest.mark.parametrize("transport", ["pipeline", "with_begin"])
async def test_nothing_begins_after_a_rollback_during_discard_all(
    runner: asyncio.Runner, open_pool: Open, todos: None, alice: Caller, transport: Transport
) -> None:
    maker = open_pool(options=BindingOptions(transport=transport, reset="all"))
    assert await tasks(maker, Caller(role="authenticated", subject="bob")) == ["bob's"]
    async with maker() as session:
        identify(session, alice)
        connection = await session.connection()
        raw: Any = (await connection.get_raw_connection()).driver_connection
        added = connection.execute(insert(Todo), [{"task": "another"}, {"task": "one more"}])
        execution = asyncio.create_task(added)
        while raw.last_discard_key is not None:
            await asyncio.sleep(0)
        await connection.rollback()
        with pytest.raises((TransactionRefused, DBAPIError)):
            await execution
        assert not raw.is_closed()
        assert not raw.is_in_transaction()
    assert await tasks(maker, alice) == ["alice's"]


@pytest.mark.exhaustive
async def test_notices_come_between_the_answers(
    runner: asyncio.Runner, open_pool: Open, todos: None, alice: Caller
) -> None:
    maker = open_pool(server_settings={"client_min_messages": "debug5"})
    notices: list[Any] = []
    async with maker() as session:
        identify(session, alice)
        await session.execute(TASKS)
        raw: Any = (await (await session.connection()).get_raw_connection()).driver_connection
        raw.add_log_listener(lambda connection, message: notices.append(message))
        await session.commit()
        for _ in range(3):
            notices.clear()
            assert (await session.scalars(TASKS)).all() == ["alice's"]
            await session.commit()
            await asyncio.sleep(0)
            assert any("StartTransaction" in str(notice) for notice in notices)


@pytest.mark.exhaustive
async def test_the_types_that_asyncpg_asks_for_are_asked_for_by_the_caller(
    runner: asyncio.Runner, open_pool: Open, todos: None, alice: Caller
) -> None:
    maker = open_pool()
    row = text("SELECT todos, current_user::text, auth.user_id() FROM todos")
    async with maker() as session:
        identify(session, alice)
        todo, *who = (await session.execute(row)).one()
        assert ("alice's" in tuple(todo), *who) == (True, *ALICE)


@pytest.mark.exhaustive
def test_it_works_on_the_loop_of_uvloop(url: URL, todos: None, alice: Caller, bob: Caller) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def take_turns() -> None:
        engine = create_async_engine(
            url.set(drivername="postgresql+asyncpg").update_query_dict({"ssl": "disable"}),
            pool_size=1,
            max_overflow=0,
        )
        maker = async_sessionmaker(engine)
        enforce_row_security(maker, options=BindingOptions(transport="pipeline"))
        backend = await scalar(maker, alice, BACKEND)
        for caller in (alice, bob, alice):
            assert await scalar(maker, caller, NUMBER, number=1) == 1
            with pytest.raises(DBAPIError, match="out of int32 range"):
                await scalar(maker, caller, NUMBER, number=2**40)
            with pytest.raises(BindingError, match="no such role"):
                await scalar(maker, NOBODY, NUMBER, number=1)
            assert await tasks(maker, caller) == [f"{caller.subject}'s"]
        assert await scalar(maker, bob, BACKEND) == backend
        await engine.dispose()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(take_turns())


# The messages


class Recorder:
    """A transport and a protocol that note what they get."""

    def __init__(self) -> None:
        self.protocol: Any = self
        self.got: list[bytes] = []
        self.is_aborted = False

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def abort(self) -> None:
        self.is_aborted = True

    def data_received(self, data: bytes) -> None:
        self.got.append(data)


EXPECTED = pipeline.answered(b"BEGIN") + pipeline.answered(b"RESET") + pipeline.answered(b"SELECT 1", b"0")
NOTICE = b"N\0\0\0\x0cSNOTICE\0"
STATUS = b"S\0\0\0\x0aa\0on\0\0"
ERROR = b"E\0\0\0\x13SERROR\0C22023\0\0"
ROWS = b"2\0\0\0\x04C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05T"
REFUSED = b"Z\0\0\0\x05E"


def received(pieces: list[bytes], *, is_synced: bool = False) -> tuple[Recorder, pipeline.Answers]:
    recorder = Recorder()
    answers = pipeline.Answers(recorder, recorder)
    answers.expect(EXPECTED)
    if is_synced:
        answers.expect_ready()
    for piece in pieces:
        recorder.protocol.data_received(piece)
    return recorder, answers


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """The pieces in which *data* may come."""
    yield from ([data[:end], data[end:]] for end in range(1, len(data)))
    for size in (1, 2, 3, 7, len(data)):
        yield [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.one_postgres
def test_asyncpg_gets_what_follows_the_expected_answers_however_they_come() -> None:
    begun = pipeline.answered(b"BEGIN")
    for data, expected in (
        (EXPECTED + ROWS, ROWS),
        (EXPECTED + NOTICE + ROWS, NOTICE + ROWS),
        (NOTICE + STATUS + EXPECTED + ROWS, NOTICE + STATUS + ROWS),
        (begun + NOTICE + EXPECTED[len(begun) :] + ROWS, NOTICE + ROWS),
        (ERROR + REFUSED, ERROR + REFUSED),
        (begun + NOTICE + ERROR + REFUSED, NOTICE + ERROR + REFUSED),
    ):
        for pieces in cuts(data):
            recorder, answers = received(pieces)
            assert (b"".join(recorder.got), recorder.is_aborted) == (expected, False)
            assert answers.refusal == ("22023" if ERROR in data else None)


@pytest.mark.one_postgres
@pytest.mark.exhaustive
def test_the_answer_to_a_sync_comes_ahead_of_the_next_answers() -> None:
    for data, expected in (
        (pipeline.IDLE + EXPECTED + ROWS, ROWS),
        (STATUS + pipeline.IDLE + NOTICE + EXPECTED + ROWS, STATUS + NOTICE + ROWS),
        (pipeline.IDLE + ERROR + REFUSED, ERROR + REFUSED),
    ):
        for end in range(1, len(pipeline.IDLE) + 1):
            for pieces in cuts(data[end:]):
                recorder = Recorder()
                answers = pipeline.Answers(recorder, recorder)
                answers.expect(pipeline.IDLE)
                recorder.protocol.data_received(data[:end])
                answers.expect(EXPECTED)
                for piece in pieces:
                    recorder.protocol.data_received(piece)
                assert (b"".join(recorder.got), recorder.is_aborted) == (expected, False)
                assert answers.refusal == ("22023" if ERROR in data else None)


@pytest.mark.one_postgres
def test_what_went_ahead_alone_ends_with_a_sync() -> None:
    begun = pipeline.answered(b"BEGIN")
    for data, expected in (
        (EXPECTED + pipeline.READY + ROWS, ROWS),
        (EXPECTED + STATUS + pipeline.READY + ROWS, STATUS + ROWS),
        (begun + ERROR + STATUS + REFUSED + ROWS, STATUS + ROWS),
    ):
        for pieces in cuts(data):
            recorder, answers = received(pieces, is_synced=True)
            assert (b"".join(recorder.got), recorder.is_aborted) == (expected, False)
            assert answers.refusal == ("22023" if ERROR in data else None)


@pytest.mark.one_postgres
def test_another_answer_closes_the_connection() -> None:
    begun, ready = pipeline.answered(b"BEGIN"), b"Z\0\0\0\x05I"
    for data in (
        *(ready, pipeline.READY, ROWS, begun + pipeline.READY, begun + begun, EXPECTED[:-1] + b"\1"),
        *(pipeline.answered(b"SELECT 1", b"0"), EXPECTED.replace(b"SELECT 1", b"SELECT 2")),
    ):
        for pieces in cuts(data):
            recorder, _ = received(pieces)
            assert (recorder.got, recorder.is_aborted) == ([], True)
