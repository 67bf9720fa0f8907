"""Changes of policies and of the flags of row security as operations."""

from __future__ import annotations

from collections.abc import Iterator

from sqla_rls.alembic.autogenerate.privileges import (
    log_privileges,
)
from sqla_rls.alembic.autogenerate.render import Call
from sqla_rls.alembic.autogenerate.roles import log_roles
from sqla_rls.diff.policies import Changes, RowSecurityChange
from sqla_rls.log import autogenerate_log
from sqla_rls.snapshot import (
    Policy,
)

log = autogenerate_log(__name__)


def removed_policies(changes: Changes) -> list[Policy]:
    return [change.before for change in changes.policies if change.before and not change.after]


def added_policies(changes: Changes) -> list[Policy]:
    return [change.after for change in changes.policies if change.after and not change.before]


def create_policy(policy: Policy) -> Call:
    schema, table = policy.table
    return Call(
        "create_policy",
        policy.name,
        table,
        command=policy.command,
        roles=sorted(policy.roles),
        using=policy.using,
        with_check=policy.with_check,
        permissive=None if policy.permissive else False,
        comment=policy.comment,
        schema=schema,
    ).undone_by(Call("drop_policy", policy.name, table, schema=schema))


def alter_policy(before: Policy, after: Policy) -> Call:
    def call(old: Policy, new: Policy) -> Call:
        schema, table = old.table
        return Call(
            "alter_policy",
            old.name,
            table,
            roles=sorted(new.roles) if new.roles != old.roles else None,
            using=new.using if new.using != old.using else None,
            with_check=new.with_check if new.with_check != old.with_check else None,
            new_policy_name=new.name if new.name != old.name else None,
            schema=schema,
        )

    return call(before, after).undone_by(call(after, before))


def row_security_calls(change: RowSecurityChange) -> Iterator[Call]:
    schema, table = change.after.table
    for old, new, words in (
        (change.before.enabled, change.after.enabled, ("disable", "enable")),
        (change.before.forced, change.after.forced, ("no_force", "force")),
    ):
        if old != new:
            yield Call(f"{words[new]}_row_level_security", table, schema=schema).undone_by(
                Call(f"{words[old]}_row_level_security", table, schema=schema)
            )


def log_changes(changes: Changes) -> None:
    added, removed = (
        {policy.key for policy in one} for one in (added_policies(changes), removed_policies(changes))
    )
    altered = {change.after.key for change in changes.policies if change.before and change.after}
    for verb, keys in (
        ("added", added - removed),
        ("removed", removed - added),
        ("changed", altered | (added & removed)),
    ):
        for table, name in sorted(keys, key=str):
            log.info("Detected %s policy %r on %r", verb, name, table.name)
    for flags in changes.row_security:
        log.info("Detected changed row security of %r", flags.after.table.name)
    log_roles(changes.roles)
    log_privileges(changes.privileges)
