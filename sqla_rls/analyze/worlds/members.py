"""The members of a family, and the keys that link them.

Foreign keys link the rows; where there is none, the columns that definitions compare do.  Keys are numbers
here: nothing in this module chooses a value.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from sqla_rls.analyze import vocabulary as terms
from sqla_rls.analyze.worlds.objects import Column, ForeignKey, Relation
from sqla_rls.analyze.worlds.shared import ColumnOf, Join
from sqla_rls.analyze.worlds.universe import Universe, is_foreign

#: The most rows of one family.
MOST_MEMBERS: Final = 10
#: The most columns of one family that may hold a key of another row.
_MOST_HOLDERS: Final = 8


@dataclass(slots=True)
class Member:
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


@dataclass
class Members:
    """The members of each family of the relation of *universe*.

    A relation without rows, such as a view, that reads no table has none.
    """

    universe: Universe
    rows: list[Member] = field(init=False, default_factory=list[Member])
    #: The columns that hold each key.
    columns: dict[int, list[Column]] = field(init=False, default_factory=dict[int, list[Column]])
    #: Keys that may be equal to an earlier one, though no foreign key says so.
    alike: dict[int, int] = field(init=False, default_factory=dict[int, int])
    #: The columns that need not hold their key, by the places of their members, and other keys for them.
    others: Mapping[tuple[int, str], Sequence[int]] = field(
        init=False, default_factory=dict[tuple[int, str], Sequence[int]]
    )
    #: Whether more rows than a family may have decide.
    is_cut: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        relation = self.universe.relation
        if relation.has_rows:
            root = relation
        else:
            tables = [self.universe.schema.relations[name] for name in self.universe.rows]
            if not tables:
                return
            root = max(tables, key=lambda one: len(one.foreign_keys))
        self._add(Member(root, {}))
        self._connect()
        self._note_alike()
        self.others = self._others()

    def keys_apart(self, holders: Iterable[tuple[int, str]]) -> Mapping[str, int]:
        """Return a key of each type of *holders* that is the key of no member."""
        found: dict[str, int] = {}
        for place, name in holders:
            member = self.rows[place]
            column = member.relation.columns[name]
            if name in member.keys and column.type not in found:
                found[column.type] = len(self.columns)
                self.columns[found[column.type]] = [column]
        return found

    def earlier_key(self, key: int) -> int | None:
        """Return the earlier key that *key* equals in some families, and note it in *alike*; None: none."""
        other = self.alike[key] if key in self.alike else self._namesake(key)
        if other is not None:
            self.alike[key] = other
        return other

    def may_be_own(self, column: ColumnOf) -> bool:
        """Return whether each family may have a value of its own.

        A constant says more about a column, unless this has keys of rows, of which constants are few.
        """
        relation, name = column
        one = self.universe.schema.relations[relation].columns[name]
        if self.is_named(column) and (column in self.universe.constrained or column not in self._with_keys):
            return False
        return one.category in "NS" or one.base == "uuid"

    def is_named(self, column: ColumnOf) -> bool:
        """Return whether definitions compare the column with constants."""
        return column in self.universe.named

    def is_callers(self, column: ColumnOf) -> bool:
        """Return whether definitions compare the column with what they know of the caller."""
        return column in self.universe.callers

    def holders(self, key: int) -> Iterator[ColumnOf]:
        """Yield the columns that hold *key*."""
        for member in self.rows:
            yield from ((member.relation.name, name) for name, one in member.keys.items() if one == key)

    @cached_property
    def _with_keys(self) -> Collection[ColumnOf]:
        """The columns that are primary keys by themselves, and those that are compared with them."""
        found = {
            (one.name, one.keys[0][0])
            for one in map(self.universe.schema.relations.__getitem__, self.universe.deciding)
            if one.keys and len(one.keys[0]) == 1
        }
        size = 0
        while len(found) > size:
            size = len(found)
            found |= {column for pair in self.universe.joins if found & set(pair) for column in pair}
        return found

    def _connect(self) -> None:
        """Add the rows to which those before refer, and those that refer to them or are read beside them."""
        last: list[tuple[int, Member, ForeignKey]] = []
        for place in itertools.count():
            if place == len(self.rows):
                if not self._join():
                    break
                continue
            member = self.rows[place]
            for key in member.relation.foreign_keys:
                if self._connects(key.target):
                    self._add_parent(place, member, key)
                else:
                    last.append((place, member, key))
            for name in self.universe.rows:
                child = self.universe.schema.relations[name]
                if name in {one.relation.name for one in self.rows}:
                    continue
                for key in child.foreign_keys:
                    if all(self.is_callers((name, own)) for own in key.columns):
                        # The row may be another person's than the one to whom *member* belongs.
                        continue
                    if key.target == member.relation.name and set(key.target_columns) <= member.keys.keys():
                        keys = {
                            own: member.keys[name]
                            for own, name in zip(key.columns, key.target_columns, strict=True)
                        }
                        is_below = place == 0 or member.is_below
                        self._add(Member(child, keys, needs=place, is_optional=True, is_below=is_below))
                        break

        # Such a row decides by NULL only, where there is none.
        for place, member, key in last:
            if any(not member.relation.columns[name].not_null for name in key.columns):
                self._add_parent(place, member, key)

    def _connects(self, name: str) -> bool:
        """Return whether definitions read table *name*, or one that refers to it beside the caller."""
        return name in self.universe.rows or any(
            key.target == name and not all(self.is_callers((one, own)) for own in key.columns)
            for one in self.universe.rows
            for key in self.universe.schema.relations[one].foreign_keys
        )

    def decides(self, key: int) -> bool:
        """Return whether a definition reads a column that holds *key*, or the key links two rows."""
        holders = list(self.holders(key))
        return len(holders) > 1 or any(
            name in self.universe.deciding.get(relation, ()) for relation, name in holders
        )

    def _add(self, member: Member) -> bool:
        """Add *member*, unless the family is full; give each key column a key of the family."""
        if len(self.rows) == MOST_MEMBERS:
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
                member.keys[name] = len(self.columns)
                self.columns[len(self.columns)] = []
        for name, key in member.keys.items():
            self.columns[key].append(relation.columns[name])
        self.rows.append(member)
        return True

    def _add_parent(self, place: int, member: Member, key: ForeignKey) -> None:
        target = self.universe.schema.relations[key.target]
        if not target.has_rows or not set(key.target_columns) <= target.columns.keys():
            return
        keys = {
            theirs: member.keys[own]
            for own, theirs in zip(key.columns, key.target_columns, strict=True)
            if own in member.keys
        }
        alike = [one for one in self.rows if one.relation.name == key.target]
        if any(all(one.keys.get(name) == number for name, number in keys.items()) for one in alike):
            return
        nullable = tuple(name for name in key.columns if not member.relation.columns[name].not_null)
        if key.target == member.relation.name and len(alike) > 1:
            return
        self._add(Member(target, keys, needs=place, referring=nullable, is_optional=bool(nullable)))

    def _join(self) -> bool:
        """Add a table that no foreign key connects, by columns that are compared; False: there is none."""
        known = {one.relation.name for one in self.rows}
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
        return self._add(Member(child, keys, needs=needs, is_optional=True, is_below=needs == 0))

    def _joined(self, name: str) -> tuple[dict[str, int], int | None]:
        """Return the keys that definitions compare with columns of table *name*, and a member."""
        keys: dict[str, int] = {}
        needs: int | None = None
        for (relation, own), (other, theirs) in self._joins():
            place = self._place(other)
            if relation != name or place is None or own in keys:
                continue
            if (key := self._key_of(self.rows[place], theirs)) not in keys.values():
                keys[own] = key
                needs = place if needs is None else needs
        return keys, needs

    def _named_alike(self, name: str) -> tuple[dict[str, int], int | None]:
        """Return the same as *_joined()* by names alone: a function may compare its arguments."""
        child = self.universe.schema.relations[name]
        linked = self.universe.pools.vocabulary.linked
        keys: dict[str, int] = {}
        needs: int | None = None
        for own in sorted(self.universe.deciding[name]):
            term = terms.Column(own)
            if self.is_callers((name, own)) or own not in child.columns:
                continue
            for place, member in enumerate(self.rows):
                for theirs in (*member.keys, *self._compared(member)):
                    is_compared = own == theirs or terms.Column(theirs) in linked.get(term, ())
                    if is_compared and member.relation.columns[theirs].type == child.columns[own].type:
                        keys.setdefault(own, self._key_of(member, theirs))
                        needs = place if needs is None else needs
        return keys, needs

    def _compared(self, member: Member) -> list[str]:
        """Return the columns of *member* that decide and aren't keys of the family, but could become some."""
        columns = member.relation.columns
        return [
            name
            for name in sorted(self.universe.deciding.get(member.relation.name, ()))
            if name in columns
            and name not in member.keys
            and columns[name].generated is None
            and self.may_be_own((member.relation.name, name))
            and not self.is_callers((member.relation.name, name))
        ]

    def _key_of(self, member: Member, name: str) -> int:
        """Return the key of the family that the column of *member* holds, or becomes."""
        if name not in member.keys:
            member.keys[name] = len(self.columns)
            self.columns[member.keys[name]] = [member.relation.columns[name]]
        return member.keys[name]

    def _note_alike(self) -> None:
        """Note the keys that definitions compare: some families have them equal."""
        for (relation, name), (other, theirs) in self._joins():
            place, beside = self._place(relation), self._place(other)
            if place is not None and beside is not None:
                own, key = self.rows[place].keys.get(name), self.rows[beside].keys.get(theirs)
                if own is not None and key is not None and key < own:
                    self.alike.setdefault(own, key)

    def _is_loose(self, member: Member, name: str) -> bool:
        """Return whether the column is one of several connections, of which a definition may miss one."""
        key = member.keys[name]
        if key in self.alike or key in self.alike.values():
            return True
        joins = [
            (own, other) for (relation, own), (other, _) in self._joins() if relation == member.relation.name
        ]
        beside = [other for _, other in joins]
        if any(own == name and beside.count(other) > 1 for own, other in joins):
            return True
        compared = [own for own, _ in joins]
        return compared.count(name) > 1 or (
            not is_foreign(member.relation, name) and (len(set(compared)) > 1 or len(self.columns[key]) > 2)
        )

    def _others(self) -> Mapping[tuple[int, str], Sequence[int]]:
        """Return the columns that need not hold their key, and other keys that they are compared with.

        Without the key, they show which of several connections a definition asks for.
        """
        found: dict[tuple[int, str], list[int]] = {}
        for (relation, name), (other, theirs) in self._joins():
            place, beside = self._place(relation), self._place(other)
            if place is None or beside is None or name == self._only_key(place):
                continue
            own, key = self.rows[place].keys.get(name), self.rows[beside].keys.get(theirs)
            if key is not None and key != own:
                found.setdefault((place, name), []).append(key)
            elif own is not None and self._is_loose(self.rows[place], name):
                found.setdefault((place, name), [])
        self.is_cut |= len(found) > _MOST_HOLDERS
        return dict(itertools.islice(found.items(), _MOST_HOLDERS))

    def _joins(self) -> Iterator[Join]:
        """Yield the columns that definitions compare and that may hold a key of the family, both ways."""
        for pair in self.universe.joins:
            columns = [self.universe.schema.relations[relation].columns[name] for relation, name in pair]
            if columns[0].type == columns[1].type and all(
                one.generated is None and self.may_be_own(each) and not self.is_callers(each)
                for each, one in zip(pair, columns, strict=True)
            ):
                yield pair
                yield pair[1], pair[0]

    def _place(self, relation: str) -> int | None:
        return next((place for place, one in enumerate(self.rows) if one.relation.name == relation), None)

    def _only_key(self, place: int) -> str | None:
        """Return the column that is the primary key of the member by itself."""
        key = next(iter(self.rows[place].relation.keys), ())
        return key[0] if len(key) == 1 else None

    def _namesake(self, key: int) -> int | None:
        """Return an earlier key in a column of the same name, which a policy may compare."""
        for other in range(key):
            for column in self.columns[other]:
                alone = (set(self._alone(key)), set(self._alone(other)))
                if {column.name} not in alone and any(
                    (one.name, one.type) == (column.name, column.type) for one in self.columns[key]
                ):
                    return other
        return None

    def _alone(self, key: int) -> Iterator[str]:
        """Yield the columns that are a primary key by themselves, and hold *key*."""
        for member in self.rows:
            for name, number in member.keys.items():
                if number == key and member.relation.keys[:1] == ((name,),):
                    yield name
