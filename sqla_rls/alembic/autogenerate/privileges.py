"""Changes of privileges as operations."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from sqla_rls.alembic.autogenerate.render import Call
from sqla_rls.catalog.read import DatabaseSnapshot
from sqla_rls.ddl.privileges import granted_together
from sqla_rls.ddl.public_privileges import PUBLIC_PRIVILEGE_NAMES
from sqla_rls.diff.privileges import PrivilegeChanges, given_by_default
from sqla_rls.log import autogenerate_log
from sqla_rls.snapshot import PUBLIC, DefaultPrivilege, ObjectKey, Privilege, SequenceKey

log = autogenerate_log(__name__)


def grants(privileges: Iterable[Privilege]) -> Iterator[Call]:
    """Yield grants by the owner, each undone by the revoke of the same privilege of every grantor."""
    grantors: dict[Privilege, set[str]] = {}
    for one in privileges:
        grantors.setdefault(one._replace(grantor=None), set()).update([one.grantor] if one.grantor else [])
    together: dict[tuple[str, ...], list[Privilege]] = {}
    for one, names in grantors.items():
        together.setdefault(tuple(sorted(names)), []).append(one)
    for names_of_grantors in sorted(together):
        yield from _grants_by(together[names_of_grantors], names_of_grantors)


def _grants_by(privileges: Iterable[Privilege], grantors: Collection[str]) -> Iterator[Call]:
    for one in granted_together(privileges):
        object_type, schema, name = one.object
        args = one.privileges, name, [one.grantee]
        options: dict[str, Any] = {
            "columns": one.columns and list(one.columns),
            "object_type": None if object_type == "TABLE" else object_type,
            "schema": schema,
        }
        # CASCADE also revokes the undeclared privileges that the grantee has granted to others.
        option = one.grantable or None
        yield Call("grant", *args, **options, grant_option=option).undone_by(
            Call("revoke", *args, **options, cascade=option, granted_by=list(grantors) or None)
        )


def revokes(privileges: Iterable[Privilege]) -> Iterator[Call]:
    for call in grants(privileges):
        yield call.undo


def restored_grants(left_alone: Iterable[Privilege], recreated: ObjectKey) -> Iterator[Call]:
    """Yield the grants of *left_alone* on an object that the migration has recreated."""
    for call in grants(one for one in left_alone if one.object == recreated):
        # The drop of the object revokes them.
        call.undo.implicit = True
        yield call


def privileges_to_restore(
    live: DatabaseSnapshot, objects: Collection[ObjectKey], sequences: Iterable[SequenceKey] = ()
) -> Iterator[Call]:
    """Yield the privileges on dropped objects that the downgrade restores.

    The downgrade also revokes the effects of default privileges on them.
    """
    if not objects:
        return
    # The owner grants them in the downgrade.
    held = {one._replace(grantor=None) for one in live.privileges if one.object in objects}
    given = given_by_default(
        live.default_privileges,
        (one for one in objects if one.object_type != "SEQUENCE"),
        sequences,
        live.default_schema,
    )
    kept = {one._replace(grantable=False) for one in held}
    # The downgrade runs in reverse: a later revoke on the table would revoke grants on columns.
    for call in (*revokes(held), *grants(set(given) - kept)):
        call.implicit = True
        yield call


def public_revokes(changes: PrivilegeChanges, *, is_first: bool) -> Iterator[Call]:
    """Yield the revoke of all PUBLIC_PRIVILEGES, since another database may have more of them.

    The downgrade grants those that PUBLIC holds in this database.  With *is_first*, the revision revokes them
    even if PUBLIC holds none here.
    """
    held = list(changes.public_revokes)
    if held or is_first:
        yield Call("revoke_public_privileges", list(PUBLIC_PRIVILEGE_NAMES)).undone_by(
            Call("grant_public_privileges", held, implicit=not held)
        )


def default_privileges(changes: PrivilegeChanges) -> Iterator[Call]:
    for default in sorted(changes.default_revokes, key=str):
        yield _grant_default(default).undo
    for default in sorted(changes.default_grants, key=str):
        yield _grant_default(default)


def log_privileges(changes: PrivilegeChanges) -> None:
    for privilege in changes.public_revokes:
        log.info("Detected %s of PUBLIC, which the models revoke", privilege)
    for what, calls in (
        ("undeclared privileges:", revokes(changes.revokes | changes.revokes_on_new)),
        ("missing privileges:", grants(changes.grants)),
    ):
        for call in calls:
            privileges, name, (grantee,) = call.args
            kind = call.kwargs.get("object_type", "TABLE").lower()
            columns = f" ({', '.join(call.kwargs['columns'])})" if "columns" in call.kwargs else ""
            listed = ", ".join(privileges)
            kind += " of" if kind == "sequence" and columns else ""
            log.info("Detected %s %s%s of %r on %s %r", what, listed, columns, grantee, kind, name)
    for what, defaults in (
        ("undeclared default privilege:", changes.default_revokes),
        ("missing default privilege:", changes.default_grants),
    ):
        for one in sorted(defaults, key=str):
            log.info("Detected %s %s of %r on %s", what, one.privilege, one.grantee, one.object_type)


def _grant_default(default: DefaultPrivilege) -> Call:
    args = [default.privilege], default.object_type, [default.grantee]
    return Call("grant_default_privileges", *args, schema=default.schema).undone_by(
        Call("revoke_default_privileges", *args, schema=default.schema)
    )


def say_who_must_grant(live: DatabaseSnapshot, privileges: Iterable[Privilege]) -> None:
    """Log who must grant the missing *privileges* on schemas that another role owns."""
    of_public = {(one.name, one.privilege) for one in live.privileges if one.grantee == PUBLIC}
    for one in sorted(privileges, key=str):
        if (one.name, one.privilege) not in of_public:
            from sqla_rls.catalog.missing_grants import MissingGrant  # most roles may grant

            missing = MissingGrant(one.privilege, one.name, one.grantee, live.out_of_reach[one.name])
            log.warning("%s", missing)
