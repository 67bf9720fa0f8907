"""The preset for a database of Supabase, or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from sqlalchemy import Connection, MetaData, Table

from sqla_rls import supabase
from sqla_rls.catalog.query import fetch_rows
from sqla_rls.catalog.read import DatabaseSnapshot, policies_on, row_security_of
from sqla_rls.declare.base import kept_on
from sqla_rls.declare.ignore import Ignored
from sqla_rls.snapshot import Policy, Role, TableKey

_IS_SUPABASE: Final = """
SELECT count(*) = 4 AS is_supabase FROM pg_catalog.pg_roles
 WHERE rolname IN ('anon', 'authenticated', 'service_role', 'supabase_admin')
"""
_TABLES: Final[Mapping[str, Callable[[MetaData], Table]]] = {
    "storage_objects": supabase.storage_objects,
    "realtime_messages": supabase.realtime_messages,
}


@dataclass(frozen=True, slots=True)
class Preset:
    """The part of a database that its module leaves to ``supabase.leave_alone()``; false for none."""

    #: The roles that the preset declares.
    roles: frozenset[str] = frozenset()
    ignored: Ignored = field(default_factory=Ignored)

    @classmethod
    def of(cls, connection: Connection) -> Preset:
        (row,) = fetch_rows(connection, _IS_SUPABASE)
        if not row["is_supabase"]:
            return cls()
        supabase.leave_alone(metadata := MetaData())
        return cls(frozenset(one.name for one in kept_on([metadata], Role)), Ignored.by([metadata]))

    def __bool__(self) -> bool:
        return bool(self.roles)

    def without(self, live: DatabaseSnapshot) -> DatabaseSnapshot:
        """Return *live* without the objects of Supabase."""
        ungranted = frozenset(filter(self.ignored.role, self.roles))
        return replace(self.ignored.without(live), roles_of_others=self.roles, ungranted=ungranted)

    def policies(self, connection: Connection) -> dict[str, list[Policy]]:
        """Return the policies on the tables of Supabase, by the functions that return these."""
        found = {}
        for name, function in _TABLES.items() if self else ():
            table = function(MetaData())
            key = TableKey(table.schema, table.name)
            if row_security_of(connection, [key], ""):
                found[name] = policies_on(connection, [key], "")
        return found
