"""Changes of roles as operations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqla_rls.alembic.autogenerate.render import Call
from sqla_rls.diff.roles import RoleChanges
from sqla_rls.log import autogenerate_log
from sqla_rls.snapshot import Membership, Role

log = autogenerate_log(__name__)


def roles(changes: RoleChanges, *, keep_memberships: bool) -> Iterator[Call]:
    """Yield the operations; with *keep_memberships*, an existing role keeps its undeclared memberships."""
    for role in changes.created:
        member_of = None if role.member_of is None else sorted(map(str, role.member_of))
        keep = (keep_memberships and member_of is not None) or None
        yield Call(
            "create_rls_role", role.name, **_attributes(role), member_of=member_of, keep_memberships=keep
        ).undone_by(Call("drop_rls_role", role.name))
    for change in changes.altered:
        yield Call("alter_rls_role", change.after.name, **_attributes(change.after)).undone_by(
            Call("alter_rls_role", change.before.name, **_attributes(change.before))
        )
    for membership in sorted(changes.revoked, key=str):
        yield _grant(membership).undo
    for membership in sorted(changes.granted, key=str):
        yield _grant(membership)


def log_roles(changes: RoleChanges) -> None:
    for role in changes.created:
        log.info("Detected added role %r", role.name)
    for change in changes.altered:
        said = {name: value for name, value in _attributes(change.after).items() if value is not None}
        log.info("Detected changed role %r: %s", change.after.name, said)
    for what, memberships in (
        ("that isn't declared:", changes.revoked),
        ("that is missing:", changes.granted),
    ):
        for one in sorted(memberships, key=str):
            log.info("Detected membership %s %r in %r", what, one.member, one.role)


def _attributes(role: Role) -> dict[str, Any]:
    return {"login": role.login, "inherit": role.inherit, "bypassrls": role.bypassrls}


def _grant(one: Membership) -> Call:
    options: dict[str, Any] = {"admin": one.admin or None, "inherit": one.inherit, "set": one.set}
    return Call("grant_role", one.role, one.member, **options).undone_by(
        Call("revoke_role", one.role, one.member)
    )
