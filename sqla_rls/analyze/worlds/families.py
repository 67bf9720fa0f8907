"""A row in question with the rows that foreign keys and policies connect to it, as one family.

Rows of other families have other keys, so one world holds many families.  The same input gives the same
families.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from sqla_rls.analyze import vocabulary as terms
from sqla_rls.analyze.worlds.objects import Column, ForeignKey, Relation
from sqla_rls.analyze.worlds.samples import an_early, granting_least, one_by_one, permitted
from sqla_rls.analyze.worlds.shared import Join
from sqla_rls.analyze.worlds.universe import Universe, is_foreign
from sqla_rls.analyze.worlds.world import Row, Values

#: The most rows of one family.
_MOST_MEMBERS: Final = 10
#: A value of keys that no other family has.
_OWN: Final = "a key of its own"
#: The value of a key that another row of the family has.
_EQUAL: Final = "the key of another row"
#: The most columns of one family that may hold a key of another row.
_MOST_HOLDERS: Final = 8
_CALLERS: Final = (terms.Claim, terms.Setting, terms.Subject)

#: The families near to one that constraints refuse.
_MOST_NEAR: Final = 4
#: The differences between a family of a sample and one that grants little or much.
_CHANGES: Final = (2, 3, 4, 5, 8)

Choices = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _Key:
    """A key of the family, by its number, as the value of a column."""

    number: int


@dataclass(slots=True)
class _Member:
    """A row of a family: the row in question is the first."""

    relation: Relation
    #: The keys of the family that the columns hold, by their numbers.
    keys: dict[str, int]
    #: Those of them that connect the row with others.
    links: tuple[int, ...] = ()
    #: The member without which there is no such row.
    needs: int | None = None
    #: The columns of *needs* that are NULL without the row; None: nothing refers to it.
    referring: tuple[str, ...] | None = None
    #: Whether there are families without the row.
    is_optional: bool = False
    #: Whether the row refers to the row in question, so that it comes after it.
    is_below: bool = False


@dataclass(frozen=True, slots=True)
class _Factor:
    """What differs between families: a value of a column or of a key, or whether there is a row."""

    values: tuple[Any, ...]
    member: int
    column: str | None = None
    key: int | None = None
    may_need_null: bool = False
    is_time: bool = False


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
    #: Whether more rows than a family may have decide.
    is_cut: bool = False
    _members: list[_Member] = field(default_factory=list[_Member])
    _factors: list[_Factor] = field(default_factory=list[_Factor])
    #: The columns that hold each key.
    _columns: dict[int, list[Column]] = field(default_factory=dict[int, list[Column]])
    #: Keys that may be equal to an earlier one, though no foreign key says so.
    _alike: dict[int, int] = field(default_factory=dict[int, int])
    _refused: dict[str, bool] = field(default_factory=dict[str, bool])

    def __post_init__(self) -> None:
        relation = self.universe.relation
        if relation.has_rows:
            root = relation
        else:
            tables = [self.universe.schema.relations[name] for name in self.universe.rows]
            if not tables:
                return
            root = max(tables, key=lambda one: len(one.foreign_keys))
        self._add(_Member(root, {}))
        self._connect()
        self._factors = list(self._varied())
        self.size = math.prod(len(one.values) for one in self._factors)

    @property
    def relates(self) -> bool:
        """Whether a family has more than the row in question."""
        return len(self._members) > 1

    @property
    def references(self) -> tuple[str, ...]:
        """The columns by which the row in question refers to others."""
        found = [one.referring for one in self._members[1:] if one.needs == 0 and one.referring]
        return tuple(dict.fromkeys(name for names in found for name in names))

    def chosen(self, number: int, most_settings: int | None = None) -> list[Choices]:
        """Return up to *number* families: all of them, or those near to one that grants little or much.

        Args:
            number: the most families.
            most_settings: the most kinds of the rows that families of one world have in common, as those of
                a tenant; None: each family has a world of its own.
        """
        pools = [one.values for one in self._factors]
        if self.size <= number:
            return list(itertools.product(*pools))
        bases = [
            one for base in self._bases(pools) for one in permitted(base, pools, self._refuses)[:_MOST_NEAR]
        ]
        settings: dict[str, Choices] = {}
        common, own = self._places() if most_settings is not None else ([], range(len(self._factors)))
        for base in bases:
            settings.setdefault(repr([base[place] for place in common]), base)
        for place, value in one_by_one(pools, common):
            for base in bases:
                one = (*base[:place], value, *base[place + 1 :])
                settings.setdefault(repr([one[each] for each in common]), one)
        kept = list(settings.values())[:most_settings]
        random = Random(0)  # noqa: S311 # the same families each time
        found: dict[str, Choices] = {}
        for setting in kept:
            near = self._near(setting, bases, own, max(number // len(kept), 1), random)
            found |= {self._spelled(one): one for one in near}
        return list(found.values())[:number]

    def _bases(self, pools: Sequence[tuple[Any, ...]]) -> list[Choices]:
        """Return a family that grants much, and one that grants little; also with NULLs and later times."""
        grants = tuple(values[0] for values in pools)
        least = tuple(_OWN if _OWN in values else granting_least(values) for values in pools)
        later = [
            tuple(
                one.values[1] if one.is_time and len(one.values) > 1 else value
                for one, value in zip(self._factors, base, strict=True)
            )
            for base in (least, grants)
        ]
        bases = (*later, least, grants)
        nulls = [
            tuple(
                None if one.may_need_null else value for one, value in zip(self._factors, base, strict=True)
            )
            for base in bases
        ]
        return list({repr(base): base for base in (*nulls, *bases)}.values())

    def _spelled(self, choices: Choices) -> str:
        """Return a text that families with the same rows have in common."""
        absent: set[int] = set()
        for factor, value in zip(self._factors, choices, strict=True):
            if factor.key is None and factor.column is None and not value:
                absent.add(factor.member)
        for place, member in enumerate(self._members):
            if member.needs in absent:
                absent.add(place)
        return repr(
            [
                None
                if factor.member in absent and (factor.key is None or len(self._columns[factor.key]) == 1)
                else value
                for factor, value in zip(self._factors, choices, strict=True)
            ]
        )

    def _places(self) -> tuple[Sequence[int], Sequence[int]]:
        """Return the places of the factors of rows that families may have in common, and the others."""
        valued = {one.key for one in self._factors if one.key is not None and one.values != (_EQUAL, _OWN)}
        common = set()
        for number, member in enumerate(self._members):
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
        first = number * len(self._columns) + self._first_key
        keys = {
            key: self.universe.pools.distinct(columns[0], first + key)
            for key, columns in self._columns.items()
        }
        present = {0: True}
        given: dict[int, dict[str, Any]] = {}
        for factor, value in zip(self._factors, choices, strict=True):
            if factor.key is not None:
                if value == _EQUAL:
                    keys[factor.key] = keys[self._alike[factor.key]]
                elif value != _OWN:
                    keys[factor.key] = value
            elif factor.column is not None:
                given.setdefault(factor.member, {})[factor.column] = value
            else:
                present[factor.member] = value
        for place, member in enumerate(self._members[1:], 1):
            present[place] = present.get(place, True) and (member.needs is None or present[member.needs])
        found: dict[int, Row] = {}
        marks: dict[Any, str | None] = {}
        for place, member in enumerate(self._members):
            chosen = {
                name: keys[value.number] if isinstance(value, _Key) else value
                for name, value in given.get(place, {}).items()
            }
            values = {name: keys[key] for name, key in member.keys.items()} | chosen
            for other, parent in enumerate(self._members):
                if parent.needs == place and parent.referring and not present[other]:
                    values |= dict.fromkeys(parent.referring)
            if present[place]:
                one = self._row(member, values, number * _MOST_MEMBERS + place + 1)
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
        below = {found[place] for place, one in enumerate(self._members) if one.is_below and place in found}
        return Family(
            choices=choices,
            row=asked,
            rows=completed,
            before=tuple(one for one in completed if one not in below and one != asked),
            marks=marks,
        )

    def _row(self, member: _Member, values: Values, number: int) -> Row | None:
        relation = member.relation
        if any(value is None and relation.columns[name].not_null for name, value in values.items()):
            return None
        filled = self.universe.filled(relation, values, number)
        asked = {name: value for name, value in filled.items() if name not in member.keys}
        spelled = repr((relation.name, asked))
        if spelled not in self._refused:
            self._refused[spelled] = self.universe.refuses(relation, asked)
        return None if self._refused[spelled] else Row(relation.name, filled)

    def _add(self, member: _Member) -> bool:
        """Add *member*, unless the family is full; give each key column a key of the family."""
        if len(self._members) == _MOST_MEMBERS:
            self.is_cut = True
            return False
        relation = member.relation
        names = dict.fromkeys(
            name
            for key in (*relation.keys[:1], *(key.columns for key in relation.foreign_keys))
            for name in key
            if relation.columns[name].generated is None
        )
        member.links = tuple(member.keys.values())
        for name in names:
            if name not in member.keys:
                member.keys[name] = len(self._columns)
                self._columns[len(self._columns)] = []
        for name, key in member.keys.items():
            self._columns[key].append(relation.columns[name])
        self._members.append(member)
        return True

    def _connect(self) -> None:
        """Add the rows to which those before refer, and those that refer to them or are read beside them."""
        for place in itertools.count():
            if place == len(self._members):
                if not self._join():
                    return
                continue
            member = self._members[place]
            for key in member.relation.foreign_keys:
                self._add_parent(place, member, key)
            for name in self.universe.rows:
                child = self.universe.schema.relations[name]
                if name in {one.relation.name for one in self._members}:
                    continue
                for key in child.foreign_keys:
                    if key.target == member.relation.name and set(key.target_columns) <= member.keys.keys():
                        keys = {
                            own: member.keys[name]
                            for own, name in zip(key.columns, key.target_columns, strict=True)
                        }
                        is_below = place == 0 or member.is_below
                        self._add(_Member(child, keys, needs=place, is_optional=True, is_below=is_below))
                        break

    def _add_parent(self, place: int, member: _Member, key: ForeignKey) -> None:
        target = self.universe.schema.relations[key.target]
        if not target.has_rows or not set(key.target_columns) <= target.columns.keys():
            return
        keys = {
            theirs: member.keys[own]
            for own, theirs in zip(key.columns, key.target_columns, strict=True)
            if own in member.keys
        }
        alike = [one for one in self._members if one.relation.name == key.target]
        if any(all(one.keys.get(name) == number for name, number in keys.items()) for one in alike):
            return
        nullable = tuple(name for name in key.columns if not member.relation.columns[name].not_null)
        if key.target == member.relation.name and len(alike) > 1:
            return
        self._add(_Member(target, keys, needs=place, referring=nullable, is_optional=bool(nullable)))

    def _join(self) -> bool:
        """Add a table that no foreign key connects, by columns that are compared; False: there is none."""
        known = {one.relation.name for one in self._members}
        names = [one for one in self.universe.rows if one not in known]
        if not names:
            return False
        for name in names:
            keys, needs = self._joined(name)
            if keys:
                break
        else:
            name = names[0]
            keys, needs = self._named_alike(name)
        child = self.universe.schema.relations[name]
        return self._add(_Member(child, keys, needs=needs, is_optional=True, is_below=needs == 0))

    def _joined(self, name: str) -> tuple[dict[str, int], int | None]:
        """Return the keys that definitions compare with columns of table *name*, and a member."""
        keys: dict[str, int] = {}
        needs: int | None = None
        for (relation, own), (other, theirs) in self._joins():
            place = self._place(other)
            if relation != name or place is None or own in keys:
                continue
            if (key := self._key(self._members[place], theirs)) not in keys.values():
                keys[own] = key
                needs = place if needs is None else needs
        return keys, needs

    def _joins(self) -> Iterator[Join]:
        """Yield the columns that definitions compare and that may hold a key of the family, both ways."""
        for pair in self.universe.joins:
            columns = [self.universe.schema.relations[relation].columns[name] for relation, name in pair]
            if columns[0].type == columns[1].type and all(
                one.generated is None and self._may_be_own(one) and not self._is_callers(one.name)
                for one in columns
            ):
                yield pair
                yield pair[1], pair[0]

    def _place(self, relation: str) -> int | None:
        return next((place for place, one in enumerate(self._members) if one.relation.name == relation), None)

    def _note_alike(self) -> None:
        """Note the keys that definitions compare: some families have them equal."""
        for (relation, name), (other, theirs) in self._joins():
            place, beside = self._place(relation), self._place(other)
            if place is not None and beside is not None:
                own, key = self._members[place].keys.get(name), self._members[beside].keys.get(theirs)
                if own is not None and key is not None and key < own:
                    self._alike.setdefault(own, key)

    def _others(self) -> Mapping[tuple[int, str], Sequence[int]]:
        """Return the columns that need not hold their key, and other keys that they are compared with.

        Without the key, they show which of several connections a definition asks for.
        """
        found: dict[tuple[int, str], list[int]] = {}
        for (relation, name), (other, theirs) in self._joins():
            place, beside = self._place(relation), self._place(other)
            if place is None or beside is None or name == self._only_key(place):
                continue
            own, key = self._members[place].keys.get(name), self._members[beside].keys.get(theirs)
            if key is not None and key != own:
                found.setdefault((place, name), []).append(key)
            elif own is not None and self._is_loose(self._members[place], name):
                found.setdefault((place, name), [])
        self.is_cut |= len(found) > _MOST_HOLDERS
        return dict(itertools.islice(found.items(), _MOST_HOLDERS))

    def _is_loose(self, member: _Member, name: str) -> bool:
        """Return whether the column is one of several connections, of which a definition may miss one."""
        key = member.keys[name]
        if key in self._alike or key in self._alike.values():
            return True
        joins = [
            (own, other) for (relation, own), (other, _) in self._joins() if relation == member.relation.name
        ]
        beside = [other for _, other in joins]
        if any(own == name and beside.count(other) > 1 for own, other in joins):
            return True
        compared = [own for own, _ in joins]
        return compared.count(name) > 1 or (
            not is_foreign(member.relation, name) and (len(set(compared)) > 1 or len(self._columns[key]) > 2)
        )

    def _only_key(self, place: int) -> str | None:
        """Return the column that is the primary key of the member by itself."""
        key = next(iter(self._members[place].relation.keys), ())
        return key[0] if len(key) == 1 else None

    def _named_alike(self, name: str) -> tuple[dict[str, int], int | None]:
        """Return the same as *_joined()* by names alone: a function may compare its arguments."""
        child = self.universe.schema.relations[name]
        linked = self.universe.pools.vocabulary.linked
        keys: dict[str, int] = {}
        needs: int | None = None
        for own in sorted(self.universe.deciding[name]):
            term = terms.Column(own)
            if self._is_callers(own) or own not in child.columns:
                continue
            for place, member in enumerate(self._members):
                for theirs in (*member.keys, *self._compared(member)):
                    is_compared = own == theirs or terms.Column(theirs) in linked.get(term, ())
                    if is_compared and member.relation.columns[theirs].type == child.columns[own].type:
                        keys.setdefault(own, self._key(member, theirs))
                        needs = place if needs is None else needs
        return keys, needs

    def _compared(self, member: _Member) -> list[str]:
        """Return the columns of *member* that decide and aren't keys of the family, but could become some."""
        columns = member.relation.columns
        return [
            name
            for name in sorted(self.universe.deciding.get(member.relation.name, ()))
            if name in columns
            and name not in member.keys
            and columns[name].generated is None
            and self._may_be_own(columns[name])
            and not self._is_callers(name)
        ]

    def _key(self, member: _Member, name: str) -> int:
        """Return the key of the family that the column of *member* holds, or becomes."""
        if name not in member.keys:
            member.keys[name] = len(self._columns)
            self._columns[member.keys[name]] = [member.relation.columns[name]]
        return member.keys[name]

    def _is_callers(self, name: str) -> bool:
        linked = self.universe.pools.vocabulary.linked.get(terms.Column(name), ())
        return any(isinstance(one, _CALLERS) for one in linked)

    def _varied(self) -> Iterator[_Factor]:
        pools = self.universe.pools
        self._note_alike()
        others = self._others()
        yield from self._varied_keys()
        apart = self._apart(others)
        for (place, name), keys in others.items():
            member = self._members[place]
            holder = member.relation.columns[name]
            if (own := member.keys.get(name)) is not None:
                held = map(_Key, (own, *keys, apart[holder.type]))
                nulls = () if holder.not_null else (None,)
                yield _Factor((*held, *nulls), place, name, may_need_null=pools.may_need_null(holder))
        for place, member in enumerate(self._members):
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
        for key, columns in self._columns.items():
            is_free = all(self._may_be_own(one) for one in columns)
            if is_free and not any(self._is_callers(one.name) for one in columns):
                other = self._alike[key] if key in self._alike else self._namesake(key)
                if other is not None:
                    self._alike[key] = other
                    yield _Factor((_EQUAL, _OWN), 0, key=key)
                continue
            holder = next(place for place, one in enumerate(self._members) if key in one.keys.values())
            pool = self.universe.pools.values(columns[0])
            values = [one for one in pool if one is not None]
            yield _Factor((*values, *([_OWN] if is_free or not values else [])), holder, key=key)

    def _apart(self, holders: Iterable[tuple[int, str]]) -> Mapping[str, int]:
        """Return a key of each type of *holders* that is the key of no member."""
        found: dict[str, int] = {}
        for place, name in holders:
            member = self._members[place]
            column = member.relation.columns[name]
            if name in member.keys and column.type not in found:
                found[column.type] = len(self._columns)
                self._columns[found[column.type]] = [column]
        return found

    def _namesake(self, key: int) -> int | None:
        """Return an earlier key in a column of the same name, which a policy may compare."""
        for other in range(key):
            for column in self._columns[other]:
                alone = (set(self._alone(key)), set(self._alone(other)))
                if {column.name} not in alone and any(
                    (one.name, one.type) == (column.name, column.type) for one in self._columns[key]
                ):
                    return other
        return None

    def _alone(self, key: int) -> Iterator[str]:
        """Yield the columns that are a primary key by themselves, and hold *key*."""
        for member in self._members:
            for name, number in member.keys.items():
                if number == key and member.relation.keys[:1] == ((name,),):
                    yield name

    @property
    def _first_key(self) -> int:
        """A number above those of the values that policies tell apart."""
        keys = (one.values for one in self._factors if one.key is not None)
        return 1001 if any(isinstance(value, int | float) for values in keys for value in values) else 1

    def _may_be_own(self, column: Column) -> bool:
        """Return whether each family may have a value of its own, about which no constant says more."""
        return not self.universe.pools.named(column) and (column.category in "NS" or column.base == "uuid")


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
