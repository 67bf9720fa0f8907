"""Whether a definition asks who the caller is, which tables it reads, and the callers that a rule tries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sqla_rls.analyze.in_place.asking import access_asks_for_role
from sqla_rls.analyze.lint.database import Database, listed
from sqla_rls.analyze.lint.finding import Remedy
from sqla_rls.analyze.vocabulary import Vocabulary, read_expression, read_query
from sqla_rls.analyze.worlds.acting import reach_of
from sqla_rls.analyze.worlds.objects import Function, Relation
from sqla_rls.analyze.worlds.pools import Actor
from sqla_rls.analyze.worlds.schema import Schema
from sqla_rls.analyze.worlds.universe import Universe


def asks_for_caller(vocabulary: Vocabulary) -> bool:
    """Return whether SQL with *vocabulary* reads a claim or a setting, or calls a function of auth."""
    return bool(
        vocabulary.claims
        or vocabulary.settings
        or any(name[0] == "auth" or name[-1] == "current_setting" for name in vocabulary.functions)
    )


def expression_asks(schema: Schema, sql: str) -> bool:
    """Return whether the expression *sql*, or a function that it calls, asks for the caller."""
    vocabulary = read_expression(sql)
    return asks_for_caller(vocabulary) or _calls_ask(schema, vocabulary)


def view_asks(schema: Schema, relation: Relation) -> bool:
    """Return whether the query of a view, or a function that it calls, asks for the caller."""
    vocabulary = read_query(relation.query or "")
    return asks_for_caller(vocabulary) or _calls_ask(schema, vocabulary)


def function_asks(schema: Schema, signature: str) -> bool:
    """Return whether a function, or one that it calls, asks for the caller."""
    waiting, seen = [signature], {signature}
    while waiting:
        one = waiting.pop()
        function = schema.functions[one]
        if asks_for_caller(function.vocabulary):
            return True
        for edge in schema.edges.get(one, ()):
            called = schema.functions.get(edge.calls or "")
            if called is not None and called.signature not in seen and _calls(function, called):
                seen.add(called.signature)
                waiting.append(called.signature)
    return False


def _calls(function: Function, called: Function) -> bool:
    """Return whether *function* calls *called*; a column of that name, such as user_id, isn't a call."""
    words = function.vocabulary
    is_named = called.name in words.names and not any(one[-1] == called.name for one in words.functions)
    return function.is_bound or not (words.is_parsed and is_named)


def _calls_ask(schema: Schema, vocabulary: Vocabulary) -> bool:
    called = {name[-1] for name in vocabulary.functions}
    return any(
        function.name in called and function_asks(schema, signature)
        for signature, function in schema.functions.items()
    )


def tables_read(schema: Schema, name: str) -> Iterator[Relation]:
    """Yield the tables that a view or function reads, through views and functions; not those of policies."""
    waiting, seen = [name], {name}
    while waiting:
        one = waiting.pop()
        relation = schema.relations.get(one)
        if relation is not None and one != name and not relation.is_view:
            yield relation
            continue
        for edge in schema.edges.get(one, ()):
            for target in (edge.reads, edge.calls):
                if target is not None and target not in seen:
                    seen.add(target)
                    waiting.append(target)


@dataclass(frozen=True, slots=True)
class PastRowSecurity:
    """The tables with row security that a view or function reads with rights for which it doesn't hold."""

    tables: list[str]
    #: The roles with these rights.
    roles: list[str]
    #: The roles in words.
    whose: str


def past_row_security(database: Database, name: str, owner: str) -> PastRowSecurity | None:
    """Return what view or function *name* of *owner* reads past row security; None if it is nothing."""
    relations = database.schema.relations
    found = [
        (table, role)
        for table, role in reach_of(database.schema, name).relations
        if relations[table].has_rows
        and relations[table].row_security
        and database.escapes(role, relations[table])
    ]
    if not found:
        return None
    roles = sorted({role for _, role in found})
    whose = f"its owner {owner}" if roles == [owner] else f"{listed(roles)}, with whose rights it reads"
    return PastRowSecurity(sorted({table for table, _ in found}), roles, whose)


def distinct_callers(database: Database, view: Relation, roles: Sequence[str]) -> list[str]:
    """Return one of the roles with the same privileges and policies, unless the view asks for the role."""
    read = database.schema.reads(view.name)
    if access_asks_for_role(database.schema, read):
        return list(roles)
    found: dict[str, str] = {}
    for role in roles:
        profiles = [replace(database.profiles[name, role], role="") for name in sorted(read)]
        found.setdefault(repr((database.is_anonymous(role), profiles)), role)
    return list(found.values())


def first_actors(database: Database, universe: Universe, role: str) -> Sequence[Actor]:
    """Return two callers of *role* with a subject; one without, if the role has no token."""
    actors = universe.pools.actors([role])
    if database.is_anonymous(role):
        return actors[:1]
    return [one for one in actors if one.claims and "sub" in one.claims][:2] or actors[:2]


def compare_with_caller(database: Database, table: str, policy: str | None, command: str) -> Remedy:
    """Return a change of *policy*, if there is one: it compares a column with the caller's id."""
    clause = "WITH CHECK" if command == "INSERT" else "USING"
    return Remedy(
        sql=(
            f"ALTER POLICY {database.quoted(policy)} ON {table} {clause} (… = (SELECT {database.subject}));"
            if policy is not None
            else None
        ),
        python='auth_uid("…")',
    )
