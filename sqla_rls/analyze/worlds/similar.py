"""Texts that functions of policies can't tell apart, or of which they see a part."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

from sqla_rls.analyze.vocabulary import COLLATE, Column, Constant, Term, Vocabulary

#: Functions to which texts that differ in capitals may be equal.
_IGNORE_CASE: Final = frozenset(("lower", "upper", "initcap", "casefold", "citext", COLLATE))
_SUBSTRING: Final = frozenset(("substr", "substring"))
#: Functions that look at a part of a text.
_CUT: Final = _SUBSTRING | {
    "left",
    "right",
    "split_part",
    "starts_with",
    "strpos",
    "position",
    "replace",
    "regexp_replace",
}
#: Functions that ignore spaces.
_TRIM: Final = frozenset(("btrim", "ltrim", "rtrim", "trim"))
#: The texts to which others are similar.
_MOST_TEXTS: Final = 2
#: The last place of a part.
_LAST_PLACE: Final = 9

#: The functions that may not tell two texts of a column apart, by the name of the column.
Blurring = Mapping[str, frozenset[str]]


def blurring(
    vocabulary: Vocabulary, columns: Collection[str], called: Iterable[str], collated: Iterable[str] = ()
) -> Blurring:
    """Return the functions that compare a part of a column, or ignore its capitals.

    Args:
        vocabulary: what the definitions mention.
        columns: the names of all columns that they may read.
        called: the names of the functions whose bodies are in *vocabulary*.
        collated: the columns with a collation to which different texts may be equal.
    """
    passed = frozenset[Term]().union(*(vocabulary.arguments.get(name, ()) for name in called))
    found: dict[str, set[str]] = {name: {COLLATE} for name in collated}
    if COLLATE in vocabulary.arguments:
        # The other side of the comparison may have it.
        found |= {name: {COLLATE} for name in columns}
    for function in _IGNORE_CASE | _CUT | _TRIM:
        for term in vocabulary.arguments.get(function, ()):
            for name in _columns(term, vocabulary, columns, passed):
                found.setdefault(name, set()).add(function)
    return {name: frozenset(functions) for name, functions in found.items()}


def _columns(
    term: Term, vocabulary: Vocabulary, columns: Collection[str], passed: Collection[Term]
) -> Collection[str]:
    """Return the columns that *term* is, or is compared with; a parameter is any that is passed."""
    if isinstance(term, Column) and term.name in columns:
        return (term.name,)
    linked = {one.name for one in vocabulary.linked.get(term, ()) if isinstance(one, Column)} & set(columns)
    if linked or not isinstance(term, Column):
        return linked
    return {one.name for one in passed if isinstance(one, Column)} & set(columns)


def wholes(texts: Sequence[str], constants: Iterable[Constant], functions: Collection[str]) -> Iterator[str]:
    """Yield texts that have one of *texts* in the place at which *functions* look.

    Args:
        texts: the parts.
        constants: those that the column is compared with, among them separators and places.
        functions: the functions.
    """
    constants = tuple(constants)
    separators = [one.value for one in constants if one.kind == "text" and is_separator(one.value)]
    numbers = [int(one.value) for one in constants if one.kind == "number" and one.value.isdecimal()]
    for place in dict.fromkeys(number for number in numbers if 1 < number <= _LAST_PLACE):
        for text in _words(texts):
            if "split_part" in functions and separators:
                yield separators[0].join(["0"] * (place - 1) + [text])
            if not _SUBSTRING.isdisjoint(functions):
                yield "0" * (place - 1) + text


def similar(texts: Sequence[str], functions: Collection[str]) -> Iterator[str]:
    """Yield texts that *functions* may not tell from *texts*."""
    separators = [text for text in texts if is_separator(text)][:1]
    for text in _words(texts):
        if not _IGNORE_CASE.isdisjoint(functions):
            yield text.upper()
        if not _CUT.isdisjoint(functions):
            yield from (f"{text[:-1]}0", f"{text}0", f"0{text}")
        if not _TRIM.isdisjoint(functions):
            yield from (f"{text} ", f" {text}")
        if "split_part" in functions:
            yield from (f"{text}{separator}0" for separator in separators)


def _words(texts: Sequence[str]) -> Sequence[str]:
    return [text for text in texts if not is_separator(text)][:_MOST_TEXTS]


def is_separator(text: str) -> bool:
    """Return whether *text* has no letter and no digit."""
    return not any(map(str.isalnum, text))
