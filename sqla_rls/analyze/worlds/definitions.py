"""The definitions of two databases: where they differ, trying worlds decides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Connection, text

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


def uncompared(schemas: tuple[Schema, Schema]) -> Iterator[str]:
    """Yield sentences about the differences that no comparison of tables and views covers."""
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
    for name in sorted(before.roles.keys() & after.roles.keys()):
        old, new = before.roles[name], after.roles[name]
        if old.settings != new.settings:
            yield f"the settings of role {name} differ: they count at login, and aren't tried"
        if old.may_become != new.may_become:
            yield (
                f"role {name} is a member of other roles without their privileges: what it can do after "
                "SET ROLE isn't compared"
            )


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


def may_call(connection: Connection, role: str, signatures: Sequence[str]) -> tuple[bool, ...]:
    """Return whether *role* may call each of the functions."""
    statement = text(
        "SELECT pg_catalog.has_function_privilege(CAST(:role AS text), f, 'EXECUTE') "
        "FROM unnest(CAST(:signatures AS text[])) WITH ORDINALITY AS s (f, place) ORDER BY place"
    )
    return tuple(connection.scalars(statement, {"role": role, "signatures": list(signatures)}))
