"""With whose rights views and functions reach tables.

A view reads with the rights of its owner.  A view with security_invoker reads as the current user, also if
another view reads it.  A SECURITY DEFINER function makes its owner the current user.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqla_rls.analyze.worlds.schema import Schema

#: Stands for the role of the caller.
CALLER: Final = ""


@dataclass(frozen=True, slots=True)
class Reach:
    """What a view or a function reaches, each with the role whose rights count there."""

    relations: frozenset[tuple[str, str]]
    functions: frozenset[tuple[str, str]]


def reach_of(schema: Schema, name: str) -> Reach:
    """Return what view or function *name* reaches for a caller, through views and functions.

    The policies, defaults and triggers of tables aren't part of it.  Nor are functions that the caller itself
    calls in a view: these need EXECUTE, and are ways of their own.
    """
    relations, functions = set[tuple[str, str]](), set[tuple[str, str]]()
    waiting, seen = [(name, CALLER)], set[tuple[str, str]]()
    while waiting:
        one, user = waiting.pop()
        if (one, user) in seen:
            continue
        seen.add((one, user))
        relation, function = schema.relations.get(one), schema.functions.get(one)
        if function is not None:
            user = function.owner if function.is_definer else user
            functions.add((one, user))
            reader = user
        elif relation is None or not relation.is_view:
            continue
        elif relation.kind == "m":
            # The copy is made by the owner.
            user = reader = relation.owner
        else:
            reader = user if relation.is_invoker else relation.owner
        for edge in schema.edges.get(one, ()):
            if function is None and edge.part != "query":
                continue
            if edge.reads is not None:
                relations.add((edge.reads, reader))
                waiting.append((edge.reads, user))
            if edge.calls is not None and (function is not None or user != CALLER):
                waiting.append((edge.calls, user))
    return Reach(frozenset(relations), frozenset(functions))
