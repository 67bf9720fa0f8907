"""A database after a migration, as its catalog would describe it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection

from sqla_rls.analyze.in_place.asking import access_asks_for_role
from sqla_rls.analyze.in_place.definers import describe_definers
from sqla_rls.analyze.in_place.described import Expression, describe
from sqla_rls.analyze.in_place.migration import Migration
from sqla_rls.analyze.in_place.privileges import Privileges
from sqla_rls.analyze.in_place.sides import Side
from sqla_rls.analyze.vocabulary import read_expression
from sqla_rls.analyze.worlds.objects import PUBLIC as EVERY_ROLE
from sqla_rls.analyze.worlds.objects import Edge, PolicyText, Profile, Relation
from sqla_rls.analyze.worlds.schema import Schema, read_profiles
from sqla_rls.catalog.read import DatabaseSnapshot
from sqla_rls.snapshot import AUTH_SCHEMA, PUBLIC, Policy, TableKey


@dataclass(slots=True)
class Sides:
    """Both sides of *migration*, for the tables *names*."""

    connection: Connection
    migration: Migration
    before: Side = field(init=False)
    after: Side = field(init=False)
    names: list[str] = field(init=False)
    #: The tables on which only some roles get other rights, and these roles.
    roles: Mapping[str, frozenset[str]] = field(init=False)
    _doubts: dict[tuple[str, str], str] = field(default_factory=dict)
    _regrouped: frozenset[str] = frozenset()
    #: The bodies that functions get, by their signatures.
    _bodies: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def read(cls, connection: Connection, migration: Migration) -> Sides:
        """Read the catalog, and describe the declared expressions.

        Emits:
            SELECT statements over the catalog, and a temporary function in a savepoint that is rolled back.
        """
        self = cls(connection, migration)
        schema = Schema.read(connection)
        changed = {relation.name for relation in map(self._finder(schema), migration.tables) if relation}
        later = self._later(schema)
        changed |= {name for name in schema.relations if _calls(later, name, migration.changed_functions)}
        read = {name: later.reads(name) | schema.reads(name) for name in schema.relations}
        names = {name for name in read if read[name] & changed}
        model = Privileges(migration)
        self._regrouped = model.regrouped
        affected = self._affected(model, schema, later) if migration.changes_roles else {}
        self.roles = {
            name: frozenset(roles)
            for name, relation in schema.relations.items()
            if name not in names and relation.row_security
            if (roles := {role for one in read[name] for role in affected.get(one, ())})
        }
        self.names = sorted(name for name in names | self.roles.keys() if not schema.relations[name].is_view)
        self._add_profiles(schema, later, model)
        return self

    def _affected(self, model: Privileges, schema: Schema, later: Schema) -> Mapping[str, set[str]]:
        """Return the roles that get other rights on each relation, though nothing of its own changes."""
        created = {role.name for role in self.migration.changes.roles.created}
        roles = _roles(schema)
        roles += sorted(created.difference(roles))
        found: dict[str, set[str]] = {}
        for name, relation in later.relations.items():
            ones = {role for role in roles if len({*model.profiles(relation, role)}) > 1}
            if model.regrouped and (later.calls(name) or access_asks_for_role(later, [name])):
                ones |= model.regrouped
            found[name] = ones
        return found

    def _finder(self, schema: Schema) -> Any:
        by_key = {(one.schema, one.relname): one for one in schema.relations.values()}
        default = self.migration.live.default_schema
        return lambda key: by_key.get((key.schema or default, key.name))

    def _later(self, schema: Schema) -> Schema:
        find, changes = self._finder(schema), self.migration.changes
        relations, edges = dict(schema.relations), dict(schema.edges)
        gone = {change.before.key for change in changes.policies if change.before}
        new = [change.after for change in changes.policies if change.after]
        expressions = describe(self.connection, new, self.migration.live.default_schema)
        for policy in new:
            for sql in (policy.using, policy.with_check):
                refusal = None if sql is None else expressions[policy.table, sql].refusal
                if refusal is not None and (refused := find(policy.table)) is not None:
                    self._doubts[refused.name, ""] = (
                        f"the migration creates schema {AUTH_SCHEMA}, and the policies call its functions"
                        if refusal == f'schema "{AUTH_SCHEMA}" does not exist'
                        else f"Postgres can't read policy {policy.name} of {refused.name} before the "
                        f"migration: {refusal}"
                    )
        for key in {key.table for key in gone} | {policy.table for policy in new}:
            relation: Relation | None = find(key)
            if relation is None:
                continue
            kept = [one for one in relation.policies if (key, one.name) not in gone]
            added = [_text(policy, expressions, self.migration.live) for policy in new if policy.table == key]
            relations[relation.name] = replace(relation, policies=(*kept, *added))
            found = [
                edge
                for policy in new
                if policy.table == key
                for sql in (policy.using, policy.with_check)
                if sql is not None
                for edge in (
                    *expressions[policy.table, sql].edges,
                    *(
                        Edge("policy", None, None, signature)
                        for signature in schema.called_by_types(expressions[policy.table, sql].types)
                    ),
                )
            ]
            edges[relation.name] = tuple(dict.fromkeys((*edges.get(relation.name, ()), *found)))
        for change in changes.row_security:
            if (flagged := find(change.after.table)) is not None:
                relations[flagged.name] = replace(
                    relations[flagged.name],
                    row_security=change.after.enabled,
                    forced=change.after.forced,
                )
        changed = self.migration.changed_functions
        self._bodies = self._new_bodies(schema)
        functions = {
            name: replace(one, definition="")
            if (one.schema, one.name) in changed and name not in self._bodies
            else one
            for name, one in schema.functions.items()
        }
        later = replace(schema, relations=relations, edges=edges, functions=functions)
        return later.with_bodies(self._bodies)

    def _new_bodies(self, schema: Schema) -> Mapping[str, str]:
        """Return the new bodies of functions by their signatures, unless another right or name is in play."""
        bodies, granted = self.migration.bodies, self.migration.granted_functions
        found: dict[tuple[str, str], list[str]] = {}
        for signature, one in schema.functions.items():
            if (one.schema, one.name) in bodies and not one.is_bound:
                found.setdefault((one.schema, one.name), []).append(signature)
        return {
            signatures[0]: bodies[name]
            for name, signatures in found.items()
            if len(signatures) == 1 and name not in granted
        }

    def _add_profiles(self, schema: Schema, later: Schema, model: Privileges) -> None:
        read = sorted({one for name in self.names for each in (schema, later) for one in each.reads(name)})
        relations = [schema.relations[name] for name in read]
        roles = _roles(schema)
        held = read_profiles(self.connection, relations, roles)
        after: dict[tuple[str, str], Profile] = {}
        created = [role.name for role in self.migration.changes.roles.created if role.name not in roles]
        altered = {
            (key.schema or self.migration.live.default_schema, key.name) for key in self.migration.altered
        }
        for relation in relations:
            for role in (*roles, *created):
                key = (relation.name, role)
                old, new = model.profiles(later.relations[relation.name], role)
                if key in held and not _is_as_modelled(held[key], old):
                    self._doubts[key] = (
                        f"Postgres counts other privileges on {relation.name} than those of the catalog"
                    )
                elif (relation.schema, relation.relname) in altered:
                    self._doubts[key] = (
                        f"the migration changes the type of a column of {relation.name}, or drops one"
                    )
                after[key] = new
        called = {one for name in self.names for each in (schema, later) for one in each.calls(name)}
        functions = [schema.functions[one] for one in sorted(called & schema.functions.keys())]
        definers = describe_definers(self.connection, functions, {})
        self.before = Side(schema=schema, profiles=held, doubts=self._doubts, definers=definers)
        self.after = Side(
            schema=later,
            profiles=after,
            definers=describe_definers(self.connection, functions, self._bodies)
            if self._bodies
            else definers,
            regrouped=self._regrouped,
        )


def _calls(schema: Schema, name: str, functions: Collection[tuple[str, str]]) -> bool:
    """Return whether the policies of a table with row security reach one of *functions*."""
    relation = schema.relations[name]
    if not functions or not relation.row_security:
        return False
    waiting = {
        edge.calls for edge in schema.edges.get(name, ()) if edge.part == "policy" and edge.calls is not None
    }
    waiting |= _called_by_generated(schema, relation)
    found: set[str] = set()
    while waiting:
        found |= waiting
        waiting = {
            edge.calls for one in waiting for edge in schema.edges.get(one, ()) if edge.calls is not None
        } - found
    return any(
        (schema.functions[one].schema, schema.functions[one].name) in functions
        for one in found
        if one in schema.functions
    )


def _called_by_generated(schema: Schema, relation: Relation) -> set[str]:
    """Return the functions of the generated columns that the policies of *relation* may read."""
    generated = [
        (name, read_expression(column.generated))
        for name, column in relation.columns.items()
        if column.generated is not None
    ]
    if not generated:
        return set()
    policies = [
        sql for policy in relation.policies for sql in (policy.using, policy.check) if sql is not None
    ]
    names = {name for sql in policies for name in read_expression(sql).names}
    called = {
        (called[-2], called[-1])
        for name, vocabulary in generated
        # The name of the relation may be its row.
        if not names.isdisjoint((name, relation.relname))
        for called in (*vocabulary.functions, *schema.implied.calls(vocabulary))
        if len(called) > 1
    }
    return set(schema.signatures(called))


def _roles(schema: Schema) -> list[str]:
    """Return the roles that aren't superusers, and PUBLIC for those that don't exist yet."""
    return sorted({EVERY_ROLE, *(role.name for role in schema.roles.values() if not role.is_superuser)})


def _is_as_modelled(held: Profile, model: Profile) -> bool:
    # The policies of the model are those after the migration.
    return replace(held, policies=()) == replace(model, policies=())


def _text(
    policy: Policy, expressions: Mapping[tuple[TableKey, str], Expression], live: DatabaseSnapshot
) -> PolicyText:
    def sql(expression: str | None) -> str | None:
        return None if expression is None else expressions[policy.table, expression].sql

    return PolicyText(
        name=policy.name,
        permissive=policy.permissive,
        command=policy.command,
        roles=tuple(
            EVERY_ROLE if role == PUBLIC else live.role_keywords.get(role, role)
            for role in sorted(policy.roles)
        ),
        using=sql(policy.using),
        check=sql(policy.with_check),
    )
