"""The objects of a database that decide about access, as frozen values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

from sqla_rls.analyze.vocabulary import Vocabulary, read_function

#: All roles, as the queries name them, and the role that stands for one without privileges of its own.
PUBLIC: Final = "PUBLIC"

#: The places of privileges in what functions.sql calls properties.
_PRIVILEGES: Final = slice(8, 10)

_read_function = cache(read_function)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column; a domain has the kind and category of its base type."""

    name: str
    type: str
    base: str
    kind: str
    category: str
    element: Mapping[str, str] | None
    labels: tuple[str, ...]
    domain_checks: tuple[str, ...]
    #: Whether each value satisfies the checks of its domain; values from before NOT VALID may not.
    domain_holds: bool
    #: Whether no row has NULL, not even one from before NOT VALID, or one of a child.
    not_null: bool
    #: Whether a new row needs a value.
    needs_value: bool
    default: str | None
    generated: str | None
    identity: str
    #: The collation, if a value that is cast to the type hasn't it.
    collation: str | None
    #: Whether two different texts are two different values.
    is_deterministic: bool

    @property
    def is_writable(self) -> bool:
        """Whether a statement can give it a value."""
        return self.generated is None and self.identity != "a"

    def collated(self, value: str) -> str:
        """Return the SQL of a *value* of the column's type with the collation of the column."""
        return value if self.collation is None else f"{value} COLLATE {self.collation}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignKey:
    """A foreign key; *target* is the name of a relation."""

    name: str
    columns: tuple[str, ...]
    target: str
    target_columns: tuple[str, ...]
    is_deferrable: bool
    #: MATCH FULL: all columns are NULL, or none.
    is_full: bool
    #: Whether each row satisfies it, not only each new one.
    holds: bool
    definition: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyText:
    """A policy, with its expressions as Postgres prints them with every name qualified."""

    name: str
    permissive: bool
    command: str
    roles: tuple[str, ...]
    using: str | None
    check: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """A table, a view, or another relation with rows."""

    oid: int
    #: ``schema.name``, quoted.
    name: str
    schema: str
    relname: str
    #: pg_class.relkind: r, p, v, m or f.
    kind: str
    owner: str
    row_security: bool
    forced: bool
    options: tuple[str, ...]
    query: str | None
    is_partition: bool
    columns: Mapping[str, Column]
    #: The columns of each unique key, the primary key first.
    keys: tuple[tuple[str, ...], ...]
    has_primary_key: bool
    #: The columns and expressions of each unique index that isn't one of *keys*, and its condition.
    partial_keys: tuple[tuple[tuple[str, ...], str | None], ...]
    #: Those that each row satisfies, or, in a Schema of new rows, all of them.
    foreign_keys: tuple[ForeignKey, ...]
    #: Those that new rows satisfy, and older rows or those of children may not.
    new_foreign_keys: tuple[ForeignKey, ...]
    #: The CHECK constraints that each row satisfies.
    checks: tuple[str, ...]
    #: The CHECK constraints that new rows satisfy, and older rows or those of children may not.
    new_checks: tuple[str, ...]
    #: The condition that a partition sets for its rows.
    partition_check: str | None
    policies: tuple[PolicyText, ...]
    triggers: tuple[str, ...]
    children: tuple[str, ...]
    #: The privileges on the relation and its columns, with their grantees, as text.
    privileges: str
    #: Everything that access depends on and that is the relation's own, as text.
    definition: str
    #: Whether a view reads its tables with the rights of the current user.
    is_invoker: bool = False

    @property
    def is_view(self) -> bool:
        return self.kind in ("v", "m")

    @property
    def has_rows(self) -> bool:
        """Whether an owner can insert rows."""
        return self.kind in ("r", "p")


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function that isn't part of Postgres or of an extension."""

    signature: str
    schema: str
    name: str
    language: str
    body: str
    is_bound: bool
    owner: str
    definition: str
    #: Whether it is SECURITY DEFINER.
    is_definer: bool = False
    #: The types of its arguments and its result, with their schemas.
    types: tuple[tuple[str, str], ...] = ()
    #: The type of its result.
    returns: str = ""

    @property
    def vocabulary(self) -> Vocabulary:
        return _read_function(self.language, self.body)

    def with_body(self, body: str) -> Function:
        """Return the function with another body, unless its definition isn't known."""
        if not self.definition:
            return self
        # As the catalog's reader writes it.
        signature, language, _, *others = json.loads(self.definition)
        return replace(self, body=body, definition=json.dumps([signature, language, body, *others]))

    @property
    def without_privileges(self) -> list[Any]:
        """The definition without the privileges on the function and its schema."""
        *others, properties = json.loads(self.definition)
        parts = json.loads(properties)
        del parts[_PRIVILEGES]
        return [*others, *parts]

    @property
    def is_opaque(self) -> bool:
        """Whether the function may read or write what its body doesn't name."""
        return not self.vocabulary.is_readable


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleAttributes:
    """A role."""

    name: str
    is_superuser: bool
    bypasses_row_security: bool
    inherits: bool
    may_login: bool
    #: Whether the privileges of each role are inherited.
    member_of: Mapping[str, bool]
    #: The roles to which it may SET ROLE.
    may_set: tuple[str, ...]
    #: The roles that it may grant, to itself, too.
    may_grant: tuple[str, ...]
    settings: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The privileges of a role on a relation, before row security."""

    role: str
    usage: bool
    delete: bool
    selects: tuple[str, ...]
    inserts: tuple[str, ...]
    updates: tuple[str, ...]
    #: Whether the role is a superuser or has BYPASSRLS.
    bypasses: bool
    owns: bool
    #: The policies that are for the role.
    policies: tuple[str, ...]

    @property
    def has_privileges(self) -> bool:
        return self.usage and bool(self.delete or self.selects or self.inserts or self.updates)


@dataclass(frozen=True, slots=True)
class Edge:
    """A part of a relation or function refers to a column, or to a function."""

    part: str
    reads: str | None
    column: str | None
    calls: str | None
    #: The policy whose part it is; None: another part, or all policies of the relation.
    policy: str | None = None
