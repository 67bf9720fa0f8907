"""Small worlds as values: rows of tables, and the row in question."""

from __future__ import annotations

from collections.abc import Mapping
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
    #: The row in question, the last; None for a view, and where it is inserted.
    row: Row | None = None

    @property
    def is_alone(self) -> bool:
        """Whether the row in question is the only one in its table."""
        return self.row is None or all(row.relation != self.row.relation for row in self.rows)

    @property
    def all_rows(self) -> tuple[Row, ...]:
        return self.rows if self.row is None else (*self.rows, self.row)

    @property
    def values_by_relation(self) -> dict[str, list[Values]]:
        """The values of all rows, by the names of their relations."""
        found: dict[str, list[Values]] = {}
        for row in self.all_rows:
            found.setdefault(row.relation, []).append(row.values)
        return found
