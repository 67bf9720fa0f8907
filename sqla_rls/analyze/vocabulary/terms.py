"""The terms and constants that predicates compare, as values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

#: The name of COLLATE among those of functions.
COLLATE: Final = "COLLATE"

Kind: TypeAlias = Literal["text", "number", "boolean", "interval", "timestamp", "other"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column by its last name, or the part of its JSON at *path*."""

    name: str
    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim of the caller; the empty path is all claims."""

    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """A custom setting, or the part of its JSON at *path*."""

    name: str
    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Subject:
    """The caller's ``sub``."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A column in a text, and the relations that may have it, in parts: that of the inmost FROM first.

    Without a FROM around it, it is of the relation that the text belongs to.  A relation without parts is a
    subquery or a function: the column is of no table.
    """

    name: str
    relations: tuple[tuple[str, ...], ...] = ()


Term: TypeAlias = Column | Claim | Setting | Subject


@dataclass(frozen=True, slots=True)
class Constant:
    """A constant, spelled so that Postgres can cast it from text."""

    kind: Kind
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The terms, constants and names that SQL mentions.

    Anything that its reader can't attribute is in *loose*, and anything that it can't read makes
    *is_complete* False.
    """

    #: The constants that a term is compared with, also through terms that it is compared with.
    constants: Mapping[Term, tuple[Constant, ...]] = field(default_factory=dict)
    #: Those of them from which a term differs, as in ``<>``.
    excluded: Mapping[Term, frozenset[Constant]] = field(default_factory=dict)
    #: The constants of no term.
    loose: tuple[Constant, ...] = ()
    #: The paths of the claims that are read, without ``sub``.
    claims: tuple[tuple[str, ...], ...] = ()
    #: The custom settings that are read, without those of the claims.
    settings: tuple[str, ...] = ()
    #: The other settings that are read, without that of the role: those of Postgres, and those of no name.
    other_settings: frozenset[str] = frozenset()
    #: The functions that are keywords, such as current_date.
    keywords: frozenset[str] = frozenset()
    #: The terms that a term is compared with, also through others.
    linked: Mapping[Term, frozenset[Term]] = field(default_factory=dict)
    #: The columns that are compared with each other, in pairs, also those of subqueries.  Only the vocabulary
    #: of one text has them.
    joins: tuple[tuple[Reference, Reference], ...] = ()
    #: The columns that are compared with the caller or a setting.  Only the vocabulary of one text has them.
    callers: frozenset[Reference] = frozenset()
    #: The columns that are compared with constants.  Only the vocabulary of one text has them.
    named: frozenset[Reference] = frozenset()
    #: Every column, relation and function, as Postgres folds identifiers.
    names: frozenset[str] = frozenset()
    #: The columns that IS NULL tests, by their last names.
    null_tests: frozenset[str] = frozenset()
    #: The relations that are read or written, in parts: ("members",) or ("public", "members").
    relations: frozenset[tuple[str, ...]] = frozenset()
    #: The functions that are called, in parts.
    functions: frozenset[tuple[str, ...]] = frozenset()
    #: The operators that the text has, in parts.
    operators: frozenset[tuple[str, ...]] = frozenset()
    #: The types of casts, variables and columns, in parts; for an array, that of its elements.
    types: frozenset[tuple[str, ...]] = frozenset()
    #: The terms that a cast makes a number.
    numbers: frozenset[Term] = frozenset()
    #: The terms in the arguments of each function, by its last name; those of COLLATE, too.
    arguments: Mapping[str, frozenset[Term]] = field(default_factory=dict)
    #: The commands that write: INSERT, UPDATE and DELETE, also in WITH; of MERGE, all three.
    writes: frozenset[str] = frozenset()
    #: False: a part could not be parsed, or its SQL is made at run time, or the name of a setting.
    is_complete: bool = True
    #: False: the parser doesn't know the syntax of a part, so that names may be missing.
    is_parsed: bool = True
    #: False: it runs SQL that is made at run time, or of another language, so that it may run any command.
    is_readable: bool = True

    def merged(self, *others: Vocabulary) -> Vocabulary:
        """Return the vocabulary of this one and *others* together."""
        words = Words()
        for vocabulary in (self, *others):
            words.add(vocabulary)
        return words.vocabulary()


class Words:
    """A vocabulary in the making."""

    def __init__(self) -> None:
        self._parents: dict[Term, Term] = {}
        self._constants: dict[Term, dict[Constant, None]] = {}
        self.excluded: dict[Term, set[Constant]] = {}
        self.loose: dict[Constant, None] = {}
        self.claims: dict[tuple[str, ...], None] = {}
        self.settings: dict[str, None] = {}
        self.other_settings: set[str] = set()
        self.keywords: set[str] = set()
        self.joins: dict[tuple[Reference, Reference], None] = {}
        self.callers: set[Reference] = set()
        self.named: set[Reference] = set()
        self.names: set[str] = set()
        self.null_tests: set[str] = set()
        self.relations: set[tuple[str, ...]] = set()
        self.functions: set[tuple[str, ...]] = set()
        self.operators: set[tuple[str, ...]] = set()
        self.types: set[tuple[str, ...]] = set()
        self.numbers: set[Term] = set()
        self.arguments: dict[str, set[Term]] = {}
        self.writes: set[str] = set()
        self.is_complete = True
        self.is_parsed = True
        self.is_readable = True

    def _root(self, term: Term) -> Term:
        self._parents.setdefault(term, term)
        while (parent := self._parents[term]) != term:
            term = parent
        return term

    def link(self, terms: Iterable[Term]) -> None:
        """Note that *terms* are compared with each other."""
        roots = list(dict.fromkeys(map(self._root, terms)))
        for other in roots[1:]:
            self._parents[other] = roots[0]
            constants = self._constants.setdefault(roots[0], {})
            constants.update(self._constants.pop(other, {}))

    def compare(self, terms: Iterable[Term], constants: Iterable[Constant]) -> None:
        """Note that *terms* are compared with each other, and with *constants*."""
        terms, found = list(terms), dict.fromkeys(constants)
        if not terms:
            self.loose.update(found)
            return
        self.link(terms)
        self._constants.setdefault(self._root(terms[0]), {}).update(found)

    def add(self, vocabulary: Vocabulary) -> None:
        for term, linked in vocabulary.linked.items():
            self.link([term, *sorted(linked, key=repr)])
        for term, constants in vocabulary.constants.items():
            self.compare([term], constants)
        for term, excluded in vocabulary.excluded.items():
            self.excluded.setdefault(term, set()).update(excluded)
        self.loose.update(dict.fromkeys(vocabulary.loose))
        self.claims.update(dict.fromkeys(vocabulary.claims))
        self.settings.update(dict.fromkeys(vocabulary.settings))
        self.other_settings |= vocabulary.other_settings
        self.keywords |= vocabulary.keywords
        self.names |= vocabulary.names
        self.null_tests |= vocabulary.null_tests
        self.relations |= vocabulary.relations
        self.functions |= vocabulary.functions
        self.operators |= vocabulary.operators
        self.types |= vocabulary.types
        self.numbers |= vocabulary.numbers
        for name, terms in vocabulary.arguments.items():
            self.arguments.setdefault(name, set()).update(terms)
        self.writes |= vocabulary.writes
        self.is_complete &= vocabulary.is_complete
        self.is_parsed &= vocabulary.is_parsed
        self.is_readable &= vocabulary.is_readable

    def leave_unparsed(self) -> None:
        """Note that the parser doesn't know the syntax of a part."""
        self.is_complete = self.is_parsed = False

    def leave_unread(self) -> None:
        """Note that SQL is made at run time, or has another language."""
        self.is_complete = self.is_readable = False

    def vocabulary(self) -> Vocabulary:
        classes: dict[Term, list[Term]] = {}
        for term in self._parents:
            classes.setdefault(self._root(term), []).append(term)
        linked = {
            term: frozenset(terms) - {term} for terms in classes.values() if len(terms) > 1 for term in terms
        }
        constants = {
            term: tuple(found)
            for root, terms in classes.items()
            if (found := self._constants.get(root))
            for term in terms
        }
        return Vocabulary(
            constants=MappingProxyType(constants),
            excluded=MappingProxyType({term: frozenset(found) for term, found in self.excluded.items()}),
            loose=tuple(self.loose),
            claims=tuple(self.claims),
            settings=tuple(self.settings),
            other_settings=frozenset(self.other_settings),
            keywords=frozenset(self.keywords),
            linked=MappingProxyType(linked),
            joins=tuple(self.joins),
            callers=frozenset(self.callers),
            named=frozenset(self.named),
            names=frozenset(self.names),
            null_tests=frozenset(self.null_tests),
            relations=frozenset(self.relations),
            functions=frozenset(self.functions),
            operators=frozenset(self.operators),
            types=frozenset(self.types),
            numbers=frozenset(self.numbers),
            arguments=MappingProxyType({name: frozenset(terms) for name, terms in self.arguments.items()}),
            writes=frozenset(self.writes),
            is_complete=self.is_complete,
            is_parsed=self.is_parsed,
            is_readable=self.is_readable,
        )
