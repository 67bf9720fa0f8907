"""The privileges and the policies of each caller's role on each protected table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.why.explanation import Command
from sqla_rls.analyze.worlds.objects import PolicyText, Profile, Relation


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The access of callers of one role to one table, whose row security holds for them."""

    table: Relation
    profile: Profile

    @property
    def role(self) -> str:
        return self.profile.role

    def has_privilege(self, command: Command) -> bool:
        """Return whether the role holds the privilege of *command* on the table or on a column."""
        return bool(getattr(self.profile, f"{command.lower()}s", False) or self._may_delete(command))

    def _may_delete(self, command: Command) -> bool:
        return command == "DELETE" and self.profile.delete

    def policies(self, command: Command) -> Sequence[PolicyText]:
        """Return the permissive policies of *command* for the role that aren't constantly false."""
        return [
            policy
            for policy in self.table.policies
            if policy.permissive
            and policy.name in self.profile.policies
            and policy.command in (command, "ALL")
            and _condition(policy, command) != "false"
        ]

    def is_open(self, command: Command) -> bool:
        """Return whether a policy of *command* is constantly true, and no restrictive policy exists."""
        return any(_condition(policy, command) == "true" for policy in self.policies(command)) and all(
            policy.permissive for policy in self.table.policies
        )

    def works(self, command: Command) -> bool:
        """Return whether the role has the privilege and a policy for *command*."""
        return self.profile.usage and self.has_privilege(command) and bool(self.policies(command))


def _condition(policy: PolicyText, command: Command) -> str | None:
    return policy.check if command == "INSERT" and policy.check is not None else policy.using


def accesses(database: Database) -> Iterator[Access]:
    """Yield the access of each caller's role to each table with policies, where row security holds."""
    for table in database.tables:
        if not table.row_security or not table.policies:
            continue
        for role in database.callers:
            if database.is_active(table.name, role.name):
                yield Access(table=table, profile=database.profiles[table.name, role.name])
