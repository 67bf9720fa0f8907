"""The vocabulary of the databases that worlds compare."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from sqla_rls.analyze import vocabulary as terms
from sqla_rls.analyze.vocabulary import Constant, Vocabulary
from sqla_rls.analyze.worlds.objects import Column
from sqla_rls.analyze.worlds.schema import Schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """The vocabulary of both sides, for a relation and the relations that it reads."""

    vocabulary: Vocabulary

    @classmethod
    def of(cls, schemas: Iterable[Schema], relation: str) -> Shared:
        found, columns = Vocabulary(), list[Column]()
        for schema in schemas:
            if relation in schema.relations:
                found = found.merged(_vocabulary(schema, relation))
                read = (schema.relations[name] for name in sorted(schema.reads(relation)))
                columns += [column for one in read for column in one.columns.values()]
        return cls(vocabulary=_attributed(found, columns))


def _attributed(vocabulary: Vocabulary, columns: Iterable[Column]) -> Vocabulary:
    """Constants of parameters may be of any column; those of a generated column are of its sources, too."""
    names = {column.name for column in columns}
    constants, loose = dict(vocabulary.constants), list(vocabulary.loose)
    for term, ones in vocabulary.constants.items():
        if isinstance(term, terms.Column) and not term.path and term.name not in names:
            loose += ones
    for column in columns:
        if column.generated is not None:
            own = vocabulary.constants.get(terms.Column(column.name), ())
            for name in sorted(terms.read_expression(column.generated).names & names - {column.name}):
                source = terms.Column(name)
                constants[source] = tuple(dict.fromkeys((*constants.get(source, ()), *own)))
    return replace(vocabulary, constants=constants, loose=tuple(dict.fromkeys(loose)))


def _vocabulary(schema: Schema, relation: str) -> Vocabulary:
    found = Vocabulary()
    for name in sorted(schema.reads(relation)):
        one = schema.relations[name]
        for policy in one.policies:
            for expression in (policy.using, policy.check):
                if expression is not None:
                    found = found.merged(terms.read_expression(expression))
        if one.query is not None:
            found = found.merged(terms.read_query(one.query))
        for expression in (*one.checks, *one.new_checks, *filter(None, [one.partition_check])):
            found = found.merged(terms.read_expression(expression))
        for child in one.children:
            if (check := schema.relations[child].partition_check) is not None:
                found = found.merged(terms.read_expression(check))
        for column in one.columns.values():
            for expression in (*column.domain_checks, *filter(None, [column.generated])):
                found = found.merged(terms.read_expression(expression))
    for signature in sorted(schema.calls(relation)):
        vocabulary = schema.functions[signature].vocabulary
        if schema.functions[signature].schema == "auth":
            # They read claims; their constants and functions are of claims, not of columns.
            attributed: dict[terms.Term, tuple[Constant, ...]] = {
                term: ones
                for term, ones in vocabulary.constants.items()
                if not isinstance(term, terms.Column)
            }
            vocabulary = replace(vocabulary, constants=attributed, loose=(), names=frozenset(), arguments={})
        found = found.merged(vocabulary)
    return found
