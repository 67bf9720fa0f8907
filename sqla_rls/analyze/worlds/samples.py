"""Samples of rows and of their combinations, for what a budget can't try whole.

The same input gives the same samples.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import lru_cache
from itertools import combinations, islice
from random import Random
from typing import Any, Final

from sqla_rls.analyze.worlds.pools import SUBJECTS
from sqla_rls.analyze.worlds.schema import Schema
from sqla_rls.analyze.worlds.world import Row, World

#: The pairs of other values by which a row may become one that no constraint refuses.
_MOST_PAIRS: Final = 500
_CALLER: Final = frozenset(caller for caller, _ in SUBJECTS.values())


def is_first_of_its_kind(world: World) -> bool:
    """Return whether 2 comes after 1, as numbers and among the numbers of keys."""
    rows = world.rows if world.row is None else (world.row, *world.rows)
    values = [value for row in rows for value in row.values.values() if type(value) is int]
    return 2 not in values or (1 in values and values.index(1) < values.index(2))


def compatible(rows: Sequence[Row], schema: Schema) -> tuple[Row, ...]:
    """Return those of *rows* whose keys, and references to keys, contradict none before them."""
    seen: set[tuple[str, tuple[str, ...], str]] = set()
    referred: dict[tuple[str, tuple[str, ...], str], str] = {}
    found = []
    for row in rows:
        keys = {
            (row.relation, key, repr([row.values.get(name) for name in key]))
            for key in schema.relations[row.relation].keys
        }
        refers = dict(_referred(row, schema))
        if not keys & seen and all(referred.get(key, wanted) == wanted for key, wanted in refers.items()):
            seen |= keys
            referred |= refers
            found.append(row)
    return tuple(found)


def _referred(row: Row, schema: Schema) -> Iterator[tuple[tuple[str, tuple[str, ...], str], str]]:
    """Yield each key of the rows that *row* refers to, with all values that it asks of them."""
    for foreign in schema.relations[row.relation].foreign_keys:
        wanted = {
            name: row.values.get(own)
            for own, name in zip(foreign.columns, foreign.target_columns, strict=True)
        }
        if foreign.target not in schema.relations or None in wanted.values():
            continue
        for key in schema.relations[foreign.target].keys:
            if set(key) <= wanted.keys():
                yield (foreign.target, key, repr([wanted[name] for name in key])), repr(wanted)


def fits(rows: Sequence[Row], most: int) -> bool:
    names = [row.relation for row in rows]
    return all(names.count(name) <= most for name in set(names))


def related(
    rows: Sequence[Row | None], context: Sequence[Row], number: int, random: Random
) -> list[Row | None]:
    """Return some of *rows*: half of them have most values in common with *context*, and half are any."""
    shuffled = random.sample(rows, len(rows))
    values = {one for row in context for one in _spelled(row) if one != "None"}

    def shared(row: Row | None) -> int:
        return 0 if row is None else -sum(one in values for one in _spelled(row))

    closest = sorted(shuffled, key=shared)[: (number + 1) // 2]
    return [*closest, *(row for row in shuffled if row not in closest)][:number]


@lru_cache(1000)
def _spelled(row: Row) -> tuple[str, ...]:
    return tuple(map(repr, row.values.values()))


def _is_the_callers(row: Row) -> bool:
    return any(value in _CALLER for value in row.values.values() if isinstance(value, str))


def sampled(rows: Sequence[Row], size: int, number: int, random: Random) -> list[tuple[Row, ...]]:
    """Return some combinations: mostly of different tables, which policies join, with a caller's row."""
    callers = [row for row in rows if _is_the_callers(row)]
    tables: dict[str, list[Row]] = {}
    for row in rows:
        tables.setdefault(row.relation, []).append(row)
    found: dict[tuple[Row, ...], None] = {}
    for _ in range(number * 4):
        if len(found) >= number:
            break
        if len(tables) >= size and random.random() < 0.7:
            chosen = [random.choice(tables[name]) for name in random.sample(sorted(tables), size)]
        else:
            chosen = random.sample(list(rows), size)
        if callers and random.random() < 0.7 and not any(map(_is_the_callers, chosen)):
            chosen[0] = random.choice(callers)
        found[tuple(sorted(chosen, key=rows.index))] = None
    return list(found)


def granting_least(values: Sequence[Any]) -> Any:
    """Return False, or another person than the caller, if the pool has both; else the first value."""
    if any(value is True for value in values):
        return next((value for value in values if value is False), values[0])
    others = [other for caller, other in SUBJECTS.values() if caller in values and other in values]
    return others[0] if others and not isinstance(values[0], int) else values[0]


def one_by_one(pools: Sequence[Sequence[Any]], places: Sequence[int]) -> list[tuple[int, Any]]:
    """Return *places* with each of their values: the first of all places, then the second, and so on."""
    most = max((len(pools[place]) for place in places), default=0)
    return [
        (place, pools[place][turn]) for turn in range(most) for place in places if turn < len(pools[place])
    ]


def an_early(values: Sequence[Any], random: Random) -> Any:
    """Return one of *values*, of which the first are the likeliest."""
    return values[int(len(values) * random.random() ** 2)]


def spread(
    pools: Sequence[Sequence[Any]],
    number: int,
    *,
    nulls: Collection[int],
    grants: bool,
    refuses: Callable[[Sequence[Any]], bool],
) -> list[tuple[Any, ...]]:
    """Return each value once in a row that grants little, and in one that *grants*; and a sample of the rest.

    What opens shows in a row in question that is hidden otherwise.  A row of another table often grants by
    the first values of its columns, such as the caller and a role.  Both may need NULL at the places *nulls*.
    A row that a constraint *refuses* is left out, unless only such rows have one of its values.
    """
    bases = [tuple(map(granting_least, pools))]
    bases += [tuple(values[0] for values in pools)] if grants else []
    if nulls:
        bases += [
            tuple(None if place in nulls else value for place, value in enumerate(base)) for base in bases
        ]
    nearest = [one for base in bases for one in permitted(base, pools, refuses)]
    bases = list({repr(one): one for one in nearest}.values())
    variations = [one_by_one(pools, range(len(pools)))] * len(bases)
    found = {repr(base): base for base in bases}
    refused: dict[str, tuple[Any, ...]] = {}
    for turns in zip(*variations, strict=True):
        for base, (place, value) in zip(bases, turns, strict=True):
            one = (*base[:place], value, *base[place + 1 :])
            (refused if refuses(one) else found).setdefault(repr(one), one)
    for key, one in refused.items():
        for place, value in enumerate(one):
            if all(repr(other[place]) != repr(value) for other in found.values()):
                near = [
                    other for other in permitted(one, pools, refuses) if repr(other[place]) == repr(value)
                ]
                found |= {repr(other): other for other in near[:1]} or {key: one}
    random = Random(0)  # noqa: S311 # the same worlds each time
    for _ in range(number * 10):
        if len(found) >= number:
            break
        one = tuple(an_early(values, random) for values in pools)
        if not refuses(one):
            found.setdefault(repr(one), one)
    return list(found.values())[:number]


def permitted(
    base: tuple[Any, ...], pools: Sequence[Sequence[Any]], refuses: Callable[[Sequence[Any]], bool]
) -> list[tuple[Any, ...]]:
    """Return *base*, or rows near to it that no constraint refuses: with one other value, or one with two."""
    if not refuses(base):
        return [base]
    found = []
    for place, values in enumerate(pools):
        nearby = ((*base[:place], value, *base[place + 1 :]) for value in values)
        found += [one for one in nearby if not refuses(one)][:1]
    return found or [*islice(_permitted_by_two(base, pools, refuses), 1)] or [base]


def _permitted_by_two(
    base: tuple[Any, ...], pools: Sequence[Sequence[Any]], refuses: Callable[[Sequence[Any]], bool]
) -> Iterator[tuple[Any, ...]]:
    """Yield rows with two other values than *base* that no constraint refuses."""
    changes = [
        (place, value) for place, values in enumerate(pools) for value in values if value != base[place]
    ]
    for (first, one), (second, other) in islice(combinations(changes, 2), _MOST_PAIRS):
        if first != second:
            row = [*base]
            row[first], row[second] = one, other
            if not refuses(row):
                yield tuple(row)
