"""Warns of tables that callers reach without row security."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from sqla_rls.catalog.read import DatabaseSnapshot
from sqla_rls.log import autogenerate_log
from sqla_rls.snapshot import (
    BROUGHT_ALONG,
    DefaultPrivilege,
    ObjectKey,
    Snapshot,
    TableKey,
    callers,
    named_by,
)

log = autogenerate_log(__name__)


def say_what_callers_reach(live: DatabaseSnapshot, models: Snapshot, left_out: Collection[TableKey]) -> None:
    """Warn of tables without row security and without declarations, except those *left_out*.

    Materialized views and foreign tables can't have row security.
    """
    if not models.managed:
        return
    reached_by = {role for role in _callers(live, models) if not role.startswith("pg_")}
    open_to_all = {ObjectKey("TABLE", *table) for table in live.without_row_security}
    held: dict[ObjectKey, dict[str, set[str]]] = {}
    for one in live.privileges:
        if one[:3] in open_to_all and one.grantee in reached_by:
            held.setdefault(one.object, {}).setdefault(one.grantee, set()).add(one.privilege)
    covered = live.heirs_of(models.managed)
    for table, kind in sorted(live.without_row_security.items(), key=str):
        found = held.get(ObjectKey("TABLE", *table))
        if found and not (table in models.managed or table in covered or table in left_out):
            hint = (
                "Declare policies on its Table; grant() or disable_row_level_security(), if this is "
                "intended; or revoke these privileges"
                if kind == "table"
                else "Revoke these privileges, since it can't have policies, and show callers their rows by "
                "a view() with a WHERE and security_invoker=False"
            )
            log.warning(
                "callers can reach every row of %s %s: it has no row security, and %s. %s",
                kind,
                ".".join(filter(None, table)),
                ", ".join(
                    f"{role} holds {_listed(privileges)}" for role, privileges in sorted(found.items())
                ),
                hint,
            )


def say_what_opens_partitions(
    live: DatabaseSnapshot,
    models: Snapshot,
    partitioned: Iterable[TableKey],
    revoked: Collection[DefaultPrivilege],
) -> None:
    """Warn of default privileges that give callers each new partition of tables with row security.

    *partitioned* are the new partitioned tables; they are asked for only if a caller has such privileges.
    *revoked* are the revoked default privileges.
    """
    reached_by = _callers(live, models)
    given = [
        one
        for one in (live.default_privileges - {*revoked}) | models.default_privileges
        if one.object_type == "TABLES" and one.grantee in reached_by
    ]
    if not given:
        return
    protected = {table for table, flags in models.row_security.items() if flags.enabled}
    parents = protected & {*live.partitioned, *partitioned}
    opened: dict[str, tuple[set[str], set[TableKey]]] = {}
    for one in given:
        schemas = {table for table in parents if one.schema in (None, table.schema or live.default_schema)}
        if schemas:
            privileges, tables = opened.setdefault(one.grantee, (set(), set()))
            privileges.add(one.privilege)
            tables |= schemas
    for role, (privileges, tables) in sorted(opened.items()):
        log.warning(
            "%s can reach every row of new partitions: default privileges give it %s on each new partition "
            "of %s, until the next revision revokes them. Revoke the default privileges, or create "
            "partitions in a schema without them",
            role,
            _listed(privileges),
            ", ".join(sorted(".".join(filter(None, table)) for table in tables)),
        )


def _callers(live: DatabaseSnapshot, models: Snapshot) -> set[str]:
    # The login role of an app takes on these, also if no policy names them, as with anon of Supabase.
    lent = {
        str(group)
        for role in models.roles.values()
        if role.login and BROUGHT_ALONG.keys() & set(map(str, role.member_of or ()))
        for group in role.member_of or ()
    }
    return live.groups_of(callers({*named_by(models.policies.values()), *lent}))


def _listed(privileges: Collection[str]) -> str:
    return ", ".join(sorted(privileges))
