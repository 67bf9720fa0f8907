"""Assertions about the rows that a caller reaches."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, ForeignKey, delete, event, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    ORMExecuteState,
    Session,
    mapped_column,
    with_loader_criteria,
)
from sqlalchemy.pool import NullPool

from sqla_rls.exc import DeclarationError
from sqla_rls.testing.access import Access, AsyncAccess
from tests.support.sessions import Notice, Todo
from tests.support.signing import Signed


@pytest.fixture
def access(admin: Engine) -> Iterator[Access]:
    with admin.connect() as connection, connection.begin() as transaction:
        yield Access(connection)
        transaction.rollback()


@pytest.fixture
def rows(access: Access) -> dict[str, Todo]:
    """A todo of alice and one of bob, which the owner adds in the test's transaction."""
    with Session(bind=access._connection, join_transaction_mode="create_savepoint") as session:
        found = {name: Todo(user_id=name, task=f"{name}'s") for name in ("alice", "bob")}
        session.add_all(found.values())
        session.commit()
        for todo in found.values():
            session.refresh(todo)
        session.expunge_all()
    return found


def test_the_right_rows_pass(access: Access, rows: dict[str, Todo]) -> None:
    with access.as_caller("alice") as session:
        access.assert_visible(select(Todo), [rows["alice"]])
        access.assert_visible(select(Todo.task), ["alice's"])
        access.assert_visible(select(Todo.task, Todo.user_id), [("alice's", "alice")])
        access.assert_hidden(rows["bob"])
        access.assert_denied(lambda session: session.add(Todo(task="forged", user_id="bob")), "policy")
        session.add(Todo(task="new"))
        session.flush()
        access.assert_visible(select(Todo.task), ["alice's", "new"])
    with access.as_anonymous():
        access.assert_hidden(rows["alice"])
        access.assert_hidden(rows["bob"])
        access.assert_denied(lambda session: session.execute(delete(Todo)), "privilege")
    with access.as_role("authenticated"):
        access.assert_visible(select(Todo), [])
    access.assert_isolated(Todo.metadata)


def test_a_wrong_row_fails_and_the_message_has_the_reason(access: Access, rows: dict[str, Todo]) -> None:
    with access.as_caller("alice"):
        with pytest.raises(AssertionError, match="'bob'") as failure:
            access.assert_visible(select(Todo), [rows["bob"]])
        assert "not wanted" in str(failure.value)
        assert "user_id is 'bob'" in str(failure.value)
        with pytest.raises(AssertionError, match="can see"):
            access.assert_hidden(rows["alice"])
        # The session goes on as alice.
        access.assert_visible(select(Todo.task), ["alice's"])


def test_a_hidden_row_may_be_named_by_its_key(access: Access, rows: dict[str, Todo]) -> None:
    with access.as_caller("alice"):
        access.assert_hidden(Todo(id=rows["bob"].id))
        with pytest.raises(AssertionError, match="can see"):
            access.assert_hidden(Todo(id=rows["alice"].id))
        with pytest.raises(DeclarationError, match="no primary key"):
            access.assert_hidden(Todo(task="alice's"))


@pytest.mark.exhaustive
def test_a_row_whose_key_is_no_column_of_the_caller_is_not_called_hidden(
    access: Access, rows: dict[str, Todo]
) -> None:
    access._connection.execute(
        text("""
            ALTER TABLE todos DISABLE ROW LEVEL SECURITY;
            REVOKE ALL ON todos FROM authenticated;
            GRANT SELECT (id, task) ON todos TO authenticated""")
    )
    with access.as_caller("alice"), pytest.raises(AssertionError, match="can see"):
        # She may not read all columns, but the row.
        access.assert_hidden(rows["bob"])
    access._connection.execute(text("REVOKE SELECT (id) ON todos FROM authenticated"))
    with access.as_caller("alice"), pytest.raises(DeclarationError, match="reads rows of todos, but not"):
        access.assert_hidden(rows["bob"])
    access._connection.execute(text("REVOKE SELECT (task) ON todos FROM authenticated"))
    with access.as_caller("alice"):
        access.assert_hidden(rows["bob"])


@pytest.mark.exhaustive
def test_a_filter_of_the_app_hides_no_row_from_the_assertion(access: Access, rows: dict[str, Todo]) -> None:
    access._connection.execute(text("ALTER TABLE todos DISABLE ROW LEVEL SECURITY"))

    def only_alice(state: ORMExecuteState) -> None:
        state.statement = state.statement.options(with_loader_criteria(Todo, Todo.user_id == "alice"))

    event.listen(Session, "do_orm_execute", only_alice)
    try:
        with access.as_caller("alice") as session:
            assert session.get(Todo, rows["bob"].id) is None
            with pytest.raises(AssertionError, match="can see"):
                access.assert_hidden(rows["bob"])
    finally:
        event.remove(Session, "do_orm_execute", only_alice)


@pytest.mark.exhaustive
def test_each_table_of_an_inherited_row_must_hide_it(access: Access) -> None:
    class Base(DeclarativeBase):
        pass

    class Account(Base):
        __tablename__ = "accounts"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Admin(Account):
        __tablename__ = "admins"
        account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"), primary_key=True)

    Base.metadata.create_all(access._connection)
    access._connection.execute(
        text("""
            INSERT INTO accounts VALUES (1);
            INSERT INTO admins VALUES (1);
            GRANT SELECT ON accounts, admins TO authenticated;
            ALTER TABLE admins ENABLE ROW LEVEL SECURITY""")
    )
    with access.as_caller("alice"), pytest.raises(AssertionError, match=r"can see .* in accounts"):
        access.assert_hidden(Admin(id=1))
    access._connection.execute(text("ALTER TABLE accounts ENABLE ROW LEVEL SECURITY"))
    with access.as_caller("alice"):
        access.assert_hidden(Admin(id=1))


def test_without_rows_nothing_is_hidden_or_isolated(access: Access) -> None:
    with access.as_caller("alice"), pytest.raises(DeclarationError, match="no such row"):
        access.assert_hidden(Todo(id=2))
    with pytest.raises(DeclarationError, match="have no rows"):
        access.assert_isolated(Todo.metadata)


def test_a_denial_that_does_not_come_fails(access: Access, rows: dict[str, Todo]) -> None:
    with access.as_caller("alice"):
        with pytest.raises(AssertionError, match="denied nothing"):
            access.assert_denied(lambda session: session.add(Todo(task="mine")))
        with pytest.raises(AssertionError, match="isn't 'privilege'"):
            access.assert_denied(lambda session: session.add(Todo(task="x", user_id="bob")), "privilege")
        access.assert_visible(select(Todo.task), ["alice's"])


def test_rows_for_everyone_are_not_isolated_unless_they_are_public(
    access: Access, rows: dict[str, Todo]
) -> None:
    with Session(bind=access._connection, join_transaction_mode="create_savepoint") as session:
        session.add(Notice(message="welcome"))
        session.commit()
    with pytest.raises(AssertionError, match="an anonymous caller sees 1 rows of notices") as failure:
        access.assert_isolated(Todo.metadata)
    assert "SELECT on public.notices as anonymous: allowed" in str(failure.value)
    assert "permissive policy 'all-read', USING on the row: true" in str(failure.value)
    public: Any = Notice.__table__
    access.assert_isolated(Todo.metadata, public=[public])
    model: Any = Notice
    with pytest.raises(DeclarationError, match="isn't a Table"):
        access.assert_isolated(Todo.metadata, public=[model])
    with pytest.raises(DeclarationError, match="give the name of the table"):
        access.add_rows(model, {"id": 1})


@pytest.mark.parametrize(
    "condition",
    [
        "auth.uid() IS NOT NULL",
        "auth.user_id()::int > 0",
        "auth.user_id()::uuid IS NOT NULL",
        "auth.user_id() IS NOT NULL",
    ],
)
@pytest.mark.exhaustive
def test_strangers_have_subjects_of_each_kind(access: Access, rows: dict[str, Todo], condition: str) -> None:
    access.assert_isolated(Todo.metadata)
    access._connection.exec_driver_sql(
        f"CREATE POLICY wide ON todos FOR SELECT TO authenticated USING ({condition})"
    )
    with pytest.raises(AssertionError, match="a stranger sees 2 rows of todos") as failure:
        access.assert_isolated(Todo.metadata)
    assert str(failure.value).count("rows of todos") == 1


@pytest.mark.exhaustive
def test_a_policy_that_reads_no_subject_of_a_stranger_proves_nothing(
    access: Access, rows: dict[str, Todo]
) -> None:
    access._connection.exec_driver_sql(
        "CREATE POLICY wide ON todos FOR SELECT TO authenticated "
        "USING ((SELECT CAST(auth.user_id() AS smallint)) IS NOT NULL)"
    )
    with access.as_caller("7"):
        access.assert_visible(select(Todo.task).order_by(Todo.task), ["alice's", "bob's"])
    with pytest.raises(DeclarationError, match=r"of todos are isolated.* for type smallint.*as_caller\(\)"):
        access.assert_isolated(Todo.metadata)


def test_rows_of_the_owner_and_the_rows_that_sql_text_reaches(access: Access) -> None:
    access.add_rows(
        "todos", {"id": 7, "user_id": "alice", "task": "a: 100%"}, {"id": 8, "user_id": "bob", "task": "b"}
    )
    with access.as_caller("alice"):
        access.assert_rows("SELECT id FROM todos", 1)
        access.assert_rows("DELETE FROM todos WHERE task = 'a: 100%'", 1)
        # The change is undone, and a denial is no row.
        access.assert_rows("UPDATE todos SET task = 'x'", 1)
        access.assert_rows("INSERT INTO todos (user_id, task) VALUES ('bob', 'x')", 0)
        with pytest.raises(AssertionError, match="reaches 1 rows, not 2: SELECT"):
            access.assert_rows("SELECT id FROM todos", 2)
        with pytest.raises(AssertionError, match=r"reaches 0 rows, not 1 \(new row violates"):
            access.assert_rows("INSERT INTO todos (user_id, task) VALUES ('bob', 'x')", 1)
        with pytest.raises(DeclarationError, match="before it"):
            access.add_rows("todos", {"id": 9, "user_id": "alice", "task": "a"})
    with access.as_anonymous():
        access.assert_rows("SELECT id FROM todos", 0)


def test_an_assertion_without_a_caller_is_refused(access: Access) -> None:
    with pytest.raises(DeclarationError, match="as_caller"):
        access.assert_visible(select(Todo), [])


def test_the_key_of_a_database_that_verifies_callers(signed: Signed) -> None:
    with signed.admin.connect() as connection, connection.begin() as transaction:
        access = Access(connection, signing_key=signed.key)
        with access.as_caller("alice"):
            access.assert_visible(select(Todo.task), ["alice's"])
        transaction.rollback()


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_asyncio_has_the_same(admin: Engine, todos: None, runner: asyncio.Runner, driver: str) -> None:
    async def forge(session: AsyncSession) -> None:
        session.add(Todo(task="forged", user_id="bob"))

    async def work() -> None:
        engine = create_async_engine(admin.url.set(drivername=f"postgresql+{driver}"), poolclass=NullPool)
        async with engine.connect() as connection, connection.begin() as transaction:
            access = AsyncAccess(connection)
            await access.add_rows("todos", {"id": 70, "user_id": "carol", "task": "c"})
            async with access.as_caller("carol"):
                await access.assert_rows("SELECT id FROM todos", 1)
                with pytest.raises(DeclarationError, match="before it"):
                    await access.add_rows("todos", {"id": 71})
            async with AsyncSession(bind=connection, join_transaction_mode="create_savepoint") as owner:
                theirs = (await owner.scalars(select(Todo).where(Todo.user_id == "bob"))).one()
            async with access.as_caller("alice"):
                await access.assert_visible(select(Todo.task), ["alice's"])
                await access.assert_hidden(theirs)
                await access.assert_denied(forge, "policy")
                await access.assert_denied(
                    lambda session: session.add(Todo(task="forged", user_id="bob")), "policy"
                )
                with pytest.raises(AssertionError, match="user_id is 'bob'"):
                    await access.assert_visible(select(Todo), [theirs])
            await access.assert_isolated(Todo.metadata)
            await transaction.rollback()
        await engine.dispose()

    runner.run(work())
