"""The values that policies can tell apart, by the type of a column."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final
from uuid import UUID

from sqla_rls.analyze import vocabulary as terms
from sqla_rls.analyze.vocabulary import Constant, Vocabulary
from sqla_rls.analyze.worlds.objects import Column, Function, Relation
from sqla_rls.analyze.worlds.schema import Schema
from sqla_rls.analyze.worlds.shared import Shared
from sqla_rls.analyze.worlds.similar import Blurring, blurring, is_separator, similar, wholes
from sqla_rls.analyze.worlds.values import around, as_input, moments, natural, patterns

#: The caller, and somebody else, as each type has them.
SUBJECTS: Final[Mapping[str, tuple[str, str]]] = {
    "text": ("alice", "bob"),
    "uuid": ("aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa", "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb"),
    "number": ("1", "2"),
}
_PAST, _FUTURE = "1970-01-01", "2100-01-01"
_BY_TYPE: Final[Mapping[str, tuple[Any, ...]]] = {
    "uuid": SUBJECTS["uuid"],
    "date": (_PAST, _FUTURE, "today"),
    "time without time zone": ("00:00:00", "12:00:00"),
    "time with time zone": ("00:00:00+00", "12:00:00+00"),
    "bytea": ("\\x01", "\\x02"),
    "json": ({},),
    "jsonb": ({},),
    "inet": ("10.0.0.1", "10.0.0.2"),
    "cidr": ("10.0.0.0/24", "10.0.1.0/24"),
    "macaddr": ("08:00:2b:01:02:03", "08:00:2b:01:02:04"),
    "point": ("(1,1)", "(2,2)"),
    "xml": ("<a/>", "<b/>"),
    "tsvector": ("a", "b"),
    "bit": ("0", "1"),
}
#: Functions of several rows.
_AGGREGATES: Final = frozenset(
    ("count", "sum", "array_agg", "string_agg", "jsonb_agg", "json_agg", "row_number")
)
#: Values without an end, and their names in definitions.
_ENDLESS: Final = ("infinity", "-infinity")
_NOT_NUMBERS: Final = ("NaN", "Infinity", "-Infinity")
_NAMES_OF_ENDLESS: Final = frozenset(("nan", "infinity", "-infinity", "inf", "-inf"))
#: Text that many types read.
_GUESSES: Final = ("1", "2", "a", "(,)", "(,,)", "(,,,)", "()", "{}", "(1,1)", "[1,2)", "empty")
_NUMBERS: Final = ("smallint", "integer", "bigint", "numeric", "real", "double precision")
#: Values that stand for the others of a type, where a constant is one value.
_OTHERS: Final = 2
_TYPE_OF_JSON: Final = frozenset(("jsonb_typeof", "json_typeof"))
#: The claim that is the role of the caller, for many providers.
_ROLE: Final = ("role",)
#: The most fields of a composite type.
_MOST_FIELDS: Final = 16
#: The claims for which there are more callers.
_MOST_CLAIMS: Final = 3
#: The most documents of JSON that definitions compare a column with.
_MOST_DOCUMENTS: Final = 4
#: The most subjects that a definition names.
_MOST_NAMED: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who runs the statements: a role with claims, without any, and with settings."""

    role: str
    claims: Mapping[str, Any] | None
    settings: Mapping[str, str]
    #: Another role of the database that the claims name.
    named_role: str | None = None

    @property
    def text(self) -> str:
        """The caller in words."""
        claims = dict(self.claims or {})
        subject = claims.pop("sub", None)
        if self.claims is None:
            who = f"{self.role} without claims"
        else:
            who = f"{self.role} without a subject" if subject is None else f"{subject} as {self.role}"
        who += f" with the claims {json.dumps(claims)}" if claims else ""
        if self.settings:
            who += " with " + ", ".join(f"{name} = {value!r}" for name, value in self.settings.items())
        return who


@dataclass(kw_only=True)
class Pools:
    """The values of each column of the relations that access to one relation reads."""

    vocabulary: Vocabulary
    kinds: tuple[str, ...]
    accepts: Callable[[str, str], bool]
    #: The columns that decide about access.
    columns: Sequence[Column] = ()
    #: The functions that may not tell two texts of a column apart.
    blurring: Blurring = field(default_factory=dict)
    #: The roles of the database.
    roles: Collection[str] = ()
    #: The columns that were asked for, by their ids, with their values.
    _values: dict[int, tuple[Column, tuple[Any, ...]]] = field(
        default_factory=dict[int, tuple[Column, tuple[Any, ...]]]
    )

    @classmethod
    def of(
        cls,
        relation: Relation,
        schema: Schema,
        shared: Shared,
        deciding: Mapping[str, frozenset[str]],
        accepts: Callable[[str, str], bool],
    ) -> Pools:
        columns = [
            schema.relations[name].columns[column]
            for name, names in deciding.items()
            for column in sorted(names)
            if column in schema.relations[name].columns
        ]
        known = {column for name in deciding for column in schema.relations[name].columns}
        functions = [schema.functions[one] for name in deciding for one in sorted(schema.calls(name))]
        called = {one.name for one in functions}
        return cls(
            vocabulary=shared.vocabulary,
            kinds=_kinds(
                columns, shared.vocabulary, is_number=any(map(_returns_number_of_caller, functions))
            ),
            accepts=_once(accepts),
            columns=columns,
            blurring=blurring(
                shared.vocabulary, known, called, (one.name for one in columns if not one.is_deterministic)
            ),
            roles=schema.roles.keys(),
        )

    def values(self, column: Column) -> tuple[Any, ...]:
        """Return the values that the policies can tell apart; NULL, and texts that are similar, come last."""
        if id(column) not in self._values:
            self._values[id(column)] = column, tuple(self._told_apart(column))
        return self._values[id(column)][1]

    def _told_apart(self, column: Column) -> Iterable[Any]:
        found = [value for value in self._candidates(column) if self._is_valid(column, value)]
        found = found or [value for value in self._guesses(column) if self._is_valid(column, value)]
        texts = [one for one in found if isinstance(one, str)]
        if not column.not_null:
            found.append(None)
        near = similar(texts, self.blurring.get(column.name, ()))
        found += [value for value in near if self._is_valid(column, value)]
        return {repr(value): value for value in found}.values() or (None,)

    def may_need_null(self, column: Column) -> bool:
        """Return whether access may need NULL in the column, as that of rows that aren't deleted."""
        return not column.not_null and column.name in self.vocabulary.null_tests

    def filler(self, column: Column) -> Any:
        """Return a value for a column that decides nothing."""
        return self.values(column)[0] if column.needs_value else None

    def distinct(self, column: Column, number: int, *, is_named: bool = True) -> Any:
        """Return value *number* of those that a key column has, of its constants if it *is_named*."""
        if is_named and (named := self.named(column)):  # of a partition, or of a CHECK
            return named[(number - 1) % len(named)]
        if column.category == "N":
            return number
        if column.base == "uuid":
            return str(UUID(int=number))
        if column.category == "S":
            return f"k{number}"
        if column.category == "D":
            return (datetime(2000, 1, 1, tzinfo=UTC) + timedelta(days=number)).date().isoformat()
        values = [value for value in self._candidates(column) if self._is_valid(column, value)]
        return values[number % len(values)] if values else None

    def named(self, column: Column) -> list[Any]:
        """Return the constants that the column is compared with, of its own type."""
        found = (natural(one) for one in self.vocabulary.constants.get(terms.Column(column.name), ()))
        return [value for value in found if self._is_valid(column, value)]

    def actors(self, roles: Iterable[str], *, most: int = 24) -> list[Actor]:
        """Return the callers of each role: without claims, without a subject, with one; then other claims.

        Callers whose claims name another role of the database come last.
        """
        return [actor for role in roles for actor in sorted(self._actors_of(role, most), key=names_another)]

    def _actors_of(self, role: str, most: int) -> list[Actor]:
        bases: list[Mapping[str, Any] | None] = [None, {}]
        bases += [{"sub": SUBJECTS[kind][0]} for kind in self.kinds]
        named = self.vocabulary.constants.get(terms.Subject(), ())
        bases += [{"sub": one.value} for one in named if one.kind == "text"][:_MOST_NAMED]
        variants: list[tuple[Mapping[str, Any] | None, Mapping[str, str]]] = [(base, {}) for base in bases]
        plain, limit = list(variants), most
        for number, path in enumerate(self.vocabulary.claims, 1):
            values, earlier = list(self._claim_values(path)), variants[len(plain) :]
            if path == _ROLE:
                values = [role, *(value for value in values if value != role)]
            limit = min(number, _MOST_CLAIMS) * most
            # Each claim alone, then with the others.
            for others in (plain, earlier):
                for value in values:
                    variants += [
                        (_with_claim(base, path, value), settings)
                        for base, settings in others
                        if base is not None and (others is plain or len(variants) < limit)
                    ]
        for name in self.vocabulary.settings:
            for value in self._setting_values(name):
                variants += [
                    (base, {**settings, name: value})
                    for base, settings in list(variants)
                    if name not in settings and len(variants) < limit + most
                ]
        distinct = {repr(one): one for one in variants}.values()
        return [
            Actor(
                role=role,
                claims=claims,
                settings=settings,
                named_role=other if (other := self._named_role(claims, settings)) != role else None,
            )
            for claims, settings in distinct
        ]

    def _named_role(self, claims: Mapping[str, Any] | None, settings: Mapping[str, str]) -> str | None:
        """Return the role of the database that the claims name."""
        given = [(claims or {}).get("role"), *(settings[name] for name in settings if is_role_setting(name))]
        return next((one for one in given if isinstance(one, str) and one in self.roles), None)

    def _claim_values(self, path: tuple[str, ...]) -> Iterator[Any]:
        term = terms.Claim(path)
        found: Sequence[Constant] = self.vocabulary.constants.get(term, ())
        linked = [one for one in self.vocabulary.linked.get(term, ()) if isinstance(one, terms.Column)]
        yield from filter(None, map(_document, found))
        if any(one.value == "array" for one in found) and self.vocabulary.names & _TYPE_OF_JSON:
            found = [one for one in found if one.value != "array"]
            for column in self.columns:
                if terms.Column(column.name) in linked:
                    valid = (one for one in self._candidates(column) if self._is_valid(column, one))
                    yield from ([value] for value in islice(valid, _OTHERS))
        constants = [natural(one) for one in found]
        names = {one.name for one in linked}
        kinds = {_kind(column) for column in self.columns if column.name in names}
        if kinds == {"uuid"}:
            # Any other text is an error.
            values: list[Any] = [*constants, *SUBJECTS["uuid"], "1"]
        else:
            is_number = bool(linked) or term in self.vocabulary.numbers
            values = constants or (["1", "2", "10"] if is_number else ["alice", True])
            # A function may return the claim, so that nothing links it to a column.
            is_uuid = not found and any(_kind(column) == "uuid" for column in self.columns)
            values += SUBJECTS["uuid"] if is_uuid and not linked else ()
            if linked and term not in self.vocabulary.numbers:
                values += [SUBJECTS[kind][0] for kind in self.kinds]
        yield from values
        yield values[:1]

    def _setting_values(self, name: str) -> Iterator[str]:
        constants = [one.value for one in self.vocabulary.constants.get(terms.Setting(name), ())]
        yield from constants
        if terms.Setting(name) in self.vocabulary.numbers:
            yield from SUBJECTS["number"]
        else:
            yield from ("1", *(SUBJECTS[kind][0] for kind in self.kinds))

    def _candidates(self, column: Column) -> list[Any]:
        """Return the constants that the column is compared with, values near them, and others of the type."""
        term = terms.Column(column.name)
        own = self.vocabulary.constants.get(term, ())
        constants = [*own, *self.vocabulary.loose]
        if column.kind == "e":
            named = [one.value for one in constants if one.value in column.labels]
            others = [label for label in column.labels if label not in named]
            return [*named, *others[: 1 if named else _OTHERS]]
        if column.category == "A" and column.element is not None:
            return [[], *([value] for value in self._elements(column, constants))]
        others = self._others(column, column.base, column.category, term)
        if column.category == "B":
            return [True, False]
        if column.category == "N":
            numbers = [n for one in constants if one.kind == "number" for n in around(one.value)]
            return list(dict.fromkeys([*numbers, *others, *self._endless(constants, _NOT_NUMBERS)]))
        if column.category == "D":
            return [*moments(column.base, constants), *others, *self._endless(constants, _ENDLESS)]
        if column.base in ("json", "jsonb"):
            texts = [one.value for one in constants if one.kind == "text"][:3]
            documents = [found for one in own if isinstance(found := _document(one), dict)]
            pairs = ({key: value} for key in texts for value in (*texts, True) if key != value)
            return [*[{}, *pairs][:6], *documents[:_MOST_DOCUMENTS]]
        if column.kind == "c":
            texts = [one.value for one in constants if one.kind in ("text", "number")]
            return [*self._records(column, [*texts, "1"])]
        texts = [each for one in own if one.kind == "text" for each in patterns(one.value)]
        loose = [each for one in self.vocabulary.loose if one.kind == "text" for each in patterns(one.value)]
        if self._linked(term, terms.Subject):
            joined = [f"{text}{one}" for text in texts[:_OTHERS] if text for one in others[:1]]
            found = [*others, *self._wholes(column, others), *texts, *loose, *joined]
        else:
            found = [*texts, *loose, *(others[:1] if texts else others)]
            found = [*self._wholes(column, found), *found]
        excluded = {one.value for one in self.vocabulary.excluded.get(term, ())}
        is_cut = column.name in self.blurring
        # The first value is that of rows to which policies give access.
        return sorted(dict.fromkeys(found), key=lambda one: one in excluded or (is_cut and is_separator(one)))

    def _endless(self, constants: Iterable[Constant], values: Sequence[str]) -> list[str]:
        """Return those of *values* that are no numbers or moments, if a definition may tell them apart."""
        named = {one.value.lower() for one in constants}
        return list(values) if named & _NAMES_OF_ENDLESS or "isfinite" in self.vocabulary.names else []

    def _wholes(self, column: Column, texts: Sequence[str]) -> Iterator[str]:
        """Yield texts of which a function compares a part, which is one of *texts*."""
        own = self.vocabulary.constants.get(terms.Column(column.name), ())
        return wholes(texts, own, self.blurring.get(column.name, ()))

    def _records(self, column: Column, texts: Sequence[str]) -> Iterator[str]:
        """Yield the values of a composite type that have one of *texts* in one field."""
        width = next((n for n in range(1, _MOST_FIELDS) if self._is_valid(column, f"({',' * (n - 1)})")), 0)
        for text in texts:
            for place in range(width):
                fields = [json.dumps(text) if number == place else "" for number in range(width)]
                yield f"({','.join(fields)})"

    def _guesses(self, column: Column) -> Iterator[str]:
        """Yield texts that a type may read: many types need a length, or a form of their own."""
        yield from _GUESSES
        length = column.type.partition("(")[2].partition(")")[0]
        if length.isdecimal():
            yield from ("0" * int(length), "1" * int(length))

    def _linked(self, term: terms.Term, *kinds: type) -> bool:
        return any(isinstance(one, kinds) for one in self.vocabulary.linked.get(term, ()))

    @property
    def counts_rows(self) -> bool:
        """Whether a definition may ask how many rows there are."""
        return bool(self.vocabulary.names & _AGGREGATES)

    def _others(self, column: Column, base: str, category: str, term: terms.Term) -> list[Any]:
        if category == "S":
            linked = self.vocabulary.linked.get(term, frozenset())
            if terms.Subject() in linked:
                return [subject for kind in self.kinds for subject in SUBJECTS[kind]]
            return list(SUBJECTS["text"])
        if category == "N":
            # As texts, 10 comes before 2.
            return [1, 2, 10] if self._linked(term, terms.Claim, terms.Setting) else [1, 2]
        if base.startswith("timestamp"):
            # The row of a transaction that reads "now" is as old as its now().
            return [f"{_PAST} 00:00:00+00", f"{_FUTURE} 00:00:00+00", "now"]
        if category == "T":
            return ["1 day", "2 days"]
        return list(_BY_TYPE.get(base.partition("(")[0], _GUESSES))

    def _elements(self, column: Column, constants: Iterable[Constant]) -> list[Any]:
        assert column.element is not None
        kind, category = column.element["kind"], column.element["category"]
        if kind == "e":
            return list(column.labels[:_OTHERS])
        named = [natural(one) for one in constants if (one.kind == "number") == (category == "N")]
        others = self._others(column, column.element["type"], category, terms.Column(column.name))
        # A document can't be hashed.
        return list({repr(one): one for one in [*named[:3], *others]}.values())

    def _is_valid(self, column: Column, value: Any) -> bool:
        return self.accepts(column.type, as_input(value))


def names_another(actor: Actor) -> bool:
    """Return whether the claims of the caller name another role: few providers permit that."""
    return actor.named_role is not None


def is_role_setting(name: str) -> bool:
    """Return whether the setting is the claim ``role``, as in ``request.jwt.claim.role``."""
    return name.endswith(".role")


def asks_for_role_claim(vocabulary: Vocabulary) -> bool:
    """Return whether two roles may differ by the claim ``role`` of their callers."""
    return _ROLE in vocabulary.claims or any(map(is_role_setting, vocabulary.settings))


def _once(accepts: Callable[[str, str], bool]) -> Callable[[str, str], bool]:
    known: dict[tuple[str, str], bool] = {}

    def asked(type_: str, text: str) -> bool:
        if (type_, text) not in known:
            known[type_, text] = accepts(type_, text)
        return known[type_, text]

    return asked


def _kinds(columns: Sequence[Column], vocabulary: Vocabulary, *, is_number: bool) -> tuple[str, ...]:
    """Return the forms that a subject needs: those of the columns that it is compared with.

    Args:
        columns: the columns that decide.
        vocabulary: what decides about access.
        is_number: whether a function makes the subject a number.
    """
    linked = vocabulary.linked.get(terms.Subject(), frozenset())
    compared = [one for one in columns if terms.Column(one.name) in linked]
    if any(
        isinstance(one, terms.Column) and one.name not in {each.name for each in columns} for one in linked
    ):
        compared = list(columns)  # a parameter may be any of them
    found = {_kind(column) for column in (compared or columns)} - {None}
    if not compared:
        found.discard("number")
        found.add("text")
    if "text" in found and _needs_uuid(vocabulary):
        # Another text is no subject there, or an error; a uuid is a text, too.
        found = found - {"text"} | {"uuid"}
    elif "text" in found and (is_number or terms.Subject() in vocabulary.numbers):
        found = found - {"text"} | {"number"}
    return tuple(kind for kind in SUBJECTS if kind in found) or ("text",)


def _needs_uuid(vocabulary: Vocabulary) -> bool:
    """Return whether a text makes the subject a uuid, as ``auth.uid()`` does."""
    return ("auth", "uid") in vocabulary.functions or any(one[-1] == "uuid" for one in vocabulary.types)


def _returns_number_of_caller(function: Function) -> bool:
    """Return whether *function* may return the subject as a number, and not one of a row or another claim."""
    words = function.vocabulary
    return (
        function.returns in _NUMBERS
        and not words.relations
        and not words.claims
        and not words.settings
        and any(one[0] == "auth" or one[-1] == "current_setting" for one in words.functions)
    )


def _kind(column: Column) -> str | None:
    if column.base == "uuid" or (column.element or {}).get("type") == "uuid":
        return "uuid"
    category = column.element["category"] if column.element is not None else column.category
    return {"S": "text", "N": "number"}.get(category)


def _document(constant: Constant) -> Any:
    """Return the list or object of JSON that *constant* is; None if it isn't one."""
    if constant.kind != "other":
        return None
    try:
        found = json.loads(constant.value)
    except ValueError:
        return None
    return found if isinstance(found, list | dict) else None


def _with_claim(base: Mapping[str, Any] | None, path: tuple[str, ...], value: Any) -> Mapping[str, Any]:
    found = dict(base or {})
    if len(path) == 1:
        found[path[0]] = value
    else:
        inner = found.get(path[0])
        found[path[0]] = _with_claim(inner if isinstance(inner, dict) else {}, path[1:], value)
    return found
