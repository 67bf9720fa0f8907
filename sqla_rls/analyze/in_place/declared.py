"""A database after a migration, as its catalog would describe it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import ARRAY, Connection, Text, bindparam, text

from sqla_rls.analyze.in_place.asking import access_asks_for_role
from sqla_rls.analyze.in_place.definers import describe_definers
from sqla_rls.analyze.in_place.sides import Side
from sqla_rls.analyze.in_place.splice import quoted
from sqla_rls.analyze.vocabulary import read_expression
from sqla_rls.analyze.why.target import script
from sqla_rls.analyze.worlds.objects import PUBLIC as EVERY_ROLE
from sqla_rls.analyze.worlds.objects import Edge, PolicyText, Profile, Relation
from sqla_rls.analyze.worlds.schema import Schema, read_profiles
from sqla_rls.catalog.query import pinned, trying
from sqla_rls.catalog.read import DatabaseSnapshot
from sqla_rls.diff.functions import FunctionChange
from sqla_rls.diff.policies import Changes
from sqla_rls.snapshot import CURRENT_SCHEMA, PUBLIC, Membership, ObjectKey, Policy, Privilege, TableKey

_DESCRIBE = text(
    "SELECT * FROM pg_temp.sqla_rls_described(ARRAY(SELECT pg_catalog.format("
    "E'SELECT FROM %I.%I WHERE (%s\\n)', e.schema_name, e.table_name, e.expression) "
    "FROM unnest(:schemas, :tables, :expressions) WITH ORDINALITY "
    "AS e (schema_name, table_name, expression, place) ORDER BY e.place))"
)


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


@dataclass(slots=True)
class _Expression:
    sql: str
    edges: tuple[Edge, ...] = ()
    types: tuple[tuple[str, str], ...] = ()
    refusal: str | None = None


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
        model = _Privileges(migration)
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

    def _affected(self, model: _Privileges, schema: Schema, later: Schema) -> Mapping[str, set[str]]:
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
        expressions = self._described(new)
        for policy in new:
            for sql in (policy.using, policy.with_check):
                refusal = None if sql is None else expressions[policy.table, sql].refusal
                if refusal is not None and (refused := find(policy.table)) is not None:
                    self._doubts[refused.name, ""] = (
                        f"Postgres can't read policy {policy.name} of {refused.name} before the migration: "
                        f"{refusal}"
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

    def _described(self, policies: Iterable[Policy]) -> Mapping[tuple[TableKey, str], _Expression]:
        """Return each expression as Postgres prints it with every name qualified."""
        default = self.migration.live.default_schema
        asked = list(
            dict.fromkeys(
                (policy.table, sql)
                for policy in policies
                for sql in (policy.using, policy.with_check)
                if sql is not None
            )
        )
        found = {one: _Expression("false", refusal="it made no temporary object") for one in asked}
        if not asked:
            return found
        arrays = {
            "schemas": [table.schema or default for table, _ in asked],
            "tables": [table.name for table, _ in asked],
            "expressions": [sql for _, sql in asked],
        }
        statement = _DESCRIBE.bindparams(*(bindparam(name, type_=ARRAY(Text())) for name in arrays))
        with pinned(self.connection), trying(self.connection, "no change of access is decided"):
            self.connection.exec_driver_sql(
                script("describe_expressions"), execution_options={"no_parameters": True}
            )
            for row in self.connection.execute(statement, arrays):
                found[asked[row.place - 1]] = _expression(row)
        return found

    def _add_profiles(self, schema: Schema, later: Schema, model: _Privileges) -> None:
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


class _Privileges:
    """What roles may do before and after, by the privileges that the catalog lists."""

    def __init__(self, migration: Migration) -> None:
        live, changes = migration.live, migration.changes
        self.default_schema = live.default_schema
        self.owners = live.owners
        self.privileges = tuple(
            _by_object(privileges)
            for privileges in (
                live.privileges,
                (live.privileges - changes.privileges.revokes) | changes.privileges.grants,
            )
        )
        granted = {(one.role, one.member) for one in changes.roles.granted}
        kept = {one for one in live.memberships if (one.role, one.member) not in granted}
        memberships = (kept - changes.roles.revoked) | changes.roles.granted
        inherits = {role.name: role.inherit is not False for role in live.roles.values()}
        later = inherits | {role.name: role.inherit is not False for role in changes.roles.created}
        for change in changes.roles.altered:
            if change.after.inherit is not None:
                later[change.after.name] = change.after.inherit
        self.inherits = (inherits, later)
        memberships |= {
            Membership(str(group), role.name)
            for role in changes.roles.created
            for group in role.member_of or ()
        }
        self.memberships = (frozenset(live.memberships), frozenset(memberships))
        self.bypasses = {role.name: bool(role.bypassrls) for role in live.roles.values()}
        self.bypasses_later = dict(self.bypasses)
        for role in (*changes.roles.created, *(change.after for change in changes.roles.altered)):
            if role.bypassrls is not None:
                self.bypasses_later[role.name] = role.bypassrls
        self._known: dict[tuple[str, int], set[str]] = {}

    @property
    def regrouped(self) -> frozenset[str]:
        """The roles of other groups afterwards, whether or not they inherit the rights of these."""
        before, after = self.memberships
        waiting = {one.member for one in before ^ after}
        waiting |= {name for name, one in self.inherits[0].items() if self.inherits[1][name] != one}
        found: set[str] = set()
        while waiting:
            found |= waiting
            waiting = {one.member for one in before | after if one.role in waiting} - found
        return frozenset(found)

    def profiles(self, relation: Relation, role: str) -> tuple[Profile, Profile]:
        """Return the profile before and after, by the model, both with the policies of *relation*."""
        old = self._profile(relation, role, 0, self.bypasses)
        new = self._profile(relation, role, 1, self.bypasses_later)
        return old, new

    def _profile(self, relation: Relation, role: str, side: int, bypasses: Mapping[str, bool]) -> Profile:
        groups = self._groups(role, side)
        owns = relation.owner in groups
        key = TableKey.of(relation.schema, relation.relname, self.default_schema)
        columns: dict[str, set[str]] = {"SELECT": set(), "INSERT": set(), "UPDATE": set()}
        deletes = owns
        for one in self.privileges[side].get(ObjectKey("TABLE", key.schema, key.name), ()):
            if one.grantee not in groups:
                continue
            if one.privilege == "DELETE":
                deletes = True
            elif one.privilege in columns:
                columns[one.privilege] |= set(relation.columns) if one.column is None else {one.column}
        ordered = {
            name: tuple(column for column in relation.columns if owns or column in found)
            for name, found in columns.items()
        }
        return Profile(
            role=role,
            usage=self._may_use(relation.schema, groups, side),
            delete=deletes,
            selects=ordered["SELECT"],
            inserts=ordered["INSERT"],
            updates=ordered["UPDATE"],
            bypasses=bypasses.get(role, False),
            owns=owns,
            policies=tuple(
                sorted(
                    policy.name
                    for policy in relation.policies
                    if any(each in groups or each.lower() == PUBLIC for each in policy.roles)
                )
            ),
        )

    def _may_use(self, schema: str, groups: set[str], side: int) -> bool:
        if any(one[0] == "SCHEMA" and one[2] == schema and one[3] in groups for one in self.owners):
            return True
        return any(
            one.privilege == "USAGE" and one.grantee in groups
            for one in self.privileges[side].get(ObjectKey("SCHEMA", None, schema), ())
        )

    def _groups(self, role: str, side: int) -> set[str]:
        """Return the role, the roles whose privileges it has, and PUBLIC."""
        if (role, side) in self._known:
            return self._known[role, side]
        found, waiting = {role, PUBLIC}, [role]
        self._known[role, side] = found
        while waiting:
            member = waiting.pop()
            for one in self.memberships[side]:
                inherits = self.inherits[side].get(member, True) if one.inherit is None else one.inherit
                if one.member == member and inherits and one.role not in found:
                    found.add(one.role)
                    waiting.append(one.role)
        return found


def _by_object(privileges: Iterable[Privilege]) -> Mapping[ObjectKey, list[Privilege]]:
    found: dict[ObjectKey, list[Privilege]] = {}
    for one in privileges:
        found.setdefault(one.object, []).append(one)
    return found


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
    policy: Policy, expressions: Mapping[tuple[TableKey, str], _Expression], live: DatabaseSnapshot
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


def _expression(row: Any) -> _Expression:
    if row.refusal is not None:
        return _Expression("false", refusal=row.refusal)
    refs: Sequence[Mapping[str, Any]] = row.refs or ()
    edges = tuple(
        Edge("policy", one["reads"], one["column"], one["calls"])
        for one in refs
        if one["reads"] is not None or one["calls"] is not None
    )
    types = tuple((schema, name) for schema, name in (one["type"] for one in refs if one["type"] is not None))
    return _Expression(_predicate(row.spelling), edges, types)


def _predicate(body: str) -> str:
    """Return the condition after WHERE in ``BEGIN ATOMIC SELECT FROM … WHERE condition; END``."""
    from pglast.parser import scan

    depth, start, end = 0, 0, len(body)
    for token in scan(body):
        if token.name == "ASCII_40":
            depth += 1
        elif token.name == "ASCII_41":
            depth -= 1
        elif depth == 0 and token.name == "WHERE" and not start:
            start = token.end + 1
        elif depth == 0 and token.name == "ASCII_59":
            end = token.start
    return body[start:end].strip()
