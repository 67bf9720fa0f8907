"""The rows that callers of one role reach in one table: the answers for each caller and each small world."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from sqla_rls.analyze.in_place.conditions import Part
from sqla_rls.analyze.in_place.evaluate import Answer
from sqla_rls.analyze.lint.finding import Evidence
from sqla_rls.analyze.worlds.counterexamples import row_in_words
from sqla_rls.analyze.worlds.objects import Relation
from sqla_rls.analyze.worlds.pools import Actor
from sqla_rls.analyze.worlds.universe import Universe
from sqla_rls.analyze.worlds.world import Row, World

_Value = TypeVar("_Value")
#: The most rows of other tables in a sentence.
_MOST_WORDS: Final = 5
#: The key of the cases among the answers that tables of a shape share.
_ALL_CASES: Final = object()
_BY_SETTINGS: Final = object()
_REFUSED: Final = object()


@dataclass(frozen=True, slots=True)
class Case:
    """A caller, and a row in question with the rows of other tables."""

    actor: Actor
    world: World
    #: The place of both in ``Reach.answers``.
    place: tuple[int, int]

    @property
    def row(self) -> Row:
        assert self.world.row is not None
        return self.world.row


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """The rows that callers of one role reach in one table, before privileges.

    Attributes:
        relation: the table.
        role: the role.
        universe: the rows and values that the worlds are made of.
        actors: the callers.
        worlds: the worlds; each has its row in question.
        answers: for each part of row security, and for ``(policy, "using")`` and ``(policy, "check")`` of
            each policy of the role: whether it is true, for each caller and each world.
        unmet_checks: the CHECK constraints that no row of the worlds satisfies.
    """

    relation: Relation
    role: str
    universe: Universe
    actors: Sequence[Actor]
    worlds: Sequence[World]
    answers: Mapping[Part | tuple[str, str], Sequence[Sequence[Answer]]]
    unmet_checks: tuple[str, ...] = ()
    #: The reach of the table that was evaluated, which has the same shape; the own policies by those of it.
    first: Reach | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    _shared: dict[Any, Any] = field(default_factory=dict)

    def once(self, key: Any, find: Callable[[Reach], _Value]) -> _Value:
        """Return what *find* returns for this reach; tables of the same shape share it.

        A Case in it fits each of these tables; ``policy()`` translates the name of a policy.
        """
        if key not in self._shared:
            self._shared[key] = find(self.first or self)
        return self._shared[key]  # type: ignore[no-any-return]

    def policy(self, name: str | None) -> str | None:
        """Return the own name of a policy that ``once()`` returns."""
        return None if name is None else self.names.get(name, name)

    def original(self, name: str) -> str:
        """Return the name of an own policy in the reach that ``once()`` asks."""
        return next((first for first, own in self.names.items() if own == name), name)

    def cases(self, actors: Iterable[Actor] | None = None) -> Iterator[Case]:
        """Yield each caller with each world, the smallest worlds first."""
        if _ALL_CASES not in self._shared:
            self._shared[_ALL_CASES] = [
                Case(actor, world, (place, number))
                for number, world in sorted(enumerate(self.worlds), key=lambda one: len(one[1].all_rows))
                for place, actor in enumerate(self.actors)
            ]
        if actors is None:
            yield from self._shared[_ALL_CASES]
            return
        chosen = list(actors)
        places = {place for place, actor in enumerate(self.actors) if actor in chosen}
        yield from (case for case in self._shared[_ALL_CASES] if case.place[0] in places)

    def is_true(self, part: Part | tuple[str, str], case: Case) -> bool:
        """Return whether *part* is true of the row in question."""
        actor, world = case.place
        return self.answers[part][actor][world] is True

    @property
    def identified(self) -> Sequence[Actor]:
        """The callers with a subject, or with a setting; without one, those with claims.

        If the policies ask for settings alone, these are the callers with a setting that isn't empty.
        Callers of whom a policy makes an error in each world are left out: an application has none of them.
        """
        bound = [one for one in self.actors if any(one.settings.values())]
        is_by_settings: bool = bool(bound) and self.once(_BY_SETTINGS, Reach.depends_on_settings_alone)
        if is_by_settings:
            found = bound
        else:
            found = [one for one in self.actors if "sub" in (one.claims or {}) or one.settings]
            found = found or [one for one in self.actors if one.claims]
        refused: frozenset[int] = self.once(_REFUSED, Reach._refused)
        places = {id(one): place for place, one in enumerate(self.actors)}
        return [one for one in found if places[id(one)] not in refused] or found

    def _refused(self) -> frozenset[int]:
        """Return the places of the callers for whom a part, or a policy, raises an error in each world."""
        return frozenset(
            place
            for answers in self.answers.values()
            for place, of_caller in enumerate(answers)
            if of_caller and all(answer is None for answer in of_caller)
        )

    def named_by_claim(self, role: str) -> Sequence[Actor]:
        """The identified callers whose claim ``role`` names *role*; none unless the policies tell them apart.

        Supabase and PostgREST take the role from this claim, so each of their callers is one of these.
        """
        return [one for one in self.identified if (one.claims or {}).get("role") == role]

    def depends_on_settings_alone(self) -> bool:
        """Return whether callers with the same settings get the same answers, whatever their claims."""
        by_settings: dict[tuple[tuple[str, str], ...], int] = {}
        for place, actor in enumerate(self.actors):
            first = by_settings.setdefault(tuple(sorted(actor.settings.items())), place)
            if any(answers[first] != answers[place] for answers in self.answers.values()):
                return False
        return True

    @property
    def unidentified(self) -> Sequence[Actor]:
        """The callers without any claim and setting."""
        return [one for one in self.actors if not one.claims and not one.settings]

    def context_free(self) -> frozenset[int]:
        """Return the places of the worlds in which no other row decides."""
        name = self.universe.relation.name
        read = self.universe.schema.reads(name)
        return frozenset(
            place
            for place, world in enumerate(self.worlds)
            if not any(row.relation in read for row in world.rows)
        )

    def same_row(self, case: Case, other: Case) -> bool:
        """Return whether two cases differ in the row in question only."""
        return case.actor == other.actor and case.world.rows == other.world.rows

    def evidence(self, case: Case, sentence: str) -> Evidence:
        """Return a counterexample; in *sentence*, ``{who}`` is the caller and ``{row}`` the row."""
        rows: dict[str, list[Mapping[str, Any]]] = {}
        for row in case.world.all_rows:
            rows.setdefault(self._name(row), []).append(row.values)
        own = {str(value) for value in (case.actor.claims or {}).values()}
        # Those of the caller first, and not all: the data has them.
        ordered = sorted(case.world.rows, key=lambda row: own.isdisjoint(map(str, row.values.values())))
        others = [self.words(row) for row in ordered[:_MOST_WORDS]]
        if len(ordered) > _MOST_WORDS:
            others.append(f"{len(ordered) - _MOST_WORDS} more rows")
        who = replace(case.actor, role=self.role).text
        text = sentence.replace("{who}", who).replace("{row}", self.words(case.row))
        unmet = "".join(f"; no generated row satisfies CHECK ({one})" for one in self.unmet_checks[:1])
        return Evidence(
            kind="counterexample",
            text=text + (f", with {', '.join(others)}" if others else "") + unmet,
            data={
                "role": self.role,
                "claims": case.actor.claims,
                "settings": dict(case.actor.settings),
                "rows": rows,
            },
        )

    def words(self, row: Row) -> str:
        """Return *row* in words."""
        return self._name(row) + row_in_words(self.universe, row).removeprefix(row.relation)

    def _name(self, row: Row) -> str:
        # The worlds may be those of another table of the same shape.
        return self.relation.name if row.relation == self.universe.relation.name else row.relation
