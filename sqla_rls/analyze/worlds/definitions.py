"""The definitions of two databases: where they differ, trying worlds decides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ARRAY, Connection, Text, bindparam, text

from sqla_rls.analyze.why.target import query
from sqla_rls.analyze.worlds.objects import Relation, RoleAttributes
from sqla_rls.analyze.worlds.schema import Schema

#: Words of a definition to which roles with the same privileges are not the same.
_NAMES_ROLES: Final = frozenset(
    ("current_user", "session_user", "current_role", "user", "pg_has_role", "'role'", "getpgusername")
)
_NOT_IN_WORDS: Final = str.maketrans(dict.fromkeys("(),;=<>|.:[]", " "))


def is_changed(schemas: tuple[Schema, Schema], name: str) -> bool:
    """Return whether the definition of a relation differs, or that of an object on which it depends."""
    before, after = schemas
    if before.surroundings != after.surroundings:
        return True
    if name not in before.relations or name not in after.relations:
        return True
    if before.definitions(name) != after.definitions(name):
        return True
    # Such a function may read anything.
    return before.is_opaque(name) and _everything(before) != _everything(after)


def uncompared(
    connections: tuple[Connection, Connection], schemas: tuple[Schema, Schema], names: Sequence[str]
) -> Iterator[str]:
    """Yield sentences about the differences that no comparison of tables and views covers.

    Args:
        connections: a connection to each side.
        schemas: the schema of each side.
        names: the tables and views that are compared.
    """
    before, after = schemas
    differing = [
        signature
        for signature in sorted({*before.functions, *after.functions})
        if before.functions.get(signature) != after.functions.get(signature)
    ]
    if differing:
        yield (
            "what a caller can do by calling a function directly isn't compared. These differ: "
            + ", ".join(differing)
        )
    if keys := sorted(_differing_keys(before, after, names)):
        yield (
            "what foreign keys refuse, and what they change in the rows that refer to others, isn't "
            f"compared. These differ: {', '.join(keys)}"
        )
    if keys := sorted(_new_unique_keys(before, after, names)):
        yield (
            "what an error of a unique key tells of a hidden row isn't compared. "
            f"These differ: {', '.join(keys)}"
        )
    if held := sorted(_differing_privileges(connections, schemas, names)):
        yield (
            "the privileges TRUNCATE, REFERENCES, TRIGGER and MAINTAIN, and grant options, aren't compared. "
            f"These differ: {', '.join(held)}"
        )
    yield from _roles(before, after)


def _roles(before: Schema, after: Schema) -> Iterator[str]:
    for name in sorted(after.roles):
        new = after.roles[name]
        if (old := before.roles.get(name)) is not None and old.settings != new.settings:
            yield f"the settings of role {name} differ: they count at login, and aren't tried"
        if _becomes(before, old) != _becomes(after, new):
            yield (
                f"role {name} is a member of roles with rights that it doesn't inherit: what it can do "
                "after SET ROLE isn't compared"
            )
        if (() if old is None else old.may_grant) != new.may_grant:
            yield f"role {name} may grant other roles to itself: what it can do after that isn't compared"


def _becomes(schema: Schema, role: RoleAttributes | None) -> set[str]:
    """Return the roles of which *role* has a right only after SET ROLE."""
    if role is None or role.is_superuser:
        return set()
    # No role inherits these attributes.
    above = {one.name for one in schema.roles.values() if one.is_superuser or one.bypasses_row_security}
    return {name for name in role.may_set if name in above or not role.member_of[name]}


def _differing_keys(before: Schema, after: Schema, names: Sequence[str]) -> Iterator[str]:
    for name in {*before.relations, *after.relations}:
        sides = [schema.relations.get(name) for schema in (before, after)]
        keys = [{} if one is None else {key.name: key for key in one.foreign_keys} for one in sides]
        for each in keys[0].keys() | keys[1].keys():
            found = [one.get(each) for one in keys]
            if not any(key is not None and key.target in names for key in found):
                continue
            old, new = (None if key is None else key.definition for key in found)
            # In a table of one side, a key without an action refuses rows of that table only.
            if old != new and (None not in sides or " ON " in (old or new or "")):
                yield f"{each} of {name}"


def _new_unique_keys(before: Schema, after: Schema, names: Sequence[str]) -> Iterator[str]:
    for name in names:
        old, new = (schema.relations.get(name) for schema in (before, after))
        if old is None or new is None or not new.row_security:
            continue
        earlier = _unique(old)
        for parts, condition in _unique(new):
            # An older key of some of the same columns, for as many rows, refuses all that this one does.
            if not any(set(one) <= set(parts) and where in (None, condition) for one, where in earlier):
                yield f"({', '.join(parts)}){f' WHERE {condition}' if condition else ''} of {name}"


def _unique(relation: Relation) -> list[tuple[tuple[str, ...], str | None]]:
    return [*((key, None) for key in relation.keys), *relation.partial_keys]


def _differing_privileges(
    connections: tuple[Connection, Connection], schemas: tuple[Schema, Schema], names: Sequence[str]
) -> Iterator[str]:
    before, after = schemas
    if before.definition_of_roles == after.definition_of_roles:
        # Others have the same privileges.
        names = [
            name
            for name in names
            if name not in before.relations
            or name not in after.relations
            or before.relations[name].privileges != after.relations[name].privileges
        ]
    held = []
    for connection, schema in zip(connections, schemas, strict=True):
        oids = {schema.relations[name].oid: name for name in names if name in schema.relations}
        statement = query("other_privileges").bindparams(bindparam("oids", type_=ARRAY(Text())))
        rows = connection.execute(statement, {"oids": [str(oid) for oid in oids]}) if oids else ()
        held.append({(oids[row.oid], row.role): row.privileges for row in rows})
    for name, role in held[0].keys() | held[1].keys():
        old, new = (frozenset(side.get((name, role), ())) for side in held)
        if old != new:
            yield f"{', '.join(sorted(old ^ new))} on {name} of {role}"


def _everything(schema: Schema) -> Any:
    return (
        {name: one.definition for name, one in schema.relations.items()},
        {name: one.definition for name, one in schema.functions.items()},
    )


def names_roles(schema: Schema, name: str) -> bool:
    """Return whether a definition asks which role the caller has."""
    if name not in schema.relations:
        return False
    texts = [
        *(policy.using or "" for each in schema.reads(name) for policy in schema.relations[each].policies),
        *(policy.check or "" for each in schema.reads(name) for policy in schema.relations[each].policies),
        *(schema.relations[each].query or "" for each in schema.reads(name)),
        *(schema.functions[each].body for each in schema.calls(name)),
        *(trigger for each in schema.reads(name) for trigger in schema.relations[each].triggers),
        *(
            column.default or column.generated or ""
            for each in schema.reads(name)
            for column in schema.relations[each].columns.values()
        ),
    ]
    words = {word for each in texts for word in each.lower().translate(_NOT_IN_WORDS).split()}
    return bool(words & _NAMES_ROLES) or any(word.startswith("has_") for word in words)


def may_call(connection: Connection, role: str, signatures: Iterable[str]) -> Mapping[str, tuple[bool, bool]]:
    """Return of each function whether *role* may execute it, and name it in a body."""
    statement = text(
        "SELECT s.f, pg_catalog.has_function_privilege(CAST(:role AS text), p.oid, 'EXECUTE'), "
        "pg_catalog.has_schema_privilege(CAST(:role AS text), p.pronamespace, 'USAGE') "
        "FROM unnest(CAST(:signatures AS text[])) AS s (f) "
        "JOIN pg_catalog.pg_proc AS p ON p.oid = CAST(s.f AS pg_catalog.regprocedure)"
    )
    found = connection.execute(statement, {"role": role, "signatures": sorted(signatures)})
    return {signature: (executes, names) for signature, executes, names in found}
