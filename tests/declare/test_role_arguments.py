"""A role is a Role or a name, wherever a declaration takes one."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import pytest
from sqlalchemy import MetaData

from sqla_rls import (
    Caller,
    Policy,
    Role,
    anonymous,
    authenticated,
    crud_policy,
    declare_roles,
    default_privileges,
    grant,
    grant_on,
    ignore,
    memberships,
    sql_function,
)
from sqla_rls.exc import DeclarationError


class Names(str, Enum):  # noqa: UP042 - whose str() isn't its value
    EDITOR = "editor"


TAKERS: dict[str, Callable[[Any], object]] = {
    "Policy": lambda one: Policy("p", "SELECT", one, using=True),
    "crud_policy": lambda one: crud_policy(one, read=True, modify=None),
    "grant": lambda one: grant("SELECT", to=one),
    "grant_on": lambda one: grant_on(MetaData(), "USAGE", schema="app", to=one),
    "default_privileges": lambda one: default_privileges(MetaData(), "SELECT", to=one),
    "sql_function": lambda one: sql_function("f", MetaData(), returns="int", body="SELECT 1", to=one),
    "memberships": lambda one: memberships("f", MetaData(), group="m.g", user="m.u", to=one),
    "member_of": lambda one: Role("app", member_of=one),
}
#: What is not a role, with the fix that the error names.
MISTAKES: dict[str, tuple[Any, str]] = {
    "a caller": (Caller(role="editor", subject="alice"), r"not an object of type Caller\. Write 'editor'"),
    "a list of a caller": ([Caller(role="editor")], r"not an object of type Caller\. Write 'editor'"),
    "a list in a list": ([[authenticated]], r"not an object of type list\. Write Role\('name'\) or 'name'"),
    "a number": (5, r"not an object of type int\. Write"),
    "a class": (Role, r"not an object of type type\. Write"),
    "bytes": ([b"editor"], r"not an object of type bytes\. Write"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("taker", TAKERS)
def test_anything_else_is_refused_with_the_fix(taker: str, mistake: str) -> None:
    value, message = MISTAKES[mistake]
    with pytest.raises(DeclarationError, match=message):
        TAKERS[taker](value)


@pytest.mark.parametrize("taker", [one for one in TAKERS if one != "member_of"])
def test_none_and_no_role_are_refused(taker: str) -> None:
    value: Any
    for value in (None, []):
        # Its owner alone may call a function without roles.
        if (taker, value) != ("sql_function", []):
            with pytest.raises(DeclarationError):
                TAKERS[taker](value)


def test_an_error_shows_no_claims() -> None:
    with pytest.raises(DeclarationError) as refused:
        Policy("p", "SELECT", Caller(role="editor", subject="alice", claims={"secret": 1}), using=True)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert "secret" not in str(refused.value)
    assert "alice" not in str(refused.value)


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("role", ["editor", Role("editor"), Names.EDITOR, anonymous])
def test_one_role_and_a_list_are_the_same(taker: str, role: Any) -> None:
    assert TAKERS[taker](role) is not NotImplemented
    assert TAKERS[taker]([role, "other"]) is not NotImplemented


def test_a_name_that_is_a_member_of_an_enum_is_its_value() -> None:
    (role,) = Policy("p", "SELECT", Names.EDITOR, using=True).roles
    assert str(role) == "editor"
    assert Role("app", member_of=[Names.EDITOR]).member_of == ("editor",)
    assert str(Role(Names.EDITOR)) == "editor"


def test_a_name_of_a_role_is_text() -> None:
    with pytest.raises(DeclarationError, match=r"Role\(\) takes the name of a role"):
        Role(authenticated)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_roles_to_declare_are_roles() -> None:
    with pytest.raises(DeclarationError, match=r"declare_roles\(\) takes Role objects\. Write Role\('app'\)"):
        declare_roles(MetaData(), "app")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_roles_to_ignore_are_names_and_patterns() -> None:
    with pytest.raises(DeclarationError, match=r"ignore\(roles=…\) takes names and patterns"):
        ignore(MetaData(), roles=[authenticated])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
