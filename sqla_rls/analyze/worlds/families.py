"""Families: the values of a row in question and of the rows that decide about it.

`members.py` finds these rows.  Rows of other families have other keys, so one world holds many families.  The
same input gives the same families.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from sqla_rls.analyze.worlds.members import MOST_MEMBERS, Member, Members
from sqla_rls.analyze.worlds.samples import an_early, granting_least, one_by_one, permitted
from sqla_rls.analyze.worlds.universe import Universe
from sqla_rls.analyze.worlds.world import Row, Values

#: A value of keys that no other family has.
_OWN: Final = "a key of its own"
#: The value of a key that another row of the family has.
_EQUAL: Final = "the key of another row"
#: The families near to one that constraints refuse.
_MOST_NEAR: Final = 4
#: The differences between a family of a sample and one that grants little or much.
_CHANGES: Final = (2, 3, 4, 5, 8)

Choices = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _Key:
    """A key of the family, by its number, as the value of a column."""

    number: int


@dataclass(frozen=True, slots=True)
class _Factor:
    """What differs between families: a value of a column or of a key, or whether there is a row."""

    values: tuple[Any, ...]
    member: int
    column: str | None = None
    key: int | None = None
    may_need_null: bool = False
    is_time: bool = False
    #: Whether each family may have another key.
    is_own: bool = False

    @property
    def is_value(self) -> bool:
        """Whether it isn't the presence of a row."""
        return self.key is not None or self.column is not None

    @property
    def is_text(self) -> bool:
        return self.column is not None and isinstance(self.values[0], str) and self.may_grant

    @property
    def is_persons(self) -> bool:
        """Whether the first value is the caller, and another is somebody else."""
        return bool(granting_least(self.values) != self.values[0])

    @property
    def is_flag(self) -> bool:
        return self.column is not None and True in self.values

    @property
    def may_grant(self) -> bool:
        """Whether the first value grants more than the others; a flag may refuse, such as "archived"."""
        return not (self.may_need_null or self.is_time or True in self.values or _EQUAL in self.values)


@dataclass(frozen=True, slots=True)
class Family:
    """The rows of a family, in an order in which they can be inserted."""

    choices: Choices
    row: Row | None
    rows: tuple[Row, ...]
    #: The rows of which none refers to the row in question, without it.
    before: tuple[Row, ...]
    #: What a world with the family has, and has not.
    marks: Mapping[Any, str | None]


@dataclass
class Families:
    """The families of the relation of *universe*."""

    universe: Universe
    #: The number of families that differ in a way that the policies can tell apart.
    size: int = 0
    _members: Members = field(init=False)
    _factors: list[_Factor] = field(default_factory=list[_Factor])
    _refused: dict[str, bool] = field(default_factory=dict[str, bool])
    _of_writers: set[str] = field(default_factory=set[str])

    def __post_init__(self) -> None:
        self._members = Members(self.universe)
        if self._members.rows:
            self._factors = list(self._varied())
            self.size = math.prod(len(one.values) for one in self._factors)

    @property
    def is_cut(self) -> bool:
        """Whether more rows than a family may have decide."""
        return self._members.is_cut

    @property
    def relates(self) -> bool:
        """Whether a family has more than the row in question."""
        return len(self._members.rows) > 1

    @property
    def references(self) -> tuple[str, ...]:
        """The columns by which the row in question refers to others."""
        found = [one.referring for one in self._members.rows[1:] if one.needs == 0 and one.referring]
        return tuple(dict.fromkeys(name for names in found for name in names))

    def chosen(self, number: int, most_settings: int | None = None) -> list[Choices]:
        """Return up to *number* families: all of them, or those near to one that grants little or much.

        Args:
            number: the most families.
            most_settings: the most kinds of the rows that families of one world have in common, as those of
                a tenant; None: each family has a world of its own.
        """
        pools = [one.values for one in self._factors]
        of_two_rows = self._accepted(self._of_two_rows(), number // 4)
        self._of_writers = set(of_two_rows)
        if self.size <= number:
            return list(itertools.product(*pools))
        bases = [
            one for base in self._bases(pools) for one in permitted(base, pools, self._refuses)[:_MOST_NEAR]
        ]
        settings: dict[str, Choices] = {}
        common, own = self._places() if most_settings is not None else ([], range(len(self._factors)))
        for base in bases:
            settings.setdefault(self._spelled(base, common), base)
        for place, value in one_by_one(pools, common):
            for base in bases:
                one = (*base[:place], value, *base[place + 1 :])
                settings.setdefault(self._spelled(one, common), one)
        kept = list(settings.values())[:most_settings]
        random = Random(0)  # noqa: S311 # the same families each time
        found: dict[str, Choices] = {}
        found |= of_two_rows
        found |= self._accepted(self._of_one_row(pools), number // 2)
        for setting in kept:
            near = self._near(setting, bases, own, max(number // len(kept), 1), random)
            found |= {self._spelled(one): one for one in near}
        return list(found.values())[:number]

    def may_write(self, family: Family) -> bool:
        """Return whether the caller is in the row in question, as the policies of new rows often ask."""
        return self._spelled(family.choices) in self._of_writers

    def _accepted(self, choices: Iterable[Choices], most: int) -> dict[str, Choices]:
        """Return the first of *choices* that constraints permit, by their texts."""
        seen: set[str] = set()
        found: dict[str, Choices] = {}
        for one in choices:
            if len(found) == most:
                break
            if (spelled := self._spelled(one)) not in seen:
                seen.add(spelled)
                if not self._refuses(one):
                    found[spelled] = one
        return found

    def _bases(self, pools: Sequence[tuple[Any, ...]]) -> list[Choices]:
        """Return families that grant much, and little; also with all rows, NULLs and later times."""
        grants = tuple(values[0] for values in pools)
        plain = (self._least(pools), grants, self._present(pools))
        bases = (*map(self._later, plain), *plain)
        nulls = map(self._with_nulls, bases)
        return list({repr(base): base for base in (*nulls, *bases)}.values())

    def _least(self, pools: Sequence[tuple[Any, ...]]) -> Choices:
        return tuple(_OWN if _OWN in values else granting_least(values) for values in pools)

    def _present(self, pools: Sequence[tuple[Any, ...]]) -> Choices:
        """Return a family that has all rows, with values that grant little."""
        least = zip(self._factors, self._least(pools), strict=True)
        return tuple(value if one.is_value else True for one, value in least)

    def _later(self, base: Choices) -> Choices:
        return tuple(
            one.values[1] if one.is_time and len(one.values) > 1 else value
            for one, value in zip(self._factors, base, strict=True)
        )

    def _with_nulls(self, base: Choices) -> Choices:
        return tuple(
            None if one.may_need_null else value for one, value in zip(self._factors, base, strict=True)
        )

    def _of_one_row(self, pools: Sequence[tuple[Any, ...]]) -> Iterator[Choices]:
        """Yield families in which one row grants: each with one other value, or with two other flags."""
        present = self._with_nulls(self._later(self._present(pools)))
        # A constant grants by itself, such as that of a plan: other rows have another value.
        weak = tuple(
            [each for each in one.values if each is not None][-1] if one.member and one.is_text else value
            for one, value in zip(self._factors, present, strict=True)
        )
        bases = [
            tuple(
                one.values[0]
                if one.member == member and one.may_grant and (is_whole or one.is_persons)
                else value
                for one, value in zip(self._factors, some, strict=True)
            )
            for some, is_whole in ((present, True), (weak, False))
            for member in dict.fromkeys(one.member for one in self._factors)
        ]
        # The keys of two rows may be equal, where a definition connects them by the wrong columns.
        equal = [place for place, values in enumerate(pools) if _EQUAL in values]
        alike = [(*base[:place], _EQUAL, *base[place + 1 :]) for place in equal for base in bases]
        flags = [place for place, one in enumerate(self._factors) if one.is_flag]
        yield from bases
        yield from self._with_one_other(pools, bases)
        yield from self._with_two_others(bases)
        for base in bases:
            for pair in itertools.combinations(flags, 2):
                yield tuple(not value if place in pair else value for place, value in enumerate(base))
        yield from self._with_one_other(pools, alike)

    def _of_two_rows(self) -> Iterator[Choices]:
        """Yield families in which the row in question has the caller, and one other row grants."""
        present = self._with_nulls(self._later(self._present([one.values for one in self._factors])))
        bases = [
            tuple(
                one.values[0]
                if (one.may_grant and one.member == member) or (not one.member and one.is_persons)
                else value
                for one, value in zip(self._factors, present, strict=True)
            )
            for member in dict.fromkeys(one.member for one in self._factors if one.member)
        ]
        yield from bases
        alike = itertools.zip_longest(*(self._with_two_others([base]) for base in bases))
        yield from (one for some in alike for one in some if one is not None)

    @staticmethod
    def _with_one_other(pools: Sequence[tuple[Any, ...]], bases: Iterable[Choices]) -> Iterator[Choices]:
        for base in bases:
            for place, values in enumerate(pools):
                yield from ((*base[:place], value, *base[place + 1 :]) for value in values)

    def _with_two_others(self, bases: Iterable[Choices]) -> Iterator[Choices]:
        """Yield families with another text in one row, and another value in a row that it may ask for."""
        texts = [place for place, one in enumerate(self._factors) if one.is_text]
        pairs = [
            (first, second)
            for first in texts
            for second, one in enumerate(self._factors)
            if one.column is not None and one.member not in (0, self._factors[first].member)
        ]
        for base in bases:
            for first, second in pairs:
                values = self._factors[first].values, self._factors[second].values
                for value, other in itertools.product(*values):
                    changed = list(base)
                    changed[first], changed[second] = value, other
                    yield tuple(changed)

    def _spelled(self, choices: Choices, places: Sequence[int] | None = None) -> str:
        """Return a text that families with the same rows, or the same values at *places*, have in common."""
        absent: set[int] = set()
        for factor, value in zip(self._factors, choices, strict=True):
            if factor.key is None and factor.column is None and not value:
                absent.add(factor.member)
        for place, member in enumerate(self._members.rows):
            if member.needs in absent:
                absent.add(place)
        return repr(
            [
                None
                if factor.member in absent
                and (factor.key is None or len(self._members.columns[factor.key]) == 1)
                else value
                for place, (factor, value) in enumerate(zip(self._factors, choices, strict=True))
                if places is None or place in places
            ]
        )

    def _places(self) -> tuple[Sequence[int], Sequence[int]]:
        """Return the places of the factors of rows that families may have in common, and the others."""
        valued = {one.key for one in self._factors if one.key is not None and not one.is_own}
        common = set()
        for number, member in enumerate(self._members.rows):
            key = member.relation.keys[0] if member.relation.keys else tuple(member.keys)
            if number and (not member.links or all(member.keys.get(name) in valued for name in key)):
                common.add(number)
        places: tuple[list[int], list[int]] = ([], [])
        for place, one in enumerate(self._factors):
            places[one.key not in valued if one.key is not None else one.member not in common].append(place)
        return places

    def _near(
        self, setting: Choices, bases: Sequence[Choices], places: Sequence[int], number: int, random: Random
    ) -> list[Choices]:
        """Return families that differ from those of *bases* at *places*, and are as *setting* elsewhere."""
        pools = [one.values for one in self._factors]
        own = set(places)
        near = [
            tuple(base[place] if place in own else value for place, value in enumerate(setting))
            for base in bases
        ]
        others = [
            (*base[:place], value, *base[place + 1 :])
            for place, value in one_by_one(pools, places)
            for base in near
        ]
        found: dict[str, Choices] = {}
        for one in (*near, *others):
            if len(found) >= max(len(near), number * 2 // 3):
                break
            if (spelled := self._spelled(one)) not in found and not self._refuses(one):
                found[spelled] = one
        for _ in range(number * 4):
            if len(found) >= number or not places:
                break
            changed = list(random.choice(near))
            for place in random.sample(places, min(random.choice(_CHANGES), len(places))):
                changed[place] = an_early(pools[place], random)
            one = tuple(changed)
            if (spelled := self._spelled(one)) not in found and not self._refuses(one):
                found[spelled] = one
        return list(found.values())

    def _refuses(self, choices: Sequence[Any]) -> bool:
        return self.family(tuple(choices), 0) is None

    def family(self, choices: Choices, number: int) -> Family | None:
        """Return the family of *choices* with keys of that *number*; None if a constraint refuses a row."""
        self.universe.check_time()
        first = number * len(self._members.columns) + self._first_key
        keys = {
            key: self.universe.pools.distinct(columns[0], first + key, is_named=not self._is_own(key))
            for key, columns in self._members.columns.items()
        }
        present = {0: True}
        given: dict[int, dict[str, Any]] = {}
        for factor, value in zip(self._factors, choices, strict=True):
            if factor.key is not None:
                if value == _EQUAL:
                    keys[factor.key] = keys[self._members.alike[factor.key]]
                elif value != _OWN:
                    keys[factor.key] = value
            elif factor.column is not None:
                given.setdefault(factor.member, {})[factor.column] = value
            else:
                present[factor.member] = value
        for place, member in enumerate(self._members.rows[1:], 1):
            present[place] = present.get(place, True) and (member.needs is None or present[member.needs])
        found: dict[int, Row] = {}
        marks: dict[Any, str | None] = {}
        for place, member in enumerate(self._members.rows):
            chosen = {
                name: keys[value.number] if isinstance(value, _Key) else value
                for name, value in given.get(place, {}).items()
            }
            values = {name: keys[key] for name, key in member.keys.items()} | chosen
            for other, parent in enumerate(self._members.rows):
                if parent.needs == place and parent.referring and not present[other]:
                    values |= dict.fromkeys(parent.referring)
            if present[place]:
                one = self._row(member, values, number * MOST_MEMBERS + place + 1)
                if one is None:
                    return None
                found[place] = one
                mark = repr(one.values)
                for key in member.relation.keys:
                    held = [one.values.get(name) for name in key]
                    if None not in held:
                        marks[member.relation.name, key, repr(held)] = mark
            if member.is_optional:
                held = [keys[key] for key in member.links]
                marks[place, repr(held)] = repr(chosen) if present[place] else None
        return self._made(choices, found, marks)

    def _made(
        self, choices: Choices, found: Mapping[int, Row], marks: Mapping[Any, str | None]
    ) -> Family | None:
        rows: dict[Any, Row] = {}
        for row in found.values():
            keys = self.universe.schema.relations[row.relation].keys
            spelled = [row.values.get(name) for name in keys[0]] if keys else row.values
            rows.setdefault((row.relation, repr(spelled)), row)
        completed = self.universe.complete(list(rows.values()))
        if completed is None:
            return None
        asked = found[0] if self.universe.relation.has_rows else None
        below = {
            found[place] for place, one in enumerate(self._members.rows) if one.is_below and place in found
        }
        return Family(
            choices=choices,
            row=asked,
            rows=completed,
            before=tuple(one for one in completed if one not in below and one != asked),
            marks=marks,
        )

    def _row(self, member: Member, values: Values, number: int) -> Row | None:
        relation = member.relation
        if any(value is None and relation.columns[name].not_null for name, value in values.items()):
            return None
        filled = self.universe.filled(relation, values, number)
        asked = {name: value for name, value in filled.items() if name not in member.keys}
        spelled = repr((relation.name, asked))
        if spelled not in self._refused:
            self._refused[spelled] = self.universe.refuses(relation, asked)
        return None if self._refused[spelled] else Row(relation.name, filled)

    def _varied(self) -> Iterator[_Factor]:
        pools = self.universe.pools
        others = self._members.others
        yield from self._varied_keys()
        apart = self._members.keys_apart(others)
        for (place, name), keys in others.items():
            member = self._members.rows[place]
            holder = member.relation.columns[name]
            if (own := member.keys.get(name)) is not None:
                held = map(_Key, (own, *keys, apart[holder.type]))
                nulls = () if holder.not_null else (None,)
                yield _Factor((*held, *nulls), place, name, may_need_null=pools.may_need_null(holder))
        for place, member in enumerate(self._members.rows):
            if member.is_optional:
                yield _Factor((True, False), place)
            for name in sorted(self.universe.deciding.get(member.relation.name, ())):
                column = member.relation.columns.get(name)
                if column is None or column.generated is not None or name in member.keys:
                    continue
                keys = others.get((place, name), ())
                held = map(_Key, (*keys, *([apart[column.type]] if column.type in apart and keys else [])))
                yield _Factor(
                    (*held, *pools.values(column)),
                    place,
                    name,
                    may_need_null=pools.may_need_null(column),
                    is_time=column.category == "D",
                )

    def _varied_keys(self) -> Iterator[_Factor]:
        for key, columns in self._members.columns.items():
            is_free = self._is_own(key)
            if is_free and not any(map(self._members.is_callers, self._members.holders(key))):
                if not self._members.decides(key):
                    continue
                equal = [] if self._members.earlier_key(key) is None else [_EQUAL]
                is_named = any(map(self._members.is_named, self._members.holders(key)))
                named = self.universe.pools.named(columns[0]) if is_named else []
                if equal or named:
                    yield _Factor((*equal, _OWN, *named), 0, key=key, is_own=True)
                continue
            holder = next(place for place, one in enumerate(self._members.rows) if key in one.keys.values())
            pool = self.universe.pools.values(columns[0])
            values = [one for one in pool if one is not None]
            yield _Factor((*values, *([_OWN] if is_free or not values else [])), holder, key=key)

    def _is_own(self, key: int) -> bool:
        """Return whether each family may have a key of its own."""
        return all(map(self._members.may_be_own, self._members.holders(key)))

    @property
    def _first_key(self) -> int:
        """A number above those of the values that policies tell apart."""
        keys = (one.values for one in self._factors if one.key is not None)
        return 1001 if any(isinstance(value, int | float) for values in keys for value in values) else 1


def together(families: Iterable[Family | None], *, most: int, most_in_one: int) -> list[list[Family]]:
    """Return *families* as up to *most* worlds, in which no row of one stands against another."""
    worlds: list[tuple[list[Family], dict[Any, str | None]]] = []
    for family in families:
        if family is None:
            continue
        for some, marks in worlds:
            if len(some) < most_in_one and all(
                marks.get(mark, value) == value for mark, value in family.marks.items()
            ):
                some.append(family)
                marks.update(family.marks)
                break
        else:
            if len(worlds) < most:
                worlds.append(([family], dict(family.marks)))
    return [some for some, _ in worlds]
