"""The roles that models declare or name, and the roles that are declared with them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

from sqlalchemy import MetaData

from sqla_rls.declare.base import READY_MADE, anonymous, as_roles, authenticated, keep_on
from sqla_rls.exc import DeclarationError
from sqla_rls.snapshot import (
    Role,
)


def declare_roles(metadata: MetaData, *roles: Role) -> None:
    """Declare roles that no table names: ``Role("app", login=True, member_of=[authenticated])``.

    Args:
        metadata: the MetaData of the models.
        *roles: the roles.

    Raises:
        DeclarationError: an argument isn't a Role.

    Emits:
        The statements of ``Role``.
    """
    for role in roles:
        if not isinstance(role, Role):
            fix = f"Role({str.__str__(role)!r})" if isinstance(role, str) else "Role('name')"
            raise DeclarationError(
                f"the role can't be declared: declare_roles() takes Role objects. Write {fix}"
            )
    keep_on(metadata, *roles)


def roles_to_make(named: Collection[Role | str]) -> dict[str, Role]:
    """Return the roles to create, with their groups, and the roles that are declared with others."""
    made = together_by_name(named)
    if brings_anonymous_along(named):
        # A caller without a token needs a role, too.
        made.setdefault(anonymous.name, anonymous)
    made = {name: role for name, role in made.items() if role.managed}
    # Every caller has these roles: an undeclared membership would give every caller more policies.
    for name in READY_MADE.keys() & made.keys():
        if made[name].member_of is None:
            made[name] = replace(made[name], member_of=())
    return made


def roles_of_others(named: Collection[Role | str]) -> list[str]:
    """Return the roles that another program creates."""
    return [role.name for role in together_by_name(named).values() if not role.managed]


def brings_anonymous_along(named: Collection[Role | str]) -> bool:
    """Return whether *named* has ``authenticated``, and migrations create that role."""
    return authenticated in named and together_by_name(named)[authenticated.name].managed


def together_by_name(named: Iterable[Role | str]) -> dict[str, Role]:
    """Return the merged declarations of each role, and of its groups."""
    found: dict[str, Role] = {}
    waiting = list(dict.fromkeys(named))
    for role in waiting:  # the list grows
        if isinstance(role, Role):
            found[role.name] = _together(found.get(role.name, role), role)
            waiting += as_roles(role.member_of) if role.member_of else ()
    return found


def _together(one: Role, other: Role) -> Role:
    said: dict[str, Any] = {}
    for name in ("login", "inherit", "bypassrls", "member_of"):
        values = {getattr(role, name) for role in (one, other)} - {None}
        if len(values) > 1:
            raise DeclarationError(
                f"role {one.name!r} is declared twice, and {name}= differs. Give both the same value"
            )
        said[name] = next(iter(values), None)
    managed = one.managed and other.managed
    if not managed and any(value is not None for value in said.values()):
        raise DeclarationError(
            f"role {one.name!r} is declared twice: once with managed=False, as a role of another program, "
            "and once with attributes. Leave out the attributes"
        )
    return Role(one.name, **said, managed=managed)
