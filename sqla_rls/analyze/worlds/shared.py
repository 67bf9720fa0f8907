"""The vocabulary of the databases that worlds compare."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from sqla_rls.analyze import vocabulary as terms
from sqla_rls.analyze.vocabulary import Constant, Reference, Vocabulary
from sqla_rls.analyze.worlds.objects import Column, Relation
from sqla_rls.analyze.worlds.schema import Schema

#: A relation by its name, and one of its columns.
ColumnOf: TypeAlias = tuple[str, str]
#: Two columns that a definition compares with each other.
Join: TypeAlias = tuple[ColumnOf, ColumnOf]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """The vocabulary of both sides, for a relation and the relations that it reads."""

    vocabulary: Vocabulary
    joins: tuple[Join, ...] = ()

    @classmethod
    def of(cls, schemas: Iterable[Schema], relation: str) -> Shared:
        vocabularies, columns, joins = list[Vocabulary](), list[Column](), dict[Join, None]()
        for schema in schemas:
            if relation in schema.relations:
                read = [schema.relations[name] for name in sorted(schema.reads(relation))]
                columns += [column for one in read for column in one.columns.values()]
                for vocabulary, owner in _texts(schema, relation):
                    vocabularies.append(vocabulary)
                    joins |= dict.fromkeys(_joins(vocabulary, owner, read))
        return cls(vocabulary=_attributed(Vocabulary().merged(*vocabularies), columns), joins=tuple(joins))


def _joins(vocabulary: Vocabulary, owner: Relation | None, read: Sequence[Relation]) -> Iterator[Join]:
    for left, right in vocabulary.joins:
        one, other = (_column_of(each, owner, read) for each in (left, right))
        if one is not None and other is not None and one != other:
            yield min(one, other), max(one, other)


def _column_of(reference: Reference, owner: Relation | None, read: Sequence[Relation]) -> ColumnOf | None:
    """Return the column that *reference*, in a text of *owner*, is of; None: a parameter, or one not read."""
    for parts in reference.relations:
        for relation in read:
            name = (relation.schema, relation.relname)
            if name[-len(parts) :] == parts and reference.name in relation.columns:
                return relation.name, reference.name
    if owner is not None and not reference.relations and reference.name in owner.columns:
        return owner.name, reference.name
    return None


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


def _texts(schema: Schema, relation: str) -> Iterator[tuple[Vocabulary, Relation | None]]:
    """Yield the vocabulary of each definition, and the relation whose columns it names alone."""
    for name in sorted(schema.reads(relation)):
        one = schema.relations[name]
        expressions = [
            *(each for policy in one.policies for each in (policy.using, policy.check)),
            *(*one.checks, *one.new_checks, one.partition_check),
            *(schema.relations[child].partition_check for child in one.children),
            *(each for column in one.columns.values() for each in (*column.domain_checks, column.generated)),
        ]
        for expression in expressions:
            if expression is not None:
                yield terms.read_expression(expression), one
        if one.query is not None:
            yield terms.read_query(one.query), None
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
        yield vocabulary, None
