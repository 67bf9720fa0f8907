"""A database before and after a migration, as the catalogs describe it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from sqla_rls.analyze.in_place.conditions import Undecidable
from sqla_rls.analyze.in_place.definers import Definer, Name
from sqla_rls.analyze.in_place.splice import Expression, parsed
from sqla_rls.analyze.worlds.objects import Profile
from sqla_rls.analyze.worlds.schema import Schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A database before or after a migration, as its catalog describes it."""

    schema: Schema
    #: What each role may do before row security, by the names of relation and role.
    profiles: Mapping[tuple[str, str], Profile]
    #: Why nothing can be said of a role on a relation, by the names of both; of all roles, by "".  A reason
    #: names the relation, since it also counts for the relations that read this one.
    doubts: Mapping[tuple[str, str], str] = field(default_factory=dict)
    #: The functions whose calls their queries can replace.
    definers: Mapping[Name, Definer] = field(default_factory=dict)
    #: The roles that get other groups in the database after a migration, where Postgres can't be asked yet.
    regrouped: frozenset[str] = frozenset()


@dataclass(frozen=True)
class BothSides:
    """The questions about both sides that the catalogs answer."""

    before: Side
    after: Side

    def __iter__(self) -> Iterator[Side]:
        return iter((self.before, self.after))

    @property
    def schemas(self) -> tuple[Schema, Schema]:
        return self.before.schema, self.after.schema

    @cached_property
    def joined(self) -> Schema:
        """The objects of both."""
        return self.before.schema.joined(self.after.schema)

    def read(self, name: str) -> list[str]:
        """Return the relations that *name* reads on either side, with itself."""
        return sorted({one for schema in self.schemas for one in schema.reads(name)})

    def roles(self, name: str) -> list[str]:
        """Return the roles that may have privileges on *name*, without superusers."""
        found = {role for side in self for relation, role in side.profiles if relation == name}
        attributes = [schema.roles for schema in self.schemas]

        def is_superuser(role: str) -> bool:
            # A role that the migration creates has no attributes on either side.
            known = [one[role] for one in attributes if role in one]
            return bool(known) and all(one.is_superuser for one in known)

        return sorted(role for role in found if not is_superuser(role))

    def expressions(self, names: Iterable[str]) -> list[Expression]:
        """Return the expressions of all policies of *names*."""
        names = list(names)
        return [
            parsed(sql)
            for schema in self.schemas
            for name in names
            if name in schema.relations
            for policy in schema.relations[name].policies
            for sql in (policy.using, policy.check)
            if sql is not None
        ]

    def obstacle(self, name: str, role: str) -> str | None:
        """Return why the rows of *name* can't be made, or nothing can be said of *role*; None if they can."""
        if any(name not in schema.relations for schema in self.schemas):
            return "it doesn't exist on both sides"
        relation = self.before.schema.relations[name]
        if relation.is_view:
            return "a view is not evaluated in place"
        if not relation.has_rows:
            return "the rows of a foreign table can't be made"
        doubts = (
            side.doubts.get(key)
            for side in self
            # A reason of its own comes before those of the relations that its policies read.
            for one in sorted(self.read(name), key=lambda one: one != name)
            for key in ((one, role), (one, ""))
        )
        return next((doubt for doubt in doubts if doubt is not None), None)

    def keeps_privileges(self, name: str, role: str) -> bool:
        """Return whether *role* has the same privileges on *name* on both sides."""
        before, after = (_but_policies(side.profiles.get((name, role))) for side in self)
        return before == after

    def is_same_around(self, name: str, role: str) -> bool:
        """Return whether a trigger of *name* does the same on both sides."""
        before, after = self.schemas
        calls = before.calls(name) | after.calls(name)
        if any(before.functions.get(one) != after.functions.get(one) for one in calls):
            return False

        def facts(side: Side, one: str) -> Any:
            relation = side.schema.relations.get(one)
            if relation is None:
                return None
            policies = () if one == name else relation.policies
            flags = (relation.row_security, relation.forced, relation.owner)
            return policies, flags, relation.triggers, _but_policies(side.profiles.get((one, role)))

        return all(facts(self.before, one) == facts(self.after, one) for one in self.read(name))

    def require_same_columns(self, name: str) -> None:
        """Raise Undecidable if a column that both sides have isn't the same on both."""
        before, after = self.schemas
        for one in self.read(name):
            if one in before.relations and one in after.relations:
                old, new = before.relations[one].columns, after.relations[one].columns
                for column in old.keys() & new.keys():
                    if replace(old[column], default=None) != replace(new[column], default=None):
                        raise Undecidable(f"column {column} of {one} changes")

    def require_same_types(self, names: Iterable[tuple[str, str]]) -> None:
        """Raise Undecidable if one of the domains, or a type made of these, isn't the same on both sides."""
        before, after = (schema.implied.types for schema in self.schemas)
        for name in sorted(names):
            if before.get(name) != after.get(name):
                raise Undecidable(f"type {'.'.join(name)} changes")

    def generated(self, name: str, expressions: Iterable[Expression]) -> list[Expression]:
        """Return the expressions of generated columns that *expressions* of relation *name* may read."""
        names = {each for one in expressions for each in one.vocabulary.names}
        return [
            parsed(column.generated)
            for schema in self.schemas
            for one in self.read(name)
            if (relation := schema.relations.get(one)) is not None
            for column in relation.columns.values()
            # The name of the relation may be its row.
            if column.generated is not None and not names.isdisjoint((column.name, relation.relname))
        ]

    def constraints(self, name: str) -> list[Expression]:
        """Return the conditions of the rows that *name*, and the relations that it reads, may have."""
        return [
            parsed(sql)
            for schema in self.schemas
            for one in self.read(name)
            if (relation := schema.relations.get(one)) is not None
            for sql in (
                *relation.checks,
                *relation.new_checks,
                relation.partition_check,
                *(check for column in relation.columns.values() for check in column.domain_checks),
            )
            if sql is not None
        ]

    def require_same_functions(self, signatures: Sequence[str], *, but_bodies: Collection[Name]) -> None:
        """Raise Undecidable if one of the functions isn't the same on both sides.

        Args:
            signatures: the functions.
            but_bodies: the functions that may have another body.
        """
        for signature in signatures:
            old, new = (schema.functions.get(signature) for schema in self.schemas)
            if old is not None and new is not None and (old.schema, old.name) in but_bodies:
                new = new.with_body(old.body)
            if old != new:
                raise Undecidable(f"function {signature} changes")


def _but_policies(profile: Profile | None) -> Profile | None:
    return None if profile is None else replace(profile, policies=())
