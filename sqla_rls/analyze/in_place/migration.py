"""The changes of a migration, and what they may change about access."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from sqla_rls.analyze.in_place.splice import quoted
from sqla_rls.catalog.read import DatabaseSnapshot
from sqla_rls.diff.functions import FunctionChange
from sqla_rls.diff.policies import Changes
from sqla_rls.snapshot import CURRENT_SCHEMA, TableKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """A database, and the changes of a migration to it."""

    live: DatabaseSnapshot
    changes: Changes
    #: The functions that the migration creates, replaces or drops.
    functions: Collection[FunctionChange] = ()
    #: The tables that the migration drops.
    dropped: Collection[TableKey] = ()
    #: The tables of which columns get another type, or go.
    altered: Collection[TableKey] = ()

    @property
    def tables(self) -> set[TableKey]:
        """The existing tables whose policies or flags change, or whose privileges, under row security."""
        policies = {
            one.table
            for change in self.changes.policies
            for one in (change.before, change.after)
            if one is not None
        }
        flags = {change.after.table for change in self.changes.row_security}
        privileges = self.changes.privileges.grants | self.changes.privileges.revokes
        granted = {TableKey(one.schema, one.name) for one in privileges if one.object_type == "TABLE"}
        protected = {key for key, one in self.live.row_security.items() if one.enabled}
        return (policies | flags | (granted & protected)) & self.live.row_security.keys() - {*self.dropped}

    @property
    def granted_functions(self) -> set[tuple[str, str]]:
        """The schema and name of the functions that other roles may execute afterwards."""
        default = self.live.default_schema
        privileges = self.changes.privileges.grants | self.changes.privileges.revokes
        # The name of a privilege on a function may have the types of the arguments.
        return {
            (one.schema or default, name)
            for one in privileges
            if one.object_type == "FUNCTION"
            for name in (one.name, one.name.rpartition("(")[0])
        }

    @property
    def changed_functions(self) -> set[tuple[str, str]]:
        """The schema and name of the functions that change, or that other roles may execute afterwards."""
        default = self.live.default_schema
        return self.granted_functions | {(one.key.schema or default, one.key.name) for one in self.functions}

    @property
    def bodies(self) -> Mapping[tuple[str, str], str]:
        """The bodies of the functions of which nothing else changes, by their schemas and names."""
        default = self.live.default_schema
        return {
            (one.key.schema or default, one.key.name): one.after.body.replace(CURRENT_SCHEMA, quoted(default))
            for one in self.functions
            if one.before is not None
            and one.after is not None
            and replace(one.before, body=one.after.body) == one.after
        }

    @property
    def changes_roles(self) -> bool:
        """Whether roles may get other rights by groups, attributes or schemas, and not by a table."""
        roles, privileges = self.changes.roles, self.changes.privileges
        return bool(roles.created or roles.altered or roles.granted or roles.revoked) or any(
            one.object_type == "SCHEMA" for one in privileges.grants | privileges.revokes
        )

    @property
    def may_open(self) -> bool:
        """Whether access to a table that exists may change."""
        if self.tables:
            return True
        protected = {key for key, one in self.live.row_security.items() if one.enabled}
        return bool(protected - {*self.dropped}) and (self.changes_roles or bool(self.changed_functions))
