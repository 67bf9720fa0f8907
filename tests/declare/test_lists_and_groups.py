"""How lists in the claims, and the groups of a caller, are written and compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import (
    ARRAY,
    Column,
    ForeignKey,
    MetaData,
    Text,
    Uuid,
    exists,
    func,
    not_,
    select,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.schema import CreateTable

from sqla_rls import Policy, auth, auth_uid, in_jwt_claim, jwt_claim, jwt_claim_contains, member_of
from sqla_rls.ddl.compile import literally
from sqla_rls.declare.collect import declared
from sqla_rls.exc import DeclarationError
from sqla_rls.snapshot import TableKey
from tests.support.written import MEMBERS, table, using

pytestmark = pytest.mark.sqlalchemy


LISTED: Any = ["x"]
ORGS = "CASE jsonb_typeof(claims -> 'orgs') WHEN 'array' THEN claims -> 'orgs' ELSE '[null]' END"


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (
            jwt_claim_contains("org", "may", value='it\'s "é" 100%'),
            (
                "(SELECT CASE jsonb_typeof(claims -> 'org' -> 'may') WHEN 'array' "
                """THEN claims -> 'org' -> 'may' @> CAST('["it''s \\"é\\" 100%"]' AS JSONB) END """
                "FROM auth.jwt() AS claims)"
            ),
        ),
        (
            not_(in_jwt_claim("user_id", "orgs")),
            (
                "NOT todos.user_id = ANY (ARRAY(SELECT CASE jsonb_typeof(value) WHEN 'string' THEN "
                f"value #>> '{{}}' END FROM auth.jwt() AS claims, jsonb_array_elements({ORGS}) AS value))"
            ),
        ),
        (
            in_jwt_claim("number", "orgs"),
            (
                "todos.number = ANY (ARRAY(SELECT CASE WHEN value !~ '^(0|-?[1-9][0-9]{0,18})$' THEN NULL "
                "WHEN abs(CAST(value AS NUMERIC)) <= 9223372036854775807 THEN CAST(value AS BIGINT) END "
                f"FROM auth.jwt() AS claims, jsonb_array_elements_text({ORGS}) AS value))"
            ),
        ),
    ],
)
def test_lists_of_the_caller_are_looked_at_as_such(expression: Any, text: str) -> None:
    assert using(expression) == text


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: jwt_claim("may", type_=postgresql.JSONB).contains(["x"]), r"jwt_claim_contains\("),
        (lambda: jwt_claim("may", type_=postgresql.JSONB()).contains("x"), r"jwt_claim_contains\("),
        (lambda: jwt_claim("may", type_=ARRAY(Text)), r"jwt_claim_contains\(.*in_jwt_claim\("),
        (lambda: jwt_claim("may", type_=postgresql.ARRAY(Text())), r"in_jwt_claim\("),
        (lambda: jwt_claim_contains("may", value=LISTED), r"text or an integer, not list.*or_\(\)"),
        (lambda: jwt_claim_contains("may", value=True), r"not bool"),
        (lambda: jwt_claim_contains(value="x"), r"isn't the path to a claim"),
        (lambda: in_jwt_claim("key"), r"isn't the path to a claim"),
        (lambda: in_jwt_claim(5, "orgs"), r"takes a column or its name"),
        (lambda: using(in_jwt_claim("document", "orgs")), r"todos\.document is JSON"),
        (lambda: using(in_jwt_claim("owner", "orgs")), r"no column 'owner'"),
    ],
)
def test_what_lists_of_the_caller_can_not_say_is_refused(wrong: Callable[[], Any], message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        wrong()


@pytest.mark.parametrize(
    ("default", "written"),
    [
        (auth.user_id(), "auth.user_id()"),
        (jwt_claim("org"), "(auth.jwt() ->> 'org')"),
        (func.coalesce(jwt_claim("a", "b"), "c"), "coalesce(((auth.jwt() -> 'a') ->> 'b'), 'c')"),
        (jwt_claim("key", type_=Uuid), "(CAST(auth.jwt() ->> 'key' AS UUID))"),
        (
            jwt_claim_contains("may", value="x"),
            (
                "(CASE jsonb_typeof(auth.jwt() -> 'may') WHEN 'array' "
                "THEN auth.jwt() -> 'may' @> CAST('[\"x\"]' AS JSONB) END)"
            ),
        ),
    ],
)
def test_a_default_asks_without_the_subquery_that_postgres_refuses_there(default: Any, written: str) -> None:
    todos = table(Column("by", Text, server_default=default))
    for dialect in (postgresql.dialect(), literally(None)["dialect"]):  # type: ignore[no-untyped-call]
        assert f"by TEXT DEFAULT {written}" in str(CreateTable(todos).compile(dialect=dialect))


def test_a_claim_that_is_text_may_contain_text() -> None:
    assert using(jwt_claim("email").contains("@")) == "(SELECT auth.jwt() ->> 'email') LIKE '%' || '@' || '%'"


OF_CALLER = "FROM members \nWHERE (SELECT auth.uid()) = members.user_id))"


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (
            member_of("number", MEMBERS.c.number, MEMBERS.c.user_id),
            f"todos.number = ANY (ARRAY(SELECT members.number \n{OF_CALLER}",
        ),
        (
            member_of("key", select(MEMBERS.c.key).where(auth_uid(MEMBERS.c.user_id))),
            f"todos.key = ANY (ARRAY(SELECT members.key \n{OF_CALLER}",
        ),
        (
            not_(member_of("number", select(func.my.groups()))),
            "NOT todos.number = ANY (ARRAY(SELECT my.groups() AS groups_1))",
        ),
        (
            member_of("number", select(MEMBERS.c.number).union(select(MEMBERS.c.number))),
            (
                "todos.number = ANY (ARRAY(SELECT members.number \nFROM members "
                "UNION SELECT members.number \nFROM members))"
            ),
        ),
    ],
)
def test_the_groups_of_the_caller_are_an_array(expression: Any, text: str) -> None:
    assert using(expression) == text


def test_a_class_body_says_which_groups_may_read() -> None:
    class Base(DeclarativeBase):
        pass

    class Organization(Base):
        __tablename__ = "organizations"
        id: Mapped[int] = mapped_column(primary_key=True)
        __table_args__ = (
            Policy(
                "members", "SELECT", using=lambda: member_of(Organization.id, Member.org_id, Member.user_id)
            ),
        )

    class Member(Base):
        __tablename__ = "members"
        user_id: Mapped[str] = mapped_column(Text, primary_key=True)
        org_id: Mapped[int] = mapped_column(ForeignKey(Organization.id), primary_key=True)
        __table_args__ = (Policy("own", "SELECT", using=auth_uid(user_id)),)

    class Document(Base):
        __tablename__ = "documents"
        id: Mapped[int] = mapped_column(primary_key=True)
        org_id = mapped_column(ForeignKey(Organization.id))
        __table_args__ = (Policy("members", using=member_of(org_id, Member.org_id, Member.user_id)),)

    groups = "ARRAY(SELECT members.org_id \nFROM members \nWHERE (SELECT auth.user_id()) = members.user_id)"
    written = {policy.key: policy.using for policy in declared([Base.metadata]).policies.values()}
    assert written[TableKey(None, "organizations"), "members"] == f"organizations.id = ANY ({groups})"  # type: ignore[index]
    assert written[TableKey(None, "documents"), "members"] == f"documents.org_id = ANY ({groups})"  # type: ignore[index]


def test_groups_of_another_type_are_refused_by_name() -> None:
    expected = r"todos\.key, which is Uuid\(\), with members\.number, which is Integer\(\)"
    with pytest.raises(DeclarationError, match=expected):
        using(member_of("key", MEMBERS.c.number, MEMBERS.c.user_id))


@pytest.mark.parametrize(
    "arguments",
    [
        (MEMBERS,),
        (select(MEMBERS),),
        (MEMBERS.c.number,),
        (exists(select(MEMBERS.c.number)),),
        ("number", MEMBERS.c.user_id),
        (MEMBERS.c.number, Column("user_id", Uuid)),
        (MEMBERS.c.number, MEMBERS.alias().c.user_id),
    ],
)
def test_memberships_are_two_columns_of_a_table_or_one_of_a_select(arguments: Any) -> None:
    with pytest.raises(DeclarationError, match=r"member_of\(\) failed"):
        member_of("number", *arguments)


def test_a_policy_that_reads_its_own_table_is_refused() -> None:
    for aliased in (False, True):
        members = MEMBERS.to_metadata(MetaData())
        groups = members.alias() if aliased else members
        with pytest.raises(
            DeclarationError, match=r"on members failed: it reads members itself.*42P17.*auth_uid\(\)"
        ):
            using(member_of("number", groups.c.number, groups.c.user_id), members)


def test_memberships_that_depend_on_the_row_are_refused() -> None:
    todos = table()
    groups = select(MEMBERS.c.number).where(MEMBERS.c.user_id == todos.c.key)
    with pytest.raises(DeclarationError, match="can't be compared with columns of todos"):
        using(member_of("number", groups), todos)
