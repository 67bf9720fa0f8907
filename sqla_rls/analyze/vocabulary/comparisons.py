"""Comparisons link the terms of their sides, and attribute the constants of each side to those terms."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from sqla_rls.analyze.vocabulary import constants
from sqla_rls.analyze.vocabulary.terms import (
    Claim,
    Column,
    Constant,
    Reference,
    Setting,
    Subject,
    Term,
    Words,
)


@dataclass(frozen=True, slots=True)
class Value:
    """The terms and constants that the result of a node may come from, and the columns in its text."""

    terms: tuple[Term, ...] = ()
    constants: tuple[Constant, ...] = ()
    references: tuple[Reference, ...] = ()

    def __or__(self, other: Value) -> Value:
        return Value(
            tuple(dict.fromkeys(self.terms + other.terms)),
            tuple(dict.fromkeys(self.constants + other.constants)),
            tuple(dict.fromkeys(self.references + other.references)),
        )


def union(values: Iterable[Value]) -> Value:
    result = Value()
    for value in values:
        result |= value
    return result


class Comparisons:
    """Keeps in *words* which values are compared with each other."""

    def __init__(self, words: Words) -> None:
        self._words = words

    def finish(self, value: Value) -> None:
        """Attribute the constants of *value*, which nothing else is compared with."""
        if any(constant.kind != "boolean" for constant in value.constants):
            self.compare(value)
        else:
            self._note_claims(value)

    def compare(self, *values: Value) -> None:
        """Note that *values* are compared with each other."""
        for left, right in itertools.combinations(values, 2):
            pairs = ((one, other) for one in left.references for other in right.references if one != other)
            self._words.joins.update(dict.fromkeys(pairs))
        both = union(values)
        if any(isinstance(term, Claim | Setting | Subject) for term in both.terms):
            self._words.callers |= set(both.references)
        if any(constant.kind != "boolean" for constant in both.constants):
            self._words.named |= set(both.references)
        self._note_claims(both)
        plain = [term for term in both.terms if term != Claim(())]
        found = list(both.constants)
        if Claim(()) in both.terms:
            # What is compared with all claims at once says something of some of them.
            inside = [(path, each) for constant in found for path, each in constants.of_json(constant)]
            for path, each in inside:
                self._note_claims(Value((claim_at(path),)))
                self._words.compare([claim_at(path)], [each])
            if not plain:
                # The empty text stands for missing claims, as in nullif().
                rest = [each for each in found if each.value and not any(constants.of_json(each))]
                self._words.compare([], rest)
                return
        self._words.compare(plain, found)
        for term in plain:
            if isinstance(term, Column | Setting) and term.path:
                whole = replace(term, path=())
                self._words.compare([whole], [constants.as_json(term.path, each) for each in found])

    def exclude(self, value: Value) -> None:
        """Note that the terms of *value* differ from its constants, as in ``<>``."""
        for term in value.terms:
            self._words.excluded.setdefault(term, set()).update(value.constants)

    def _note_claims(self, value: Value) -> None:
        read = (term.path for term in value.terms if isinstance(term, Claim) and term.path)
        self._words.claims.update(dict.fromkeys(read))


def claim_at(path: tuple[str, ...]) -> Term:
    """Return the term of the claim at *path*; ``sub`` has one of its own."""
    return Subject() if path == ("sub",) else Claim(path)


def matches(pattern: Value) -> Iterator[Constant]:
    """Yield the texts that a regular expression of plain text, with or without its ends, matches."""
    for constant in pattern.constants:
        plain = constant.value.removeprefix("^").removesuffix("$")
        if plain != constant.value:
            yield Constant("text", plain)
