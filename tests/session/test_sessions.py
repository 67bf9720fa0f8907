"""What a person may do through a session, and that nobody gets at what is another's."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import suppress
from itertools import product
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, delete, insert, select, text, update
from sqlalchemy.exc import (
    PendingRollbackError,
    ProgrammingError,
    SAWarning,
)
from sqlalchemy.orm import Session, sessionmaker

from sqla_rls import Caller, auth, enforce_row_security, identify
from sqla_rls.exc import CallerChanged, CallerRequired, TransactionInProgress, TransactionRefused
from tests.support.sessions import (
    ALICE_OF_MANY_GROUPS,
    ANYTHING,
    CALLER,
    GROUPS,
    TASKS,
    UNTOUCHED,
    Document,
    Notice,
    Score,
    Sessions,
    Todo,
    all_todos,
    assert_refused,
    bindings,
    by_statement,
    statements_of,
)

pytestmark = pytest.mark.sqlalchemy


# One's own rows, and nobody else's


def test_a_todo_belongs_to_who_adds_it(sessions: Sessions, alice: Caller) -> None:
    with sessions(alice) as session:
        todo = Todo(task="buy milk")
        session.add(todo)
        session.commit()
        assert todo.user_id == "alice"
        assert session.scalars(TASKS).all() == ["buy milk"]


@pytest.mark.exhaustive
def test_a_session_that_is_dropped_gives_its_connection_back(
    pool: Engine, sessions: Sessions, alice: Caller
) -> None:
    session = sessions(alice)
    session.execute(ANYTHING)
    del session
    gc.collect()
    # The pool has one connection.
    with sessions(alice) as another:
        assert another.execute(CALLER).one() == ("authenticated", "alice")


def test_bob_does_not_see_what_alice_wrote(sessions: Sessions, alice: Caller, bob: Caller) -> None:
    with sessions(alice) as session:
        session.add(Todo(task="buy milk"))
        session.commit()
    with sessions(bob) as session:
        assert session.scalars(TASKS).all() == []


@pytest.mark.exhaustive
def test_alice_may_change_and_delete_her_own(
    admin: Engine, sessions: Sessions, todos: None, alice: Caller
) -> None:
    with sessions(alice) as session:
        todo = session.scalars(select(Todo)).one()
        todo.task = "changed"
        session.commit()
        assert all_todos(admin) == [("bob", "bob's"), ("alice", "changed")][::-1]
        session.delete(todo)
        session.commit()
    assert all_todos(admin) == [("bob", "bob's")]


def test_bob_cannot_change_or_delete_what_is_alices(
    admin: Engine, sessions: Sessions, todos: None, bob: Caller
) -> None:
    alices = Todo.user_id == "alice"
    with sessions(bob) as session:
        changed = session.scalars(update(Todo).values(task="bob's").returning(Todo.user_id)).all()
        assert changed == ["bob"]
        assert session.scalars(update(Todo).where(alices).values(task="x").returning(Todo.id)).all() == []
        assert session.scalars(delete(Todo).where(alices).returning(Todo.id)).all() == []
        session.commit()
    assert all_todos(admin) == UNTOUCHED


@pytest.mark.parametrize(
    "write",
    [insert(Todo).values(user_id="alice", task="forged"), update(Todo).values(user_id="alice")],
    ids=["insert", "update"],
)
def test_bob_cannot_write_in_the_name_of_alice(
    admin: Engine, sessions: Sessions, todos: None, bob: Caller, write: Any
) -> None:
    with sessions(bob) as session, pytest.raises(ProgrammingError, match="violates row-level security"):
        session.execute(write)
    assert all_todos(admin) == UNTOUCHED


@pytest.mark.exhaustive
def test_a_caller_may_have_many_claims(sessions: Sessions, todos: None) -> None:
    with sessions(ALICE_OF_MANY_GROUPS) as session:
        assert session.scalars(TASKS).all() == ["alice's"]
        claims: Any = session.scalar(select(auth.session()))
        assert claims["groups"] == GROUPS


@pytest.mark.exhaustive
def test_documents_are_kept_by_uuid(sessions: Sessions) -> None:
    carol, dave = uuid4(), uuid4()
    for subject in (carol, dave):
        with sessions(Caller(role="authenticated", subject=str(subject))) as session:
            session.add(Document(title="letter"))
            session.commit()
    with sessions(Caller(role="authenticated", subject=str(carol))) as session:
        assert session.scalars(select(Document.user_id)).all() == [carol]
        with pytest.raises(ProgrammingError, match="violates row-level security"):
            session.execute(insert(Document).values(user_id=dave, title="forged"))


@pytest.mark.exhaustive
def test_scores_are_kept_by_number(sessions: Sessions) -> None:
    for subject in (1, 10):
        with sessions(Caller(role="authenticated", subject=str(subject))) as session:
            session.add(Score(user_id=subject, points=3))
            session.commit()
    with sessions(Caller(role="authenticated", subject="1")) as session:
        assert session.scalars(select(Score.user_id)).all() == [1]
        with pytest.raises(ProgrammingError, match="violates row-level security"):
            session.execute(insert(Score).values(user_id=10, points=3))


@pytest.mark.exhaustive
def test_anonymous_reads_what_is_for_everybody_and_writes_nothing(admin: Engine, sessions: Sessions) -> None:
    with Session(admin) as session:
        session.add(Notice(message="welcome"))
        session.commit()
    with sessions(Caller.anonymous()) as session:
        assert session.scalars(select(Notice.message)).all() == ["welcome"]
        with pytest.raises(ProgrammingError, match="permission denied"):
            session.execute(insert(Notice).values(message="spam"))


def test_anonymous_may_not_touch_todos(sessions: Sessions, todos: None) -> None:
    for statement in (select(Todo), update(Todo).values(task="x"), delete(Todo)):
        with (
            sessions(Caller.anonymous()) as session,
            pytest.raises(ProgrammingError, match="permission denied"),
        ):
            session.execute(statement)


# Nobody


def flush(session: Session) -> None:
    session.add(Todo(task="x"))
    session.flush()


def commit(session: Session) -> None:
    session.add(Todo(task="x"))
    session.commit()


def execute_in_savepoint(session: Session) -> None:
    with session.begin_nested():
        session.execute(ANYTHING)


WAYS: dict[str, Callable[[Session], object]] = {
    "execute": lambda session: session.execute(ANYTHING),
    "the connection's execute": lambda session: session.connection().execute(ANYTHING),
    "exec_driver_sql": lambda session: session.connection().exec_driver_sql("SELECT 1"),
    "the connection's savepoint": lambda session: session.connection().begin_nested(),
    "get": lambda session: session.get(Todo, 1),
    "query": lambda session: session.query(Todo).all(),
    "bulk_insert_mappings": lambda session: session.bulk_insert_mappings(Todo.__mapper__, [{"task": "x"}]),
    "flush": flush,
    "commit": commit,
    "execute in a savepoint": execute_in_savepoint,
}


@pytest.mark.exhaustive
def test_nobody_gets_anywhere_by_any_way_nor_by_going_on(
    maker: sessionmaker[Session], subtests: pytest.Subtests
) -> None:
    for first, then in product(WAYS, WAYS):
        with subtests.test(f"{first}, then {then}"), maker() as session:
            with pytest.raises(CallerRequired, match="Call identify"):
                WAYS[first](session)
            for _ in range(2):
                with pytest.raises(PendingRollbackError, match="rollback"):
                    WAYS[then](session)


@pytest.mark.exhaustive
def test_nobody_gets_anywhere_by_rolling_back_behind_the_session(
    pool: Engine, maker: sessionmaker[Session]
) -> None:
    with maker() as session:
        with pytest.raises(CallerRequired):
            session.execute(ANYTHING)
        with pytest.raises(TransactionRefused):
            session.execute(text("ROLLBACK"))
    with (
        pool.connect() as connection,
        maker(bind=connection, join_transaction_mode="rollback_only") as session,
    ):
        savepoint = connection.begin_nested()
        with pytest.raises(CallerRequired):
            session.execute(ANYTHING)
        savepoint.rollback()
        with pytest.raises(TransactionRefused):
            session.execute(ANYTHING)


@pytest.mark.exhaustive
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_transaction_that_its_connection_ends_is_over(
    sessions: Sessions, todos: None, alice: Caller, end: str
) -> None:
    with sessions(alice) as session:
        connection = session.connection()
        getattr(connection, end)()
        for transport in (lambda: session.execute(ANYTHING), session.connection):
            with pytest.raises(TransactionRefused, match="use the session's"):
                transport()
        with pytest.warns(SAWarning, match="deassociated"):
            session.rollback()
        assert session.scalars(TASKS).all() == ["alice's"]


@pytest.mark.exhaustive
def test_who_identifies_late_rolls_back_first(maker: sessionmaker[Session], alice: Caller) -> None:
    with maker() as session:
        assert_refused(session, CallerRequired)
        identify(session, alice)
        with pytest.raises(TransactionRefused, match="rollback"):
            session.execute(ANYTHING)
        session.rollback()
        assert session.execute(CALLER).one() == ("authenticated", "alice")


@pytest.mark.exhaustive
@pytest.mark.parametrize("ending", ["close", "reset", "invalidate"])
def test_a_closed_session_is_nobodys(sessions: Sessions, alice: Caller, ending: str) -> None:
    session = sessions(alice)
    session.execute(ANYTHING)
    getattr(session, ending)()
    with session:
        assert_refused(session, CallerRequired)


# From one transaction to the next


@by_statement
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_each_transaction_is_bound_anew(pool: Engine, sessions: Sessions, alice: Caller, end: str) -> None:
    sent = statements_of(pool)
    with sessions(alice) as session:
        for count in range(1, 4):
            assert session.execute(CALLER).one() == ("authenticated", "alice")
            assert bindings(sent) == count
            getattr(session, end)()


@pytest.mark.exhaustive
@by_statement
def test_a_flush_that_comes_first_is_bound(pool: Engine, sessions: Sessions, alice: Caller) -> None:
    with sessions(alice) as session:
        session.execute(ANYTHING)
        session.commit()
        sent = statements_of(pool)
        for _ in range(2):
            session.add(Todo(task="buy milk"))
            session.commit()
    assert [statement.split()[0] for statement in sent] == ["SELECT", "INSERT"] * 2
    assert bindings(sent) == 2


@by_statement
def test_what_is_loaded_after_a_commit_is_ones_own(
    pool: Engine, sessions: Sessions, todos: None, alice: Caller
) -> None:
    sent = statements_of(pool)
    with sessions(alice) as session:
        todo = session.scalars(select(Todo)).one()
        session.commit()
        assert [step.what for step in todo.steps] == ["alice's step"]
        session.commit()
        assert todo.task == "alice's"
        session.rollback()
        session.refresh(todo)
    assert bindings(sent) == 4


@by_statement
def test_a_savepoint_is_bound_already(pool: Engine, sessions: Sessions, todos: None, alice: Caller) -> None:
    sent = statements_of(pool)
    with sessions(alice) as session, session.begin_nested():
        assert session.scalars(TASKS).all() == ["alice's"]
        with session.begin_nested():
            assert session.scalars(TASKS).all() == ["alice's"]
        with suppress(ZeroDivisionError), session.begin_nested():
            session.add(Todo(task="never"))
            session.flush()
            raise ZeroDivisionError
        assert session.scalars(TASKS).all() == ["alice's"]
    assert bindings(sent) == 1


def test_a_refused_write_may_be_undone_by_its_savepoint(
    admin: Engine, sessions: Sessions, todos: None, bob: Caller
) -> None:
    with sessions(bob) as session:
        session.add(Todo(task="first"))
        with pytest.raises(ProgrammingError, match="row-level security"), session.begin_nested():
            session.execute(insert(Todo).values(user_id="alice", task="forged"))
        session.add(Todo(task="second"))
        session.commit()
    assert all_todos(admin) == [*UNTOUCHED, ("bob", "first"), ("bob", "second")]


@pytest.mark.exhaustive
def test_nobody_else_may_go_on_in_a_transaction(sessions: Sessions, alice: Caller, bob: Caller) -> None:
    with sessions(alice) as session:
        session.execute(ANYTHING)
        identify(session, Caller(role="authenticated", subject="alice"))
        for other in (
            bob,
            Caller.anonymous(),
            Caller(role="authenticated", subject="alice", claims={"admin": True}),
        ):
            with pytest.raises(TransactionInProgress, match=r"commit\(\) or rollback\(\)"):
                identify(session, other)
        with session.begin_nested(), pytest.raises(TransactionInProgress):
            identify(session, bob)
        assert session.execute(CALLER).one() == ("authenticated", "alice")
        session.commit()
        identify(session, bob)
        assert session.execute(CALLER).one() == ("authenticated", "bob")


@pytest.mark.exhaustive
def test_bob_does_not_find_what_alice_left_in_the_session(
    pool: Engine, todos: None, alice: Caller, bob: Caller
) -> None:
    maker = sessionmaker(pool, expire_on_commit=False)
    enforce_row_security(maker)
    with maker() as session:
        identify(session, alice)
        # Held on to: a session forgets what nobody holds.
        todo = session.scalars(select(Todo)).one()
        alices = todo.id
        session.commit()
        identify(session, bob)
        assert session.get(Todo, alices) is None


def test_what_one_wrote_is_never_flushed_as_another(
    maker: sessionmaker[Session], admin: Engine, alice: Caller, bob: Caller
) -> None:
    with maker() as session:
        identify(session, alice)
        session.add(Todo(task="alice's secret"))
        with pytest.raises(CallerChanged, match="wait to be flushed"):
            identify(session, bob)
        session.commit()
        identify(session, bob)
        session.commit()
    assert all_todos(admin) == [("alice", "alice's secret")]


def test_what_is_added_before_the_first_caller_is_that_ones(
    maker: sessionmaker[Session], admin: Engine, alice: Caller
) -> None:
    with maker() as session:
        session.add(Todo(task="early"))
        identify(session, alice)
        session.commit()
    assert all_todos(admin) == [("alice", "early")]
