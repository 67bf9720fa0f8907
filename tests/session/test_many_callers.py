"""Callers in turns, in threads, and on connections that break."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from sqlalchemy import URL, Engine, create_engine, func, select, update
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from sqla_rls import Caller, enforce_row_security, identify
from sqla_rls.exc import CallerRequired
from tests.support.sessions import ANYTHING, CALLER, NOBODY, TASKS, Sessions, Todo, kill

pytestmark = pytest.mark.sqlalchemy


def test_who_loses_the_connection_is_bound_on_the_next(
    admin: Engine, sessions: Sessions, todos: None, alice: Caller
) -> None:
    with sessions(alice) as session:
        kill(admin, session.scalar(select(func.pg_backend_pid())))
        for _ in range(2):
            with pytest.raises(SQLAlchemyError):
                session.execute(ANYTHING)
        session.rollback()
        assert session.scalars(TASKS).all() == ["alice's"]


@pytest.mark.exhaustive
def test_who_gets_a_dead_connection_is_bound_on_the_next(
    admin: Engine, sessions: Sessions, todos: None, alice: Caller, bob: Caller
) -> None:
    with sessions(alice) as session:
        backend = session.scalar(select(func.pg_backend_pid()))
    kill(admin, backend)
    with sessions(bob) as session:
        with pytest.raises(OperationalError):
            session.execute(ANYTHING)
        with pytest.raises(SQLAlchemyError):
            session.execute(ANYTHING)
        session.rollback()
        assert session.scalars(TASKS).all() == ["bob's"]


@pytest.mark.exhaustive
def test_two_hundred_callers_in_turns_on_one_connection(sessions: Sessions, todos: None) -> None:
    for number in range(200):
        name = ("alice", "bob", "carol")[number % 3]
        with sessions(Caller(role="authenticated", subject=name)) as session:
            assert session.scalars(select(Todo.user_id)).all() == [name] * (name != "carol")
            if number % 2:
                session.commit()


@pytest.mark.exhaustive
def test_threads_do_not_see_each_others_rows(url: URL, admin: Engine) -> None:
    people = [f"user {number}" for number in range(5)]
    with Session(admin) as session:
        session.add_all([Todo(task="x", user_id=name) for name in people])
        session.commit()
    engine = create_engine(url, pool_size=3, max_overflow=0)
    maker = sessionmaker(engine)
    enforce_row_security(maker)

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(50):
            name = chance.choice(people)
            with maker() as session, suppress(ZeroDivisionError):
                if chance.random() < 0.1:
                    with pytest.raises(CallerRequired):
                        session.execute(ANYTHING)
                    continue
                identify(session, Caller(role="authenticated", subject=name))
                assert session.scalars(select(Todo.user_id)).all() == [name]
                session.execute(update(Todo).values(task=name))
                match chance.randrange(4):
                    case 0:
                        session.commit()
                    case 1:
                        session.rollback()
                    case 2:
                        raise ZeroDivisionError
                    case _:
                        session.invalidate()

    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(work, seed) for seed in range(8)]:
            done.result()
    connections = [engine.connect() for _ in range(3)]
    assert [connection.execute(CALLER).one() for connection in connections] == [NOBODY] * 3
    for connection in connections:
        connection.close()
    engine.dispose()
    with admin.connect() as connection:
        assert connection.scalar(select(func.count()).where(Todo.task.notin_(["x", Todo.user_id]))) == 0
