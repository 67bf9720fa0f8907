"""Conditions of policies, as SQL text, and the errors about those that can't be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import (
    CHAR,
    BigInteger,
    Boolean,
    Column,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    Uuid,
    and_,
    bindparam,
    case,
    column,
    exists,
    false,
    func,
    literal_column,
    not_,
    or_,
    select,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlmodel import Field

from sqla_rls import (
    Policy,
    auth,
    auth_uid,
    jwt_claim,
    view,
)
from sqla_rls.declare.collect import declared
from sqla_rls.exc import DeclarationError
from tests.support.written import table, using

pytestmark = pytest.mark.sqlalchemy


class Text2(TypeDecorator[str]):
    impl = String
    cache_ok = True


class Key(TypeDecorator[UUID]):
    impl = Uuid
    cache_ok = True


CHAR_CALLER = (
    "(SELECT CASE WHEN (auth.user_id() = rtrim(auth.user_id())) THEN CAST(auth.user_id() AS BPCHAR) END)"
)
INTEGER_CALLER = "(SELECT CAST(SUBSTRING(auth.user_id() FROM '^(0|-?[1-9][0-9]{0,18})$') AS BIGINT))"


@pytest.mark.parametrize(
    ("type_", "caller"),
    [
        (Text(), "(SELECT auth.user_id())"),
        (String(36), "(SELECT auth.user_id())"),
        (Text2(), "(SELECT auth.user_id())"),
        (Uuid(), "(SELECT auth.uid())"),
        (Key(), "(SELECT auth.uid())"),
        (Integer(), INTEGER_CALLER),
        (BigInteger(), INTEGER_CALLER),
        (String(8).with_variant(CHAR(8), "postgresql"), CHAR_CALLER),
        (postgresql.CITEXT(), "(SELECT CAST(auth.user_id() AS CITEXT))"),
        (CHAR(36), CHAR_CALLER),
    ],
)
def test_the_caller_is_compared_by_the_type_of_the_column(type_: Any, caller: str) -> None:
    todos = Table("todos", MetaData(), Column("owner", type_))
    assert using(auth_uid("owner"), todos) == f"{caller} = todos.owner"


@pytest.mark.parametrize("name", ['the "owner"', "Owner 100%", "owner:id", "Ö" * 31])
def test_odd_names_are_quoted_in_a_condition_alone_as_in_a_longer_one(name: str) -> None:
    alone, longer = (
        using(condition, Table("My notes", MetaData(), Column(name, Text, key="owner"), schema="to do"))
        for condition in (auth_uid("owner"), not_(auth_uid("owner")))
    )
    quoted = name.replace('"', '""')
    assert alone == f'(SELECT auth.user_id()) = "to do"."My notes"."{quoted}"'
    assert str(alone) in str(longer)


def test_a_column_of_another_type_is_refused_by_name() -> None:
    with pytest.raises(DeclarationError, match=r"todos\.document is JSON"):
        using(auth_uid("document"))


def test_uuids_that_are_kept_as_text_are_refused_with_the_reason() -> None:
    todos = Table("todos", MetaData(), Column("owner", Uuid(native_uuid=False)))
    with pytest.raises(DeclarationError, match=r"todos\.owner: with native_uuid=False .* CHAR\(32\)"):
        using(auth_uid("owner"), todos)


def test_a_column_that_is_a_bool_is_a_condition() -> None:
    class Base(DeclarativeBase):
        pass

    class Todo(Base):
        __tablename__ = "todos"
        id: Mapped[int] = mapped_column(primary_key=True)
        is_public: Mapped[bool]
        is_old: Mapped[bool] = mapped_column()
        __table_args__ = (
            Policy("public", "SELECT", using=lambda: Todo.is_public),
            Policy("old", "SELECT", using=is_old),
        )

    found = declared([Base.metadata]).policies.values()
    assert {policy.using for policy in found} == {"todos.is_public", "todos.is_old"}


@pytest.mark.parametrize("value", [None, 5, object(), Field(default=None)])
def test_what_is_no_column_is_refused(value: Any) -> None:
    with pytest.raises(DeclarationError, match=r"takes a column or its name.*SQLModel"):
        auth_uid(value)


def test_a_column_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(DeclarationError, match=r"table todos has no column 'owner'"):
        using(auth_uid("owner"))


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (True, "true"),
        (False, "false"),
        ("  a = ':b' AND c LIKE '%d' ", "a = ':b' AND c LIKE '%d'"),
        (not_(auth_uid("user_id")), "NOT (SELECT auth.user_id()) = todos.user_id"),
        (auth_uid("user_id").is_(True), "((SELECT auth.user_id()) = todos.user_id) IS true"),
        (
            and_(auth_uid("user_id"), jwt_claim("org", "it's") == "100%"),
            (
                "(SELECT auth.user_id()) = todos.user_id AND "
                "(SELECT (auth.jwt() -> 'org') ->> 'it''s') = '100%'"
            ),
        ),
        (auth.uid() == func.my.check(5), "auth.uid() = my.check(5)"),
        (
            jwt_claim("org", "id", type_=BigInteger) == 5,
            "(SELECT CAST((auth.jwt() -> 'org') ->> 'id' AS BIGINT)) = 5",
        ),
    ],
)
def test_expressions_become_sql_text(expression: Any, text: str) -> None:
    assert using(expression) == text


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("expression", "sql"),
    [
        (and_(text("a OR b"), auth_uid("user_id")), "(a OR b) AND (SELECT auth.user_id()) = todos.user_id"),
        (and_(auth_uid("user_id"), text("a OR b")), "(SELECT auth.user_id()) = todos.user_id AND (a OR b)"),
        (or_(text("a AND b"), text("c")), "(a AND b) OR c"),
        (~literal_column("a OR b", Boolean), "NOT (a OR b)"),
        (literal_column("a OR b", Boolean).is_(True), "(a OR b) IS true"),
        (literal_column("a OR b", Boolean) == false(), "(a OR b) = false"),
        (
            exists(text("1")).select_from(text("t")).where(text("a OR b"), text("c")),
            "EXISTS (SELECT 1 \nFROM t \nWHERE (a OR b) AND c)",
        ),
        (case((text("a OR b"), text("c OR d")), else_=False), "CASE WHEN a OR b THEN c OR d ELSE false END"),
    ],
)
def test_sql_text_beside_another_condition_is_in_parentheses(expression: Any, sql: str) -> None:
    assert using(expression) == sql


@pytest.mark.exhaustive
def test_sql_text_of_a_view_is_in_parentheses() -> None:
    metadata = MetaData()
    todos = Table("todos", metadata, Column("id", Integer, primary_key=True), Column("task", Text))
    open_todos = view("v", metadata, select(todos.c.id).where(text("id = 1 OR id = 2"), todos.c.task == "a"))
    (found,) = declared([metadata]).views.values()
    assert found.definition.endswith("WHERE (id = 1 OR id = 2) AND todos.task = 'a'")
    assert open_todos.c.id.name == "id"


def test_a_subquery_correlates_with_the_table_of_the_policy() -> None:
    todos = table()
    members = Table("members", todos.metadata, Column("todo_id", Integer), Column("user_id", Uuid))
    written = using(exists().where(members.c.todo_id == todos.c.id, auth_uid(members.c.user_id)), todos)
    assert written is not None
    assert "FROM members \n" in written
    assert "todos," not in written


def test_another_table_outside_a_subquery_is_refused() -> None:
    todos = table()
    members = Table("members", todos.metadata, Column("todo_id", Integer))
    with pytest.raises(DeclarationError, match=r"another table outside a subquery"):
        using(members.c.todo_id == todos.c.id, todos)


def test_a_cte_is_refused_unless_it_is_nested() -> None:
    todos = table()
    members = Table("members", todos.metadata, Column("todo_id", Integer))

    def condition(*, nesting: bool) -> Any:
        mine = select(members.c.todo_id).cte("mine", nesting=nesting)
        return exists().where(mine.c.todo_id == 1)

    assert "WITH mine AS" in str(using(condition(nesting=True), todos))
    with pytest.raises(DeclarationError, match=r"nesting=True"):
        using(condition(nesting=False), table())


def test_what_has_no_literal_is_refused() -> None:
    todos = table()
    with pytest.raises(DeclarationError, match=r"can't be written as SQL text"):
        using(todos.c.document.op("@>")({"a": object()}), todos)


@pytest.mark.parametrize(
    "condition",
    [
        lambda todos: todos.c.id == bindparam("who"),
        lambda todos: todos.c.id.in_(bindparam("who", expanding=True)),
        lambda todos: text("id = :who"),
        lambda todos: exists().where(todos.alias().c.id == bindparam("who")),
    ],
    ids=["column", "IN", "text", "subquery"],
)
def test_a_parameter_that_nobody_gives_a_value_is_refused(condition: Callable[[Table], Any]) -> None:
    todos = table()
    with pytest.raises(DeclarationError, match=r"parameter :who has no value"):
        using(condition(todos), todos)


@pytest.mark.parametrize(
    ("condition", "written"),
    [
        (text("id = :who").bindparams(who=7), "id = 7"),
        (column("id") == bindparam("who", type_=Integer(), callable_=lambda: 7), "id = 7"),
        (column("id").in_(bindparam("who", [7, 8], expanding=True)), "id IN (7, 8)"),
    ],
)
def test_a_parameter_with_a_value_is_written_as_that(condition: Any, written: str) -> None:
    assert using(condition) == written
