"""Changes of privileges as operations."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from itertools import groupby

from sqla_rls.alembic.render import Call
from sqla_rls.create import privilege_order
from sqla_rls.diff_privileges import PrivilegeChanges
from sqla_rls.objects import DefaultPrivilege, Privilege

log = logging.getLogger(__name__)


def grants(privileges: Iterable[Privilege]) -> Iterator[Call]:
    for call in _grants(privileges):
        options = {name: value for name, value in call.kwargs.items() if name != "grant_option"}
        # What the grantee has passed on goes, too: nobody declared it either.
        cascade = True if "grant_option" in call.kwargs else None
        yield call.undone_by(Call("revoke", *call.args, **options, cascade=cascade))


def revokes(privileges: Iterable[Privilege]) -> Iterator[Call]:
    for call in grants(privileges):
        yield call.undo


def default_privileges(changes: PrivilegeChanges) -> Iterator[Call]:
    for default in sorted(changes.default_revokes, key=str):
        yield _grant_default(default).undo
    for default in sorted(changes.default_grants, key=str):
        yield _grant_default(default)


def log_privileges(changes: PrivilegeChanges) -> None:
    for what, calls in (
        ("privileges that nobody declared:", revokes(changes.revokes)),
        ("missing privileges:", grants(changes.grants)),
    ):
        for call in calls:
            privileges, name, (grantee,) = call.args
            kind = call.kwargs.get("object_type", "TABLE").lower()
            log.info("Detected %s %s of %r on %s %r", what, ", ".join(privileges), grantee, kind, name)
    for what, defaults in (
        ("default privilege that nobody declared:", changes.default_revokes),
        ("missing default privilege:", changes.default_grants),
    ):
        for one in sorted(defaults, key=str):
            log.info("Detected %s %s of %r on %s", what, one.privilege, one.grantee, one.object_type)


def _grants(privileges: Iterable[Privilege]) -> Iterator[Call]:
    ordered = sorted(
        privileges, key=lambda one: (*privilege_order(one)[:4], one.grantable, privilege_order(one))
    )
    for (*_, grantable), group in groupby(ordered, key=lambda one: (*one[:4], one.grantable)):
        found = list(group)
        object_type, schema, name, grantee = found[0][:4]
        yield Call(
            "grant",
            list(dict.fromkeys(one.privilege for one in found)),
            name,
            [grantee],
            object_type=None if object_type == "TABLE" else object_type,
            schema=schema,
            grant_option=grantable or None,
        )


def _grant_default(default: DefaultPrivilege) -> Call:
    args = [default.privilege], default.object_type, [default.grantee]
    return Call("grant_default_privileges", *args, schema=default.schema).undone_by(
        Call("revoke_default_privileges", *args, schema=default.schema)
    )
