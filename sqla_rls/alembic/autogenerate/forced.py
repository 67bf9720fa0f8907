"""Warns of tables where FORCE hides rows from the owner, which runs the data migrations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from sqla_rls.catalog.read import DatabaseSnapshot
from sqla_rls.log import autogenerate_log
from sqla_rls.snapshot import (
    COMMAND_PRIVILEGES,
    PUBLIC,
    ROLE_KEYWORDS,
    ObjectKey,
    Policy,
    PolicyKey,
    Snapshot,
    TableKey,
)

log = autogenerate_log(__name__)


def kept_from_the_owner(live: DatabaseSnapshot, models: Snapshot) -> dict[TableKey | PolicyKey, str]:
    """Log a warning for each table whose owner loses rows when *models* replaces *live*, and return them.

    Only a policy that is constantly true counts: other policies may depend on the caller, and a migration has
    none.  Superusers and BYPASSRLS don't count, since owners differ between clusters.
    """
    forced = [table for table, flags in models.row_security.items() if flags.enabled and flags.forced]
    remarks: dict[TableKey | PolicyKey, str] = {}
    if not forced:
        return remarks
    before, after = _by_table(live), _by_table(models)
    for table in forced:
        owners = set(_roles_of_owner(live, table))
        kept = _kept(after.get(table, ()), owners)
        was = live.row_security.get(table)
        if was is not None and was.enabled and was.forced:
            kept = [command for command in kept if command not in _kept(before.get(table, ()), owners)]
        if kept:
            argument = repr(table.name) + (f", schema={table.schema!r}" if table.schema else "")
            remarks[table] = (
                f"data migrations can't reach every row of {table.name}: row security is forced on its "
                f"owner, and no policy lets the owner {' or '.join(kept)} every row. UPDATE and DELETE miss "
                "rows without an error, op.bulk_insert() fails, and SECURITY DEFINER functions of the owner "
                f"return nothing. Write `with op.without_forced_row_level_security({argument}):` around such "
                "statements"
            )
            log.warning("%s", remarks[table])
    return remarks


def _by_table(snapshot: Snapshot) -> dict[TableKey, list[Policy]]:
    listed = sorted(snapshot.policies.values(), key=lambda policy: str(policy.table))
    return {table: list(found) for table, found in groupby(listed, key=lambda policy: policy.table)}


def _roles_of_owner(live: DatabaseSnapshot, table: TableKey) -> Iterator[str]:
    """Yield the roles whose policies hold for the owner; the migrating role will own a new table."""
    yield PUBLIC
    yield from ROLE_KEYWORDS
    on = ObjectKey("TABLE", *table)
    roles = [owner for *found, owner in live.owners if tuple(found) == on]
    roles = roles or [live.role_keywords["CURRENT_USER"]]
    for role in roles:  # the list grows
        yield role
        roles += [
            one.role
            for one in live.memberships
            if one.member == role and one.inherit is not False and one.role not in roles
        ]


def _kept(policies: Iterable[Policy], owners: set[str]) -> list[str]:
    """Return the commands that don't reach every row for *owners*."""
    applying = [policy for policy in policies if policy.roles & owners]

    def reaches_all(command: str) -> bool:
        found = [policy for policy in applying if policy.command in (command, "ALL")]
        return any(one.permissive and _is_true(one) for one in found) and all(
            one.permissive or _is_true(one) for one in found
        )

    return [command for command in COMMAND_PRIVILEGES["ALL"] if not reaches_all(command)]


def _is_true(policy: Policy) -> bool:
    return {policy.using, policy.with_check} <= {None, "true"}
