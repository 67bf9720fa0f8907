"""The parts of access that no world decides: answers by chance, and facts that every world has alike."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final

from sqla_rls.analyze.vocabulary import Vocabulary, read_expression, read_query
from sqla_rls.analyze.vocabulary.outside import asks_for_catalog, is_catalog_type, untried, varying
from sqla_rls.analyze.worlds.objects import Relation
from sqla_rls.analyze.worlds.schema import Schema

#: The parts of an object that decide who may do what.
_DECIDING: Final = frozenset({"policy", "query", "body"})


def may_ask_for_catalog(schema: Schema, name: str) -> bool:
    """Return whether access to relation *name* may depend on facts of the catalog that no definition has."""
    types = schema.implied.catalog_types
    reached = _reached(schema, name)
    # A call casts to the types of its arguments, and a column of them has a text.
    if any(
        is_catalog_type(type_, types)
        for one in reached & schema.functions.keys()
        for type_ in schema.functions[one].types
    ) or any(
        (schema.relations[one].schema, schema.relations[one].relname) in types
        for one in reached & schema.relations.keys()
    ):
        return True
    return any(asks_for_catalog(one, types) for one in _vocabularies(schema, name))


def what_varies(schemas: Iterable[Schema], name: str, policies: Collection[str]) -> str | None:
    """Return why the same statement on the same rows may have another result each time.

    Args:
        schemas: both sides.
        name: the relation.
        policies: those of its policies that are for the role.
    """
    found = (
        reason
        for schema in schemas
        if name in schema.relations
        for vocabulary in _vocabularies(schema, name, policies)
        if (reason := varying(vocabulary)) is not None
    )
    return next(found, None)


def what_is_untried(schemas: Iterable[Schema], name: str, policies: Collection[str]) -> str | None:
    """Return why worlds without a difference don't say that there is none."""
    asked: set[str] = set()
    unfilled: set[str] = set()
    for schema in schemas:
        if name not in schema.relations:
            continue
        unfilled |= {one for one in schema.reads(name) if schema.relations[one].kind == "f"}
        known = {(one.schema, one.relname) for one in schema.relations.values()}
        for vocabulary in _vocabularies(schema, name, policies):
            asked |= set(untried(vocabulary))
            unfilled |= {
                ".".join(one)
                for one in vocabulary.relations
                if len(one) > 1 and one not in known and one[0] != "pg_catalog"
            }
    if asked:
        return alike_in_all_worlds(asked)
    if unfilled:
        return f"access may depend on {', '.join(sorted(unfilled))}, whose rows can't be made"
    return None


def alike_in_all_worlds(facts: Iterable[str]) -> str:
    """Return why worlds without a difference say nothing of access that depends on *facts*."""
    return f"access may depend on {', '.join(sorted(facts))}, which is the same in all worlds"


def _reached(schema: Schema, name: str, policies: Collection[str] | None = None) -> set[str]:
    """Return relation *name*, and what decides about access to it: relations and functions."""
    found, waiting = {name}, [name]
    others = set() if policies is None else _of_other_policies(schema, name, policies)
    while waiting:
        one = waiting.pop()
        edges = [edge for edge in schema.edges.get(one, ()) if edge.part in _DECIDING]
        targets = {target for edge in edges for target in (edge.reads, edge.calls) if target is not None}
        if one == name:
            targets -= others
        waiting += targets - found
        found |= targets
    return found


def _of_other_policies(schema: Schema, name: str, policies: Collection[str]) -> set[str]:
    """Return the functions that only other policies of relation *name* call."""
    relation = schema.relations[name]
    if relation.is_view:
        return set()
    vocabularies = list(_of_relation(relation, policies))
    if not all(one.is_complete for one in vocabularies):
        return set()
    own = {called[-1] for one in vocabularies for called in one.functions}
    every = {called[-1] for one in _of_relation(relation, None) for called in one.functions}
    return {signature for signature, one in schema.functions.items() if one.name in every - own}


def _vocabularies(schema: Schema, name: str, policies: Collection[str] | None = None) -> Iterator[Vocabulary]:
    for one in sorted(_reached(schema, name, policies)):
        if (function := schema.functions.get(one)) is not None:
            yield function.vocabulary
            yield from map(read_expression, schema.implied.checks(function.vocabulary, function.types))
        elif (relation := schema.relations.get(one)) is not None:
            for vocabulary in _of_relation(relation, policies if one == name else None):
                yield vocabulary
                yield from map(read_expression, schema.implied.checks(vocabulary))


def _of_relation(relation: Relation, policies: Collection[str] | None) -> Iterator[Vocabulary]:
    for policy in relation.policies:
        if policies is None or policy.name in policies:
            for sql in (policy.using, policy.check):
                if sql is not None:
                    yield read_expression(sql)
    if relation.query is not None:
        yield read_query(relation.query)
