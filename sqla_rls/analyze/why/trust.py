"""Whose code may run: that of a role with few rights would get those of the connection's role."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, text

from sqla_rls.analyze.why.target import query
from sqla_rls.catalog.query import undone

_SEARCH_CATALOG: Final = text("SELECT pg_catalog.set_config('search_path', 'pg_catalog', true)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Untrusted:
    """The objects of roles that the connection's role has no reason to trust, with the names of these.

    A policy calls functions.  A function that the connection's role calls in place of the caller can take on
    all rights of that role, also by RESET ROLE.
    """

    #: Tables and views, ``schema.name`` as Postgres quotes it.
    relations: Mapping[str, str] = field(default_factory=dict[str, str])
    #: Functions by their signatures.
    functions: Mapping[str, str] = field(default_factory=dict[str, str])
    #: Domains and extensions.
    others: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def read(cls, connection: Connection) -> Untrusted:
        """Read the catalog.

        Emits:
            A SELECT statement over the catalog, with ``search_path = pg_catalog`` in a savepoint.
        """
        found: dict[str, dict[str, str]] = {"relation": {}, "function": {}}
        others: dict[str, str] = {}
        with undone(connection):
            connection.execute(_SEARCH_CATALOG)
            for row in connection.execute(query("untrusted")):
                found.get(row.kind, others)[row.name] = row.role
        return cls(relations=found["relation"], functions=found["function"], others=others)

    def trusting(self, roles: Collection[str]) -> Untrusted:
        """Return those of other roles than *roles*."""

        def left(found: Mapping[str, str]) -> Mapping[str, str]:
            return {name: role for name, role in found.items() if role not in roles}

        return Untrusted(
            relations=left(self.relations), functions=left(self.functions), others=left(self.others)
        )

    def obstacle(self, relations: Collection[str], functions: Collection[str]) -> str | None:
        """Return why access to *relations* that calls *functions* may not run; None if it may."""
        for one in sorted(self.relations.keys() & relations):
            return _reason(f"{one}, or the type of a column,", self.relations[one])
        # Of the functions of one name, Postgres may take another one than in the policy itself.
        called = {_without_arguments(one) for one in functions}
        for one, role in self.functions.items():
            if _without_arguments(one) in called:
                return _reason(f"function {one}", role)
        return None

    @property
    def any_obstacle(self) -> str | None:
        """Why nothing of the whole database may run; None if it may."""
        for kind, found in (("", self.relations), ("function ", self.functions), ("", self.others)):
            for name, role in found.items():
                return _reason(f"{kind}{name}", role)
        return None


def _without_arguments(signature: str) -> str:
    # A name in quotes may hold a parenthesis, and then more functions count.
    return signature.partition("(")[0]


def _reason(what: str, role: str) -> str:
    return f"{what} belongs to role {role}, whose code isn't trusted with the rights of this connection"
