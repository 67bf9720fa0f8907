"""Every way to run SQL in a session, and each bind of it, is the caller's."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import URL, Engine, create_engine, insert, select
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session, selectinload, sessionmaker
from sqlalchemy.pool import NullPool

from sqla_rls import BindingOptions, Caller, enforce_row_security, identify
from sqla_rls.exc import CallerRequired
from sqla_rls.testing.postgres import Server
from tests.support.sessions import (
    CALLER,
    NOBODY,
    TASKS,
    UNTOUCHED,
    Document,
    Sessions,
    Step,
    Todo,
    all_todos,
    assert_refused,
    bindings,
    statements_of,
)
from tests.support.suite import table

pytestmark = pytest.mark.sqlalchemy


def test_core_statements_run_as_the_caller(sessions: Sessions, todos: None, alice: Caller) -> None:
    with sessions(alice) as session:
        connection = session.connection()
        assert connection.scalars(TASKS).all() == ["alice's"]
        connection.execute(insert(Todo), [{"task": "b"}, {"task": "c"}])
        assert connection.exec_driver_sql("SELECT task FROM todos ORDER BY id").scalars().all() == [
            "alice's",
            "b",
            "c",
        ]


@pytest.mark.exhaustive
def test_a_trigger_has_the_role_of_the_caller_as_current_user(
    admin: Engine, url: URL, sessions: Sessions, alice: Caller
) -> None:
    """docs/guide/adopting.md says so: a trigger of an older app has the login role."""
    with admin.begin() as connection:
        for statement in (
            (
                "CREATE FUNCTION who() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.task := "
                "concat_ws(' ', current_user, session_user, auth.user_id()); RETURN NEW; END $$"
            ),
            "CREATE TRIGGER who BEFORE INSERT ON todos FOR EACH ROW EXECUTE FUNCTION who()",
        ):
            connection.exec_driver_sql(statement)

    with sessions(alice) as session:
        written = session.scalar(insert(Todo).returning(Todo.task), {"task": "hers"})

    assert written == f"authenticated {url.username} alice"


@pytest.mark.exhaustive
@pytest.mark.parametrize("count", [3, 3000])
def test_bulk_inserts_are_ones_own(admin: Engine, sessions: Sessions, alice: Caller, count: int) -> None:
    rows = [{"task": f"{number}"} for number in range(count)]
    with sessions(alice) as session:
        session.execute(insert(Todo), rows)
        returned = session.scalars(insert(Todo).returning(Todo.user_id), rows).all()
        session.bulk_save_objects([Todo(**row) for row in rows])
        session.add_all([Todo(**row) for row in rows])
        session.commit()
    assert returned == ["alice"] * count
    assert [user_id for user_id, _ in all_todos(admin)] == ["alice"] * count * 4


@pytest.mark.exhaustive
def test_bulk_inserts_in_the_name_of_another_are_refused_as_a_whole(
    admin: Engine, sessions: Sessions, bob: Caller
) -> None:
    rows = [{"task": "x", "user_id": user_id} for user_id in ("bob", "bob", "alice")]
    with sessions(bob) as session, pytest.raises(ProgrammingError, match="row-level security"):
        session.execute(insert(Todo), rows)
    assert all_todos(admin) == []


@pytest.mark.exhaustive
def test_streams_hold_ones_own_rows(admin: Engine, sessions: Sessions, alice: Caller) -> None:
    with Session(admin) as session:
        session.add_all([Todo(task="x", user_id=name) for name in ("alice", "bob") * 100])
        session.commit()
    with sessions(alice) as session:
        stream = session.scalars(select(Todo), execution_options={"yield_per": 7})
        assert [todo.user_id for todo in stream] == ["alice"] * 100


@pytest.mark.exhaustive
def test_related_rows_are_ones_own(sessions: Sessions, todos: None, admin: Engine, alice: Caller) -> None:
    with Session(admin) as session:
        alices = session.scalars(select(Todo).where(Todo.user_id == "alice")).one()
        alices.steps.append(Step(user_id="bob", what="bob's, on alice's"))
        session.commit()
    with sessions(alice) as session:
        todo = session.scalars(select(Todo).options(selectinload(Todo.steps))).one()
        assert [step.what for step in todo.steps] == ["alice's step"]


@table("mode", ["conditional_savepoint", "create_savepoint", "rollback_only"])
def test_a_session_may_join_a_transaction(
    pool: Engine, admin: Engine, todos: None, alice: Caller, bob: Caller, mode: Any
) -> None:
    maker = sessionmaker(join_transaction_mode=mode)
    enforce_row_security(maker)
    with pool.connect() as connection:
        transaction = connection.begin()
        for caller in (alice, bob, alice):
            with maker(bind=connection) as session:
                identify(session, caller)
                session.add(Todo(task="joined"))
                session.commit()
                assert set(session.scalars(select(Todo.user_id))) == {caller.subject}
                session.commit()
        with maker(bind=connection) as session:
            assert_refused(session, CallerRequired)
        transaction.rollback()
        assert connection.execute(CALLER).one() == NOBODY
    assert all_todos(admin) == UNTOUCHED


def test_a_session_may_take_over_a_transaction(
    pool: Engine, admin: Engine, alice: Caller, bob: Caller
) -> None:
    maker = sessionmaker(join_transaction_mode="control_fully")
    enforce_row_security(maker)
    with pool.connect() as connection:
        connection.begin()
        with maker(bind=connection) as session:
            for caller in (alice, bob):
                identify(session, caller)
                session.add(Todo(task="joined"))
                session.commit()
        assert connection.execute(CALLER).one() == NOBODY
    assert all_todos(admin) == [("alice", "joined"), ("bob", "joined")]


@pytest.mark.exhaustive
def test_every_database_of_a_session_is_bound(
    server: Server, template: str, url: URL, pool: Engine, todos: None, alice: Caller
) -> None:
    other = create_engine(url.set(database=server.create_database(template=template)), poolclass=NullPool)
    sent = statements_of(pool), statements_of(other)
    maker = sessionmaker(pool, binds={Document: other})
    enforce_row_security(maker, options=BindingOptions(transport="statement"))
    with maker() as session:
        identify(session, alice)
        assert session.scalars(TASKS).all() == ["alice's"]
        assert session.scalars(select(Document.title)).all() == []
        for bind in (pool, other):
            caller = session.execute(CALLER, bind_arguments={"bind": bind}).one()
            assert caller == ("authenticated", "alice")
        assert session.scalars(TASKS, bind_arguments={"bind": other}).all() == []
    assert [bindings(one) for one in sent] == [1, 1]
    server.drop_database(str(other.url.database))
