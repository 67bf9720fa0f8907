"""The vocabulary of the databases that worlds compare."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
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
    #: The columns that are compared with what definitions know of the caller, also through other columns.
    callers: frozenset[ColumnOf] = frozenset()
    #: The columns that are compared with constants, also through other columns.
    named: frozenset[ColumnOf] = frozenset()
    #: Those of them whose constants are of constraints.
    constrained: frozenset[ColumnOf] = frozenset()

    @classmethod
    def of(cls, schemas: Iterable[Schema], relation: str) -> Shared:
        columns, compared = list[Column](), _Compared()
        for schema in schemas:
            if relation in schema.relations:
                read = [schema.relations[name] for name in sorted(schema.reads(relation))]
                columns += [column for one in read for column in one.columns.values()]
                for text in _texts(schema, relation):
                    compared.add(text, read)
        vocabulary = Vocabulary().merged(*compared.vocabularies)
        return cls(
            vocabulary=_attributed(vocabulary, columns),
            joins=tuple(compared.joins),
            callers=compared.reached(compared.callers),
            named=compared.reached(compared.named),
            constrained=compared.reached(compared.constrained),
        )


@dataclass(frozen=True, slots=True)
class _Text:
    """A text with the relation whose columns it names alone, or with the view whose query it is."""

    vocabulary: Vocabulary
    owner: Relation | None = None
    view: Relation | None = None
    is_constraint: bool = False


@dataclass(slots=True)
class _Compared:
    """What texts compare with each other: columns of relations, and names in one text, such as parameters."""

    vocabularies: list[Vocabulary] = field(default_factory=list[Vocabulary])
    joins: dict[Join, None] = field(default_factory=dict[Join, None])
    callers: set[ColumnOf] = field(default_factory=set[ColumnOf])
    named: set[ColumnOf] = field(default_factory=set[ColumnOf])
    constrained: set[ColumnOf] = field(default_factory=set[ColumnOf])
    _beside: dict[ColumnOf, set[ColumnOf]] = field(default_factory=dict[ColumnOf, set[ColumnOf]])

    def add(self, text: _Text, read: Sequence[Relation]) -> None:
        """Add what *text* compares; it may name columns of the relations *read*."""
        own = f"text {len(self.vocabularies)}"
        self.vocabularies.append(text.vocabulary)

        def found(reference: Reference) -> ColumnOf:
            return _column_of(reference, text.owner, read) or (own, reference.name)

        for left, right in text.vocabulary.joins:
            one, other = found(left), found(right)
            self._link(one, other)
            if own not in (one[0], other[0]) and one != other:
                self.joins[min(one, other), max(one, other)] = None
        self.callers |= set(map(found, text.vocabulary.callers))
        named = set(map(found, text.vocabulary.named))
        self.named |= named
        self.constrained |= named if text.is_constraint else set()
        if text.view is not None:
            self._link_view(text.view, own, text.vocabulary, read)

    def _link_view(self, view: Relation, own: str, query: Vocabulary, read: Sequence[Relation]) -> None:
        """Note that the columns of *view* are those of that name in its query, or in the tables there."""
        tables = {parts[-1] for parts in query.relations}
        for name in view.columns:
            self._link((view.name, name), (own, name))
            for table in read:
                if table.relname in tables and name in table.columns:
                    self._link((view.name, name), (table.name, name))

    def reached(self, columns: Iterable[ColumnOf]) -> frozenset[ColumnOf]:
        """Return *columns*, and those that are compared with them, also through others."""
        found = set(columns)
        waiting = list(found)
        while waiting:
            new = self._beside.get(waiting.pop(), set()) - found
            found |= new
            waiting += new
        return frozenset(found)

    def _link(self, one: ColumnOf, other: ColumnOf) -> None:
        self._beside.setdefault(one, set()).add(other)
        self._beside.setdefault(other, set()).add(one)


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


def _texts(schema: Schema, relation: str) -> Iterator[_Text]:
    """Yield the vocabulary of each definition."""
    for name in sorted(schema.reads(relation)):
        one = schema.relations[name]
        policies = [each for policy in one.policies for each in (policy.using, policy.check)]
        constraints = [
            *(*one.checks, *one.new_checks, one.partition_check),
            *(schema.relations[child].partition_check for child in one.children),
            *(each for column in one.columns.values() for each in (*column.domain_checks, column.generated)),
        ]
        for place, expression in enumerate((*policies, *constraints)):
            if expression is not None:
                is_constraint = place >= len(policies)
                yield _Text(terms.read_expression(expression), owner=one, is_constraint=is_constraint)
        if one.query is not None:
            yield _Text(terms.read_query(one.query), view=one)
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
        yield _Text(vocabulary)
