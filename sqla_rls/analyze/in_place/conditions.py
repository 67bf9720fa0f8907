"""The conditions that row security sets for a role, as SQL over rows of no table.

The tables that policies read inside are CTEs.  Their own policies apply, as they do for the caller.

Names come quoted from the catalog, and expressions as Postgres prints them.
"""

# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from sqla_rls.analyze.in_place.definers import Call, Definer, Name, calls
from sqla_rls.analyze.in_place.splice import Expression, parsed, quoted
from sqla_rls.analyze.worlds.objects import Profile, Relation
from sqla_rls.analyze.worlds.schema import Schema

#: What row security asks of a row: to be read, changed, deleted; or, of a new row, to be inserted, or to
#: be the result of an UPDATE.
Part: TypeAlias = Literal["select", "update", "delete", "insert", "update_check"]
PARTS: Final[tuple[Part, ...]] = ("select", "update", "delete", "insert", "update_check")
_COMMANDS: Final[Mapping[Part, str]] = {
    "select": "SELECT",
    "update": "UPDATE",
    "delete": "DELETE",
    "insert": "INSERT",
    "update_check": "UPDATE",
}


class Undecidable(Exception):
    """The policies can't be evaluated on rows of no table; the message is the reason."""


class Denied(Exception):
    """Postgres raises an error for every row."""


@dataclass(frozen=True, slots=True)
class Access:
    """The rights of a role on one side."""

    schema: Schema
    role: str
    #: By the name of the relation.
    profiles: Mapping[str, Profile]

    def is_active(self, name: str) -> bool:
        """Return whether row security holds for the role on relation *name*."""
        relation, profile = self.schema.relations[name], self.profiles[name]
        return relation.row_security and not profile.bypasses and (relation.forced or not profile.owns)

    def expressions(self, name: str, part: Part) -> tuple[list[str], list[str]]:
        """Return the permissive and the restrictive expressions for the role, by the names of policies."""
        permissive: list[str] = []
        restrictive: list[str] = []
        commands = ("ALL", _COMMANDS[part])
        is_check = part in ("insert", "update_check")
        for policy in sorted(self.schema.relations[name].policies, key=lambda policy: policy.name):
            if policy.name in self.profiles[name].policies and policy.command in commands:
                sql = policy.check if is_check and policy.check is not None else policy.using
                if sql is not None:
                    (permissive if policy.permissive else restrictive).append(sql)
        return permissive, restrictive


def unused_prefix(schemas: Iterable[Schema]) -> str:
    """Return a prefix of names that no policy has."""
    policies = [
        policy for schema in schemas for relation in schema.relations.values() for policy in relation.policies
    ]
    prefix = "sqla_rls_rows_"
    while any(prefix in (sql or "") for policy in policies for sql in (policy.using, policy.check)):
        prefix += "_"
    return prefix


@dataclass(slots=True)
class Tables:
    """The CTEs of a statement, by their names, in an order in which each follows those that it reads."""

    #: A prefix that no expression has.
    prefix: str
    definitions: dict[str, str] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)

    def rows(self, schema: Schema, relation: Relation) -> str:
        """Return the CTE with all rows that a world has in *relation*."""
        names = [relation.name, *_descendants(schema, relation)]
        return self.named(
            " UNION ALL ".join(_populated(relation, f"u.u -> 'w' -> {literal(n)}") for n in names)
        )

    def named(self, definition: str) -> str:
        """Return the name of the CTE with that *definition*."""
        if definition not in self._names:
            name = self._names[definition] = f"{self.prefix}{len(self._names)}"
            self.definitions[name] = definition
        return self._names[definition]


@dataclass(slots=True)
class Conditions:
    """The conditions of one side."""

    access: Access
    tables: Tables
    #: The functions that the expressions call, in parts.
    functions: set[tuple[str, ...]] = field(default_factory=set)
    expressions: set[Expression] = field(default_factory=set)
    #: The functions whose queries may stand in place of their calls, and the rights of their owners.
    #: None leaves all calls as they are.
    definers: Mapping[Name, Definer] | None = None
    owners: Mapping[tuple[str, str], Profile] = field(default_factory=dict[tuple[str, str], Profile])
    #: Those whose queries do, and those of which a call stays.
    replaced: set[Name] = field(default_factory=set[Name])
    kept: set[Name] = field(default_factory=set[Name])
    #: The queries, which are among the expressions.
    queries: set[Expression] = field(default_factory=set[Expression])
    #: The relations whose policies with subqueries are being read.
    _active: list[str] = field(default_factory=list)

    def of(self, name: str, part: Part) -> str:
        """Return the condition for a row of relation *name*.

        Raises:
            Denied: Postgres raises an error for every row.
            Undecidable: the condition can't be evaluated.
        """
        if not self.access.is_active(name):
            return "true"
        permissive, restrictive = self.access.expressions(name, part)
        if not permissive:
            return "false"
        expressions = [parsed(sql) for sql in (*restrictive, *permissive)]
        # Postgres looks for a recursion only where policies have subqueries, also (SELECT auth.user_id()).
        has_subqueries = any(one.has_subquery for one in expressions)
        if has_subqueries and name in self._active:
            raise Denied(f"42P17: infinite recursion detected in policy for relation {name}")
        if has_subqueries:
            self._active.append(name)
        spelled = [f"({self._spelled(name, one)})" for one in expressions]
        if has_subqueries:
            self._active.pop()
        either = " OR ".join(spelled[len(restrictive) :])
        return " AND ".join([*spelled[: len(restrictive)], f"({either})"])

    def spelled(self, name: str, sql: str) -> str:
        """Return the expression *sql* of a policy of relation *name*, over rows of no table.

        Raises:
            Denied: Postgres raises an error for every row.
            Undecidable: it can't be evaluated.
        """
        return self._spelled(name, parsed(sql))

    def _spelled(self, name: str, expression: Expression) -> str:
        if expression.obstacle is not None:
            raise Undecidable(f"a policy of {name} {expression.obstacle}")
        self.expressions.add(expression)
        return expression.with_relations(
            lambda schema, relation: self._visible_rows(name, schema, relation),
            self._replaced_calls(expression),
        )

    def _replaced_calls(self, expression: Expression) -> Iterator[tuple[int, int, str]]:
        """Yield the calls of functions with the rights of their owners, and their queries on all rows."""
        if self.definers is None:
            return
        for call in calls(expression.sql):
            query = self._query(call)
            if query is None:
                self.kept.add(call.name)
                continue
            self.replaced.add(call.name)
            self.queries.add(query)
            self.expressions.add(query)
            yield call.start, call.end, query.with_relations(self._all_rows)

    def _query(self, call: Call) -> Expression | None:
        """Return the expression in place of a call; None if the call stays."""
        definer = (self.definers or {}).get(call.name)
        if definer is None or call.arguments is None:
            return None
        sql = definer.called_with(call.arguments)
        query = None if sql is None else parsed(sql)
        return query if query is not None and self._is_free(definer, query) else None

    def _all_rows(self, schema: str, relname: str) -> str:
        """Return the name of the CTE with all rows of a relation."""
        return self.tables.rows(self.access.schema, find(self.access.schema, schema, relname))

    def _is_free(self, definer: Definer, query: Expression) -> bool:
        """Return whether the owner of a function reads all rows of the relations in *query*."""
        if query.obstacle is not None or query.depends_on_role:
            return False
        schema = self.access.schema
        owner = schema.roles.get(definer.owner)
        if owner is not None and owner.is_superuser:
            return True
        held = {one: profile for (one, role), profile in self.owners.items() if role == definer.owner}
        rights = Access(schema, definer.owner, held)
        return all(
            relation.name in held
            and held[relation.name].usage
            and set(relation.columns) <= set(held[relation.name].selects)
            and not rights.is_active(relation.name)
            for relation in (find(schema, *one) for one in query.relations)
        )

    def _visible_rows(self, reader: str, schema: str, relname: str) -> str:
        """Return the name of the CTE with the rows that the role sees."""
        relation = find(self.access.schema, schema, relname)
        self._require_privilege(reader, relation)
        condition = self.of(relation.name, "select")
        rows = self.tables.rows(self.access.schema, relation)
        if condition == "true":
            return rows
        return self.tables.named(f"SELECT * FROM {rows} AS {quoted(relname)} WHERE {condition}")

    def _require_privilege(self, reader: str, relation: Relation) -> None:
        profile = self.access.profiles[relation.name]
        if not profile.selects:
            raise Denied(f"42501: permission denied for table {relation.name}")
        read = {
            edge.column
            for edge in self.access.schema.edges.get(reader, ())
            if edge.part == "policy" and edge.reads == relation.name and edge.column is not None
        }
        if not read <= set(profile.selects):
            raise Undecidable(f"the role may read only some columns of {relation.name}")


def row_of(relation: Relation) -> str:
    """Return the item of FROM that is the row in question."""
    rows = _populated(relation, "pg_catalog.jsonb_build_array(u.u -> 'r')")
    return f"({rows}) AS {quoted(relation.relname)}"


def find(schema: Schema, schema_name: str, relname: str) -> Relation:
    """Return the table that a policy reads.

    Raises:
        Undecidable: it is no table whose rows can be made.
    """
    for relation in schema.relations.values():
        if (relation.schema, relation.relname) == (schema_name, relname):
            if relation.is_view:
                raise Undecidable(f"a policy reads the view {relation.name}")
            if not relation.has_rows:
                raise Undecidable(f"a policy reads the foreign table {relation.name}")
            if relation.is_partition:
                raise Undecidable(f"a policy reads the partition {relation.name}")
            return relation
    raise Undecidable(f"a policy reads {schema_name}.{relname}, which is no table that can be filled")


def literal(text: str) -> str:
    """Return *text* as SQL, where standard_conforming_strings is on."""
    return "'" + text.replace("'", "''") + "'"


def _populated(relation: Relation, rows: str) -> str:
    """Return a query of the *rows*, JSON of text, with the values of the generated columns."""
    columns = ", ".join(
        f"{column.collated(f'CAST(r.x ->> {literal(name)} AS {column.type})')} AS {quoted(name)}"
        for name, column in relation.columns.items()
        if column.generated is None
    )
    base = f"SELECT {columns} FROM pg_catalog.jsonb_array_elements({rows}) AS r (x)"
    generated = [
        f"{column.collated(f'({column.generated})')} AS {quoted(name)}"
        for name, column in relation.columns.items()
        if column.generated is not None
    ]
    if not generated:
        return base
    alias = quoted(relation.relname)
    return f"SELECT {alias}.*, {', '.join(generated)} FROM ({base}) AS {alias}"


def _descendants(schema: Schema, relation: Relation) -> list[str]:
    found = []
    waiting = list(relation.children)
    while waiting:
        name = waiting.pop()
        found.append(name)
        waiting += schema.relations[name].children if name in schema.relations else ()
    return found
