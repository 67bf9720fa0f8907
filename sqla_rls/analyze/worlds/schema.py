"""The parts of a database that access depends on: tables, views, functions, roles, and their references."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import InitVar, dataclass, field, replace
from functools import cached_property

from sqlalchemy import ARRAY, Connection, RowMapping, Text, bindparam, text

from sqla_rls.analyze.vocabulary import Vocabulary
from sqla_rls.analyze.why.target import query
from sqla_rls.analyze.worlds.implied import Implied, Name
from sqla_rls.analyze.worlds.objects import (
    PUBLIC,
    Column,
    Edge,
    ForeignKey,
    Function,
    PolicyText,
    Profile,
    Relation,
    RoleAttributes,
)
from sqla_rls.catalog.query import pinned
from sqla_rls.exc import AnalysisError


@dataclass(frozen=True, kw_only=True)
class Schema:
    """A database; relations by name, functions by signature, roles by name."""

    relations: Mapping[str, Relation]
    functions: Mapping[str, Function]
    roles: Mapping[str, RoleAttributes]
    #: What the parts of a relation or function refer to, by its name or signature.
    edges: Mapping[str, tuple[Edge, ...]]
    #: Operators, casts, domains and settings: any expression may depend on them.
    surroundings: str
    version: int
    #: What an expression calls without naming it.
    implied: Implied

    @classmethod
    def read(cls, connection: Connection, *, of_new_rows: bool = False) -> Schema:
        """Read the catalog; user data isn't read.

        Args:
            connection: a connection to the database.
            of_new_rows: the rows of worlds are inserted.  So they need the foreign keys that older rows, or
                the rows of children, may break.

        Raises:
            AnalysisError: a role has the name that stands for all roles, and more rights than these.

        Emits:
            SELECT statements over the catalog, with ``search_path = pg_catalog`` in a savepoint.
        """
        with pinned(connection):
            connection.execute(text("SELECT pg_catalog.set_config('search_path', 'pg_catalog', true)"))
            found = {
                name: connection.execute(query(name)).mappings().all()
                for name in ("relations", "functions", "dependencies", "roles")
            }
            implied = Implied.read(connection)
            surroundings = connection.scalar(query("surroundings")) or ""
            version = connection.scalar(query("version"))
        if any(row["is_misnamed"] for row in found["roles"]):
            raise AnalysisError(
                f'the access of roles can\'t be decided: "{PUBLIC}" stands for all roles, and a role with '
                f'rights of its own has that name. Rename it: ALTER ROLE "{PUBLIC}" RENAME TO …'
            )
        names = {row["oid"]: row["name"] for row in found["relations"]}
        signatures = {row["oid"]: row["signature"] for row in found["functions"]}
        edges: dict[str, list[Edge]] = {}
        for row in found["dependencies"]:
            source = names.get(row["relation"]) or signatures.get(row["function"])
            reads, calls = names.get(row["reads"]), signatures.get(row["calls"])
            if source is not None and (reads or calls) and not (row["part"] == "query" and reads == source):
                found_edge = Edge(row["part"], reads, row["column"], calls, row["policy"])
                edges.setdefault(source, []).append(found_edge)
        functions = {row["signature"]: _function(row) for row in found["functions"]}
        by_types = _CallsByTypes(implied, functions.values())
        for row in found["dependencies"]:
            source = names.get(row["relation"]) or signatures.get(row["function"])
            if source is not None and row["type"] is not None:
                by_type = by_types.edges(row["part"], tuple(row["type"]), row["policy"])
                edges.setdefault(source, []).extend(by_type)
        relations = {row["name"]: _relation(row, names, of_new_rows) for row in found["relations"]}
        for relation in relations.values():
            # The type of a row is made of those of the columns.
            row_type = (relation.schema, relation.relname)
            edges.setdefault(relation.name, []).extend(by_types.edges("constraint", row_type))
        for function in functions.values():
            found_edges = _mentioned(function, relations, functions, implied)
            edges.setdefault(function.signature, []).extend(found_edges)
        return cls(
            relations=relations,
            functions=functions,
            roles={row["name"]: _role(row) for row in found["roles"]},
            edges={name: tuple(dict.fromkeys(ones)) for name, ones in edges.items()},
            surroundings=surroundings,
            version=int(version or 0),
            implied=implied,
        )

    def joined(self, other: Schema) -> Schema:
        """Return both as one: the references of either, and the relations, those of *other* first."""
        relations = {**self.relations, **other.relations}
        for name in self.relations.keys() & other.relations.keys():
            ours, theirs = self.relations[name], other.relations[name]
            # Texts that are equal on one side are told apart by their comparison with the other.
            blurred = {
                each: replace(column, is_deterministic=False)
                for each, column in theirs.columns.items()
                if each in ours.columns and not ours.columns[each].is_deterministic
            }
            relations[name] = replace(
                theirs,
                columns={**ours.columns, **theirs.columns, **blurred},
                policies=tuple(dict.fromkeys((*ours.policies, *theirs.policies))),
            )
        names = self.edges.keys() | other.edges.keys()
        return Schema(
            relations=relations,
            functions={**self.functions, **other.functions},
            roles={**self.roles, **other.roles},
            edges={
                name: tuple(dict.fromkeys((*self.edges.get(name, ()), *other.edges.get(name, ()))))
                for name in names
            },
            surroundings=other.surroundings,
            version=other.version,
            implied=self.implied.joined(other.implied),
        )

    def with_bodies(self, bodies: Mapping[str, str]) -> Schema:
        """Return the database with other bodies, text, of the functions with these signatures."""
        functions = dict(self.functions)
        edges = dict(self.edges)
        for signature, body in bodies.items():
            functions[signature] = functions[signature].with_body(body)
        for signature in bodies:
            found = _mentioned(functions[signature], self.relations, functions, self.implied)
            edges[signature] = tuple(found)
        return replace(self, functions=functions, edges=edges)

    def reads(self, name: str) -> frozenset[str]:
        """Return relation *name*, and the relations that its parts and their functions read, and so on."""
        return frozenset(one for one in self._reached(name) if one in self.relations)

    def calls(self, name: str) -> frozenset[str]:
        """Return the functions that access to relation *name* may call."""
        return frozenset(one for one in self._reached(name) if one in self.functions)

    def signatures(self, names: Collection[Name]) -> list[str]:
        """Return the signatures of the functions with these schemas and names."""
        return list(_signatures(self.functions, names))

    def called_by_types(self, types: Collection[Name]) -> list[str]:
        """Return the functions that a cast to one of *types* may call."""
        return self.signatures(self.implied.calls(Vocabulary(), types))

    def materialized(self, name: str) -> list[str]:
        """Return the materialized views that access to relation *name* reads, in the order of a refresh."""
        if name not in self.relations:
            return []
        views = [one for one in self.reads(name) if self.relations[one].kind == "m"]
        return sorted(views, key=lambda one: (len(self.reads(one)), one))

    def is_opaque(self, name: str) -> bool:
        """Return whether access to relation *name* may depend on what no definition names."""
        return any(self.functions[one].is_opaque for one in self.calls(name))

    def definitions(self, name: str) -> Mapping[str, str]:
        """Return the definition of relation *name* and of all that access to it depends on."""
        reached = self._reached(name) | {
            target for one in self._reached(name) for target in self._foreign(one)
        }
        return {one: (self.relations.get(one) or self.functions[one]).definition for one in reached}

    @cached_property
    def definition_of_roles(self) -> Mapping[str, RoleAttributes]:
        return {name: role for name, role in self.roles.items() if not role.is_superuser}

    def _foreign(self, name: str) -> Iterable[str]:
        relation = self.relations.get(name)
        return () if relation is None else [key.target for key in relation.foreign_keys]

    def _reached(self, name: str) -> frozenset[str]:
        reached, waiting = {name}, [name]
        while waiting:
            one = waiting.pop()
            targets = [target for edge in self.edges.get(one, ()) for target in (edge.reads, edge.calls)]
            relation = self.relations.get(one)
            targets += relation.children if relation is not None else ()
            for target in targets:
                if target is not None and target not in reached:
                    reached.add(target)
                    waiting.append(target)
        return frozenset(reached)


def read_profiles(
    connection: Connection, relations: Iterable[Relation], roles: Iterable[str]
) -> Mapping[tuple[str, str], Profile]:
    """Return the privileges of each of *roles* on each of *relations*, by the names of both."""
    names = {relation.oid: relation.name for relation in relations}
    statement = query("profiles").bindparams(
        bindparam("oids", type_=ARRAY(Text())), bindparam("roles", type_=ARRAY(Text()))
    )
    rows = connection.execute(statement, {"oids": [str(oid) for oid in names], "roles": list(roles)})
    return {
        (names[row["oid"]], row["role"]): Profile(
            role=row["role"],
            usage=row["usage"],
            delete=row["delete"],
            selects=tuple(row["selects"]),
            inserts=tuple(row["inserts"]),
            updates=tuple(row["updates"]),
            bypasses=row["bypasses"],
            owns=row["owns"],
            policies=tuple(row["policies"]),
        )
        for row in rows.mappings()
    }


def _relation(row: RowMapping, names: Mapping[int, str], of_new_rows: bool) -> Relation:
    columns = {
        column["name"]: Column(
            **{
                name: column[name]
                for name in (
                    *("name", "type", "base", "kind", "category", "element"),
                    *("domain_holds", "not_null", "needs_value", "collation", "is_deterministic"),
                )
            },
            labels=tuple(column["labels"] or ()),
            domain_checks=tuple(column["domain_checks"] or ()),
            default=column["default"],
            generated=column["generated"],
            identity=column["identity"],
        )
        for column in row["columns"]
    }
    definition = {
        name: value
        for name, value in row.items()
        if name
        not in (
            *("oid", "name", "schema", "relname", "foreign_keys", "partial_keys", "children", "is_invoker"),
        )
    }
    definition["foreign_keys"] = [key["definition"] for key in row["foreign_keys"]]
    definition["children"] = sorted(names.get(oid, "") for oid in row["children"])
    keys = [
        ForeignKey(
            name=key["name"],
            columns=tuple(key["columns"]),
            target=names[key["target"]],
            target_columns=tuple(key["target_columns"]),
            is_deferrable=key["is_deferrable"],
            is_full=key["is_full"],
            holds=key["holds"],
            definition=key["definition"],
        )
        for key in row["foreign_keys"]
        if key["target"] in names
    ]
    return Relation(
        **{name: row[name] for name in ("oid", "name", "schema", "relname", "kind", "owner", "query")},
        row_security=row["row_security"],
        forced=row["forced"],
        options=tuple(row["options"]),
        is_invoker=row["is_invoker"],
        is_partition=row["is_partition"],
        columns=columns,
        keys=tuple(tuple(key["columns"]) for key in row["keys"] if key["columns"]),
        partial_keys=tuple((tuple(key["parts"]), key["condition"]) for key in row["partial_keys"]),
        has_primary_key=any(key["is_primary"] for key in row["keys"]),
        foreign_keys=tuple(key for key in keys if key.holds or of_new_rows),
        new_foreign_keys=tuple(key for key in keys if not (key.holds or of_new_rows)),
        checks=tuple(one["expression"] for one in row["checks"] if one["holds"]),
        new_checks=tuple(one["expression"] for one in row["checks"] if not one["holds"]),
        partition_check=row["partition_check"],
        policies=tuple(
            PolicyText(
                name=policy["name"],
                permissive=policy["permissive"],
                command=policy["command"],
                roles=tuple(policy["roles"]),
                using=policy["using"],
                check=policy["check"],
            )
            for policy in row["policies"]
        ),
        triggers=tuple(row["triggers"]),
        children=tuple(names[oid] for oid in row["children"] if oid in names),
        privileges=json.dumps([row["privileges"], [column["privileges"] for column in row["columns"]]]),
        definition=json.dumps(definition, sort_keys=True, default=str),
    )


def _function(row: RowMapping) -> Function:
    definition = [row[name] for name in ("signature", "language", "body", "owner", "properties")]
    return Function(
        **{name: row[name] for name in ("signature", "schema", "name", "language", "body", "owner")},
        is_bound=row["is_bound"],
        is_definer=row["is_definer"],
        types=tuple((schema, name) for schema, name in row["types"]),
        returns=row["returns"],
        definition=json.dumps(definition),
    )


def _role(row: RowMapping) -> RoleAttributes:
    return RoleAttributes(
        name=row["name"],
        is_superuser=row["is_superuser"],
        bypasses_row_security=row["bypasses_row_security"],
        inherits=row["inherits"],
        may_login=row["may_login"],
        member_of=row["member_of"],
        may_set=tuple(row["may_set"]),
        may_grant=tuple(row["may_grant"]),
        settings=json.dumps(row["settings"]),
    )


@dataclass(slots=True)
class _CallsByTypes:
    """The functions of the checks of types, as edges."""

    implied: Implied
    functions: InitVar[Iterable[Function]]
    _signatures: dict[Name, list[str]] = field(default_factory=dict[Name, list[str]])
    _known: dict[Name, tuple[str, ...]] = field(default_factory=dict[Name, tuple[str, ...]])

    def __post_init__(self, functions: Iterable[Function]) -> None:
        for one in functions:
            self._signatures.setdefault((one.schema, one.name), []).append(one.signature)

    def edges(self, part: str, type_: Name, policy: str | None = None) -> Iterable[Edge]:
        if type_ not in self.implied.types:
            return
        if type_ not in self._known:
            called = sorted(self.implied.calls(Vocabulary(), [type_]))
            self._known[type_] = tuple(one for name in called for one in self._signatures.get(name, ()))
        for signature in self._known[type_]:
            yield Edge(part, None, None, signature, policy)


def _signatures(functions: Mapping[str, Function], names: Collection[Name]) -> Iterable[str]:
    """Yield the signatures of the functions with these names."""
    if names:
        yield from (one.signature for one in functions.values() if (one.schema, one.name) in names)


def _mentioned(
    function: Function,
    relations: Mapping[str, Relation],
    functions: Mapping[str, Function],
    implied: Implied,
) -> Iterable[Edge]:
    """Yield the relations and functions that a body names, in any schema: more than it refers to, never less.

    A body that computes names refers to what is_opaque says.
    """
    called = () if implied.is_empty else implied.calls(function.vocabulary, function.types)
    for signature in _signatures(functions, called):
        if signature != function.signature:
            yield Edge("body", None, None, signature)
    if function.is_bound:
        return
    body, vocabulary = function.body.lower(), function.vocabulary

    def names(name: str) -> bool:
        return name in vocabulary.names if vocabulary.is_complete else name.lower() in body

    for relation in relations.values():
        if names(relation.relname):
            yield Edge("body", relation.name, None, None)
            yield from (Edge("body", relation.name, each, None) for each in relation.columns if names(each))
    for other in functions.values():
        if names(other.name) and other.signature != function.signature:
            yield Edge("body", None, None, other.signature)
