"""Whether each caller reaches each row, or each but those with values that an application hardly writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias

from sqla_rls.analyze import vocabulary as terms
from sqla_rls.analyze.in_place.conditions import Part
from sqla_rls.analyze.lint.reach.reach import Case, Reach
from sqla_rls.analyze.vocabulary import read_expression
from sqla_rls.analyze.worlds.objects import Column

#: NULL, the empty text, a number that isn't positive, a moment that has yet to come, or false beside NULL.
Kind: TypeAlias = Literal["null", "empty", "number", "future", "false"]
_WORDS: Final[Mapping[Kind, str]] = {
    "null": "NULL",
    "empty": "empty",
    "number": "0 or less",
    "future": "in the future",
    "false": "false",
}
_KINDS: Final = object()
_CLOCK: Final = ("now", "transaction_timestamp", "statement_timestamp", "clock_timestamp")
_CLOCK_KEYWORDS: Final = ("current_timestamp", "localtimestamp", "current_date")


@dataclass(frozen=True, slots=True)
class Unless:
    """The rows that aren't reached: those in which a column has values of a kind."""

    column: str
    kind: Kind
    #: Whether the column alone says whose the row is.
    names_owner: bool
    #: Whether the column may be a state that an application sets, such as ``published_at``.
    is_state: bool

    @property
    def is_rare(self) -> bool:
        """Whether no row of an application has such a value: a key isn't 0 or less."""
        return self.kind == "number"


@dataclass(frozen=True, slots=True)
class Opening:
    """The rows that each of some callers reaches: all, but those of ``unless``."""

    cases: Sequence[Case]
    unless: tuple[Unless, ...] = ()
    #: A row that isn't reached.
    denied: Case | None = None

    @property
    def case(self) -> Case:
        """A row that is reached."""
        return self.cases[-1]

    @property
    def is_whole(self) -> bool:
        """Whether no row of an application is left out."""
        return all(one.is_rare for one in self.unless)

    @property
    def names_owner(self) -> bool:
        """Whether each row that has an owner is reached."""
        return all(one.is_rare or one.names_owner for one in self.unless)

    @property
    def may_be_state(self) -> bool:
        return any(one.is_state for one in self.unless)

    @property
    def text(self) -> str:
        """The exceptions in words, behind a comma; empty if there are none."""
        kinds: dict[str, list[str]] = {}
        for one in self.unless:
            kinds.setdefault(one.column, []).append(_WORDS[one.kind])
        parts = [f"its {column} is {' or '.join(words)}" for column, words in kinds.items()]
        return f", unless {', or '.join(parts)}" if parts else ""


def opening(reach: Reach, cases: Sequence[Case], parts: Sequence[Part]) -> Opening | None:
    """Return the rows for which all *parts* are true in *cases*, if they are as good as all rows."""
    denied = [one for one in cases if not all(reach.is_true(part, one) for part in parts)]
    if not denied:
        return Opening(cases) if cases else None
    unless = _explained(reach, cases, denied)
    if unless is None:
        return None
    left_out = {(one.column, one.kind) for one in unless}
    found = [one for one in cases if left_out.isdisjoint(_kinds(reach, one))]
    if not all(_has_several(reach, name, found) for name, _ in left_out):
        return None
    return Opening(found, unless, denied[-1])


def _has_several(reach: Reach, name: str, cases: Sequence[Case]) -> bool:
    """Return whether a column has several values in *cases*, or one that no policy names."""
    values = {repr(one.row.values.get(name)): one.row.values.get(name) for one in cases}
    words, column = reach.universe.pools.vocabulary, reach.universe.relation.columns[name]
    named = {one.value for one in (*words.constants.get(terms.Column(name), ()), *words.loose)}
    return len(values) > 1 or (
        column.category != "B" and any(str(value) not in named for value in values.values())
    )


def _explained(reach: Reach, cases: Sequence[Case], denied: Sequence[Case]) -> tuple[Unless, ...] | None:
    """Return the values that each denied row has one of: those that leave out the fewest other rows."""
    kinds = {one.place[1]: _kinds(reach, one) for one in cases}
    refused = Counter(unit for one in denied for unit in kinds[one.place[1]])
    having = Counter(unit for one in cases for unit in kinds[one.place[1]])
    found: list[tuple[str, Kind]] = []
    left = list(denied)
    while left:
        units = Counter(unit for one in left for unit in kinds[one.place[1]])
        if not units:
            return None
        best = max(units, key=lambda unit: (refused[unit] - having[unit], units[unit]))
        found.append(best)
        left = [one for one in left if best not in kinds[one.place[1]]]
    columns, owners = reach.universe.relation.columns, _owners(reach)
    # A row of which another column says whose it is may be left out.
    names_owner = owners <= {name for name, _ in found}
    return tuple(
        Unless(name, kind, names_owner and name in owners, _is_state(columns[name], kind))
        for name, kind in sorted(found, key=lambda one: (one[0], [*_WORDS].index(one[1])))
    )


def _kinds(reach: Reach, case: Case) -> frozenset[tuple[str, Kind]]:
    """Return the columns of the row in question with values that an application hardly writes."""
    return reach.once(_KINDS, _kinds_in_worlds)[case.place[1]]


def _kinds_in_worlds(reach: Reach) -> list[frozenset[tuple[str, Kind]]]:
    relation, counted = reach.universe.relation, _keys(reach)
    return [
        frozenset(
            (name, kind)
            for name, value in (world.row.values.items() if world.row else ())
            if (column := relation.columns.get(name)) is not None
            and (kind := _kind(column, value, is_key=name in counted)) is not None
        )
        for world in reach.worlds
    ]


def _kind(column: Column, value: Any, *, is_key: bool) -> Kind | None:
    if value is None:
        return "null"
    if value is False and not column.not_null and column.default is None:
        # A new row has NULL, so that coalesce(column, true) shows it.
        return "false"
    if column.category == "S":
        return "empty" if value == "" else None
    if column.category == "N" and isinstance(value, int | float) and value <= 0:
        return "number" if is_key else None
    if column.category == "D" and _is_future(str(value)) and _reads_clock(column):
        return "future"
    return None


def _keys(reach: Reach) -> set[str]:
    """Return the columns whose numbers are keys, which applications count from 1."""
    relation = reach.universe.relation
    parts = (*relation.keys, *(key.columns for key in relation.foreign_keys))
    return {name for key in parts for name in key} | _owners(reach)


def _owners(reach: Reach) -> frozenset[str]:
    """Return the columns that policies compare with the caller."""
    words = reach.universe.pools.vocabulary
    return frozenset(
        term.name
        for term, linked in words.linked.items()
        if isinstance(term, terms.Column)
        and not term.path
        and any(isinstance(one, terms.Subject | terms.Claim | terms.Setting) for one in linked)
    )


def _is_state(column: Column, kind: Kind) -> bool:
    """Return whether a moment or a truth value may be the state of a row."""
    return kind in ("future", "false") or (kind == "null" and column.category in ("D", "B", "T"))


def _is_future(value: str) -> bool:
    return value == "infinity" or (
        value[:1].isdecimal() and value[:10] > datetime.now(UTC).date().isoformat()
    )


def _reads_clock(column: Column) -> bool:
    """Return whether the default of *column* is the present moment."""
    if column.default is None:
        return False
    words = read_expression(column.default)
    return any(one[-1] in _CLOCK for one in words.functions) or not words.keywords.isdisjoint(_CLOCK_KEYWORDS)
