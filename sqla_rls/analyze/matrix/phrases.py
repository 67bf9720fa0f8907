"""Phrases of conditions, and their conjunction and disjunction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

_NOUNS: Final[Mapping[str, str]] = {"org": "organization", "dept": "department"}
_ADJECTIVES: Final = ("public", "visible", "active", "live", "open", "shared")


@dataclass(frozen=True, slots=True)
class Phrase:
    """A condition as a noun, "own rows", and as a clause, "user_id is the caller"."""

    noun: str
    clause: str
    #: The noun says more than "rows where" and the clause.
    is_named: bool = True


def rows_where(clause: str) -> Phrase:
    """Return the rows for which *clause* is true."""
    return Phrase(f"rows where {clause}", clause, is_named=False)


def all_rows_if(clause: str) -> Phrase:
    """Return all rows, on a condition that is the same for each row."""
    return Phrase(f"all rows if {clause}", clause)


def rows_with_flag(name: str, *, is_set: bool) -> Phrase:
    """Return the rows whose column *name*, a boolean, is set or isn't."""
    adjective = name.removeprefix("is_").replace("_", " ")
    is_adjective = name.startswith("is_") or adjective in _ADJECTIVES or adjective.endswith("ed")
    clause = name if is_set else f"not {name}"
    if is_adjective:
        return Phrase(f"{adjective} rows" if is_set else f"rows that aren't {adjective}", clause)
    return Phrase(f"rows {'with' if is_set else 'without'} {name}", clause)


def rows_of_members(column: str, rest: Iterable[str]) -> Phrase:
    """Return the rows of the groups whose member the caller is."""
    stem = column.removesuffix("_id").removesuffix("_uuid").replace("_", " ")
    group = _plural(_NOUNS.get(stem, stem))
    conditions = " and ".join(rest)
    words = f"my {group}{f' (where {conditions})' if conditions else ''}"
    return Phrase(f"rows of {words}", f"it is of {words}")


def _plural(noun: str) -> str:
    if noun.endswith("s"):
        return noun
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}{'es' if noun.endswith(('x', 'ch', 'sh')) else 's'}"


def any_of(parts: Sequence[Phrase]) -> Phrase:
    """Return the rows that one of *parts* admits."""
    parts = list(dict.fromkeys(parts))
    if len(parts) == 1:
        return parts[0]
    return Phrase(
        " or ".join(one.noun for one in parts),
        f"({' or '.join(one.clause for one in parts)})",
        is_named=all(one.is_named for one in parts),
    )


def all_of(parts: Sequence[Phrase], first: Phrase | None = None) -> Phrase:
    """Return the rows that all of *parts* admit; *first* gives the noun."""
    parts = list(dict.fromkeys(one for one in parts if one.clause != "true"))
    if not parts:
        return Phrase("all rows", "true")
    if first is None or first not in parts:
        first = next((one for one in parts if one.is_named), parts[0])
    rest = [one.clause for one in parts if one is not first]
    if not rest:
        return first
    noun = first.noun
    if " or " in noun:
        noun = f"({noun})"
    joint = "where" if first.is_named else "and"
    return Phrase(
        f"{noun} {joint} {' and '.join(rest)}",
        " and ".join([first.clause, *rest]),
        is_named=first.is_named,
    )
