"""Small worlds as values: rows of tables, and the row in question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the relation of that name."""

    relation: str
    values: Values
    #: Rows with the same values, or with the same but for a key that decides nothing.
    copy: int = 0
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Worlds are made of few rows, which are asked for it many times.
        object.__setattr__(self, "_hash", hash((self.relation, repr(self.values), self.copy)))

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A few rows, in an order in which they can be inserted."""

    #: The rows of the tables that are read inside, with those that foreign keys need.
    rows: tuple[Row, ...]
    #: The row in question; None for a view, and where it is inserted.
    row: Row | None = None
    #: The number of rows that come before the row in question; None: all.
    place: int | None = None

    @classmethod
    def of(cls, ordered: Sequence[Row], row: Row | None) -> World:
        """Return the world of the rows *ordered*, in which others may refer to *row*, one of them."""
        others = tuple(one for one in ordered if one != row)
        return cls(rows=others, row=row, place=None if row is None else list(ordered).index(row))

    @property
    def is_alone(self) -> bool:
        """Whether the row in question is the only one in its table."""
        return self.row is None or all(row.relation != self.row.relation for row in self.rows)

    @property
    def all_rows(self) -> tuple[Row, ...]:
        """All rows, in an order in which they can be inserted."""
        if self.row is None:
            return self.rows
        place = len(self.rows) if self.place is None else self.place
        return (*self.rows[:place], self.row, *self.rows[place:])

    @property
    def values_by_relation(self) -> dict[str, list[Values]]:
        """The values of all rows, by the names of their relations."""
        found: dict[str, list[Values]] = {}
        for row in self.all_rows:
            found.setdefault(row.relation, []).append(row.values)
        return found
