"""What an expression calls without naming it: checks of domains, functions of operators and of casts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeAlias

from sqlalchemy import ARRAY, Connection, Text, bindparam

from sqla_rls.analyze.vocabulary import Vocabulary, read_expression
from sqla_rls.analyze.vocabulary.outside import CATALOG_TYPES, may_mean
from sqla_rls.analyze.why.target import query

#: The schema and the name of an object.
Name: TypeAlias = tuple[str, str]

#: IN, CASE, BETWEEN, DISTINCT and others compare without an operator in their text.
_COMPARING: Final = frozenset({"=", "<>", "<", ">", "<=", ">="})


@dataclass(frozen=True, slots=True, kw_only=True)
class Type:
    """A domain, or a type that is made of domains or of types of the catalog."""

    #: Whether its values name objects of the catalog, such as those of regclass.
    names_catalog: bool
    #: The columns that do so, if it is the type of a row.
    catalog_columns: tuple[str, ...]
    #: The domains that it is made of, as text.
    definition: str
    #: The checks of these domains, in which ``VALUE`` is the value.
    checks: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """A cast by a function."""

    target: Name
    #: Postgres may cast without a word in the text.
    is_implicit: bool
    function: Name


@dataclass(frozen=True, kw_only=True)
class Implied:
    """The types, operators and casts of users, without the operators and casts of extensions."""

    #: The domains, and the types made of them or of types of the catalog, such as those of rows.
    types: Mapping[Name, Type]
    #: The functions of each operator.
    operators: Mapping[Name, frozenset[Name]]
    casts: frozenset[Cast]

    @classmethod
    def read(cls, connection: Connection) -> Implied:
        """Read the catalog, with ``search_path = pg_catalog``.

        Emits:
            SELECT statements over the catalog.
        """
        statement = query("types").bindparams(bindparam("catalog_types", type_=ARRAY(Text())))
        types = {
            (row["schema"], row["name"]): Type(
                names_catalog=row["names_catalog"],
                catalog_columns=tuple(row["catalog_columns"]),
                definition=row["definition"],
                checks=tuple(row["checks"]),
            )
            for row in connection.execute(statement, {"catalog_types": sorted(CATALOG_TYPES)}).mappings()
        }
        operators: dict[Name, frozenset[Name]] = {}
        casts: set[Cast] = set()
        for row in connection.execute(query("implied_calls")):
            name, function = (row.schema, row.name), (row.function_schema, row.function_name)
            if row.kind == "cast":
                casts.add(Cast(target=name, is_implicit=row.is_implicit, function=function))
            else:
                operators[name] = operators.get(name, frozenset()) | {function}
        return cls(types=types, operators=operators, casts=frozenset(casts))

    def joined(self, other: Implied) -> Implied:
        """Return both as one."""
        return Implied(
            types={**self.types, **other.types},
            operators={
                name: self.operators.get(name, frozenset()) | other.operators.get(name, frozenset())
                for name in self.operators.keys() | other.operators.keys()
            },
            casts=self.casts | other.casts,
        )

    @cached_property
    def is_empty(self) -> bool:
        return not (self.types or self.operators or self.casts)

    @cached_property
    def catalog_types(self) -> frozenset[Name]:
        """The types of users whose values name objects of the catalog."""
        return frozenset(name for name, one in self.types.items() if one.names_catalog)

    def types_in(self, vocabulary: Vocabulary, types: Collection[Name] = ()) -> frozenset[Name]:
        """Return the types among *types*, those that *vocabulary* may mean, and those in their checks."""
        found: set[Name] = set()
        waiting = {name for name in types if name in self.types} | self._meant(vocabulary)
        while waiting:
            found |= waiting
            checks = {check for name in waiting for check in self.types[name].checks}
            waiting = {name for check in checks for name in self._meant(read_expression(check))} - found
        return frozenset(found)

    def checks(self, vocabulary: Vocabulary, types: Collection[Name] = ()) -> tuple[str, ...]:
        """Return the checks of the domains to which SQL with that *vocabulary* may cast.

        Args:
            vocabulary: that of an expression or a body.
            types: the types of the values that it takes and returns.
        """
        found = sorted(self.types_in(vocabulary, types))
        return tuple(dict.fromkeys(check for name in found for check in self.types[name].checks))

    def calls(self, vocabulary: Vocabulary, types: Collection[Name] = ()) -> frozenset[Name]:
        """Return the functions that SQL with that *vocabulary* may call without naming them.

        Args:
            vocabulary: that of an expression or a body.
            types: the types of the values that it takes and returns.
        """
        checks = [read_expression(check) for check in self.checks(vocabulary, types)]
        found = {name for one in (vocabulary, *checks) for name in self._of_operators_and_casts(one)}
        # Postgres prints the schema of each function that isn't its own.
        return frozenset(
            found | {(name[-2], name[-1]) for one in checks for name in one.functions if len(name) > 1}
        )

    @cached_property
    def _by_name(self) -> Mapping[str, Sequence[Name]]:
        found: dict[str, list[Name]] = {}
        for name in self.types:
            found.setdefault(name[1], []).append(name)
        return found

    def _meant(self, vocabulary: Vocabulary) -> set[Name]:
        return {
            name
            for one in vocabulary.types
            for name in self._by_name.get(one[-1], ())
            if may_mean(one, {name})
        }

    def _of_operators_and_casts(self, vocabulary: Vocabulary) -> Iterator[Name]:
        for name, functions in self.operators.items():
            if name[-1] in _COMPARING or any(may_mean(one, {name}) for one in vocabulary.operators):
                yield from functions
        for cast in self.casts:
            if cast.is_implicit or any(may_mean(one, {cast.target}) for one in vocabulary.types):
                yield cast.function
