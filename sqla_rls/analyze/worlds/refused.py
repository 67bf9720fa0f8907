"""The rows that constraints keep out of every world, though a table may have them.

A row in a world has one value in each column that decides nothing.  A constraint may refuse that value only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqla_rls.analyze.vocabulary import read_expression
from sqla_rls.analyze.worlds.objects import Relation
from sqla_rls.analyze.worlds.schema import Schema
from sqla_rls.analyze.worlds.scratch import ScratchDatabase
from sqla_rls.analyze.worlds.statements import literal, quoted
from sqla_rls.analyze.worlds.universe import Universe
from sqla_rls.analyze.worlds.world import Row, Values, World

#: The most rows, or values, that a sentence names.
_MOST_SHOWN: Final = 3
#: The most foreign keys that one row follows.
_MOST_KEYS: Final = 4


@dataclass(slots=True)
class Met:
    """The rows of the worlds that were tried."""

    accepted: set[Row] = field(default_factory=set[Row])
    #: Why a world with the row, and with those that its foreign keys need, is none.
    refused: dict[Row, str] = field(default_factory=dict[Row, str])

    def note(self, universe: Universe, world: World, rejected: str | None) -> None:
        """Note that *world* was tried, or why it is none."""
        if rejected is None:
            self.accepted.update(world.all_rows)
            return
        rows = set(world.all_rows)
        for row in rows - self.refused.keys():
            if set(universe.complete((row,)) or ()) == rows:
                self.refused[row] = rejected

    def add(self, other: Met) -> None:
        """Add the rows of other worlds."""
        self.accepted |= other.accepted
        self.refused |= other.refused


def refused_rows(sides: Sequence[ScratchDatabase], universe: Universe, met: Met) -> dict[Row, str]:
    """Return the rows of *universe* in no world, with the reasons, without those that no table can have."""
    seen = _accepted(universe, met)
    found: dict[Row, str] = {}
    for rows in universe.rows.values():
        for row in rows:
            if row.copy or _kind(universe, row) in seen:
                continue
            if universe.complete((row,)) is None:
                found[row] = "the rows to which it refers can't be made"
            elif row in met.refused:
                found[row] = met.refused[row]
    return {row: reason for row, reason in found.items() if not _cannot_exist(sides, universe, row)}


def sentences(universe: Universe, refused: dict[Row, str], met: Met) -> Iterator[str]:
    """Yield what was not tried, for each table: the rows that were refused, and values of domains."""
    seen = _accepted(universe, met)
    for name, rows in universe.rows.items():
        missed = [row for row in rows if row in refused]
        if missed:
            shown = list(dict.fromkeys(_shown(universe, rows, missed, seen)))
            more = f" and {len(shown) - _MOST_SHOWN} more" if len(shown) > _MOST_SHOWN else ""
            reason = refused[missed[0]]
            kind = f" with {'; '.join(shown[:_MOST_SHOWN])}{more}" if any(shown) else ""
            yield f"{name}: no row{kind} was tried: {reason}"
        for column in sorted(universe.deciding[name]):
            if not universe.schema.relations[name].columns[column].domain_holds:
                yield f"{name}: no value of {column} that breaks a NOT VALID check of its domain was tried"


def _shown(
    universe: Universe, rows: Iterable[Row], missed: Sequence[Row], seen: set[tuple[str, str]]
) -> Iterator[str]:
    """Yield the values that only refused rows have; without such values, the rows."""
    tried = [_known(universe, row) for row in rows if _kind(universe, row) in seen]
    values = [
        f"{name}={_word(value)}"
        for row in missed
        for name, value in _known(universe, row).items()
        if not any(repr(other[name]) == repr(value) for other in tried)
    ]
    if values and tried:
        yield from values
        return
    for row in missed:
        known = _known(universe, row)
        yield ", ".join(f"{name}={_word(value)}" for name, value in known.items())


def _accepted(universe: Universe, met: Met) -> set[tuple[str, str]]:
    return {_kind(universe, row) for row in met.accepted if row.relation in universe.rows}


def _word(value: Any) -> str:
    return "NULL" if value is None else str(value)


def _known(universe: Universe, row: Row) -> dict[str, Any]:
    """Return the values of the columns that decide about access."""
    deciding = universe.deciding[row.relation]
    return {name: value for name, value in row.values.items() if name in deciding}


def _kind(universe: Universe, row: Row) -> tuple[str, str]:
    return row.relation, repr(_known(universe, row))


def _cannot_exist(sides: Sequence[ScratchDatabase], universe: Universe, row: Row) -> bool:
    """Return whether each side refuses the row for its values in the columns that decide."""
    known = _known(universe, row)
    own = [side for side in sides if row.relation in side.schema.relations]
    return bool(known and own) and all(
        refuses(side.schema, row.relation, known, side.asks, _MOST_KEYS) for side in own
    )


def refusing(schema: Schema, asks: Callable[[str], bool | None]) -> Callable[[Relation, Values], bool]:
    """Return the function that asks whether a constraint of *schema* refuses values of a table."""
    return lambda relation, values: refuses(schema, relation.name, values, asks)


def refuses(
    schema: Schema, name: str, given: Values, asks: Callable[[str], bool | None], most: int = 0
) -> bool:
    """Return whether a constraint refuses these values, or one of the rows by up to *most* foreign keys.

    Args:
        schema: the tables with their constraints.
        name: the table.
        given: values of some of its columns.
        asks: runs a query of one boolean; None is an error.
        most: the most foreign keys that are followed, one after another.
    """
    relation = schema.relations[name]
    known = {one: value for one, value in given.items() if one in relation.columns}
    if any(value is None and relation.columns[one].not_null for one, value in known.items()):
        return True
    conditions = [one for one in _conditions(schema, relation) if _reads(one, relation) <= known.keys()]
    if conditions and known:
        columns = ", ".join(
            f"{relation.columns[one].collated(f'CAST({spelled} AS {relation.columns[one].type})')} "
            f"AS {quoted(one)}"
            for one, value in known.items()
            for spelled in (literal(relation.columns[one], value),)
        )
        refused = " OR ".join(f"({one}) IS FALSE" for one in conditions)
        if asks(f"SELECT {refused} FROM (SELECT {columns}) AS {quoted(relation.relname)}"):  # noqa: S608
            return True
    return most > 0 and any(
        refuses(
            schema,
            key.target,
            {theirs: known[own] for own, theirs in zip(key.columns, key.target_columns, strict=True)},
            asks,
            most - 1,
        )
        for key in relation.foreign_keys
        if key.holds and all(known.get(one) is not None for one in key.columns)
    )


def _conditions(schema: Schema, relation: Relation) -> Iterator[str]:
    """Yield the conditions that each row of *relation* satisfies."""
    yield from relation.checks
    if relation.partition_check is not None:
        yield relation.partition_check
    if relation.kind == "p":
        bounds = [one.partition_check for one in _leaves(schema, relation)]
        if None not in bounds:
            yield " OR ".join(f"({one})" for one in bounds) or "false"


def _leaves(schema: Schema, relation: Relation) -> Iterator[Relation]:
    for name in relation.children:
        child = schema.relations[name]
        if child.kind == "p":
            yield from _leaves(schema, child)
        else:
            yield child


def _reads(condition: str, relation: Relation) -> frozenset[str]:
    """Return the columns that *condition* names; all of them if no parser reads it."""
    found = read_expression(condition)
    names = relation.columns.keys()
    return frozenset(found.names & names if found.is_complete else names)
