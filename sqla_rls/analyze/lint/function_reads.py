"""Whether a function that asks who calls shows rows of others to callers whom nothing names.

A row of a protected table gets values that occur nowhere else.  Then strangers call the function in small
worlds: callers with subjects that no row has.  The function shows the row if both get one of these values.
It filters by the caller if the owner of a row gets one where strangers don't.

A value by which a policy or a foreign key finds rows changes in all of them.  Then strangers may not get it
without the row, or read it in another.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from sqlalchemy import Connection, RowMapping
from sqlalchemy.exc import DBAPIError

from sqla_rls.analyze import vocabulary as terms
from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import LEVELS, Evidence, Level
from sqla_rls.analyze.lint.marked_worlds import MarkedWorlds, has_others, without_row
from sqla_rls.analyze.lint.reach import Reaches
from sqla_rls.analyze.lint.trigger_marks import (
    MARKS,
    SHOWN,
    Marked,
    is_more_than_number,
    literal_text,
    marked_rows,
    value_of,
)
from sqla_rls.analyze.why.target import script
from sqla_rls.analyze.worlds.acting import CALLER, reach_of
from sqla_rls.analyze.worlds.counterexamples import row_in_words
from sqla_rls.analyze.worlds.objects import Edge, Profile
from sqla_rls.analyze.worlds.pools import SUBJECTS, Actor
from sqla_rls.analyze.worlds.scratch import STATEMENT_TIMEOUT, Outcome, ScratchDatabase, Trial
from sqla_rls.analyze.worlds.statements import Statement, quoted
from sqla_rls.analyze.worlds.universe import Universe
from sqla_rls.analyze.worlds.world import World
from sqla_rls.catalog.query import undone
from sqla_rls.exc import AnalysisError

#: The most marked rows, and the most calls of each.
_MOST_MARKED: Final = 48
_MOST_CALLS: Final = 12
#: The subjects of two callers whom no row names.
_STRANGERS: Final[Mapping[str, tuple[str, str]]] = {
    "text": ("dave", "erin"),
    "uuid": ("dddddddd-dddd-4ddd-8ddd-dddddddddddd", "eeeeeeee-eeee-4eee-8eee-eeeeeeeeeeee"),
    "number": ("84", "85"),
}
_OWN: Final = "own "
#: SQLSTATEs, by their first letters: the call can't be tried in this database.
_UNABLE: Final = ("42", "0A", "57", "XX")
_DENIED: Final = "42501"
_GENERIC: Final[Mapping[str, Sequence[str]]] = {
    "N": ("1000", "0"),
    "S": ("%", ""),
    "B": ("true", "false"),
    "D": ("1970-01-01", "2100-01-01"),
    "T": ("100 years",),
    "A": ("{}",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionReads:
    """Rows of others that a function shows to strangers."""

    table: str
    role: str
    level: Level
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class _Argument:
    """The SQL of an argument, and the value of the hidden row that the caller has to know for it."""

    sql: str
    known: str = ""


@dataclass(frozen=True, slots=True)
class _Call(Statement):
    """A call whose outcome says whether the caller gets a mark."""

    #: The SQL with which the caller reads the marked row by its policies.
    own: str | None = None
    known: frozenset[str] = field(default=frozenset(), compare=False)

    @property
    def tried(self) -> str:
        own = f"EXISTS ({self.own})" if self.own is not None else "false"
        return f"""nDO $sqla_rls$
          DECLARE
            sqla_rls_own text := '';
            sqla_rls_row text;
          BEGIN
            IF {own} THEN sqla_rls_own := '{_OWN}'; END IF;
            BEGIN
              FOR sqla_rls_row IN {self.text} LOOP
                IF sqla_rls_row ~ '{MARKS}' THEN
                  RAISE EXCEPTION USING ERRCODE = '{SHOWN}', MESSAGE = 'returns ' || sqla_rls_row;
                END IF;
              END LOOP;
            EXCEPTION WHEN OTHERS THEN
              IF SQLERRM ~ '{MARKS}' THEN
                RAISE EXCEPTION USING ERRCODE = '{SHOWN}', MESSAGE = sqla_rls_own || SQLERRM;
              END IF;
              RAISE;
            END;
            IF sqla_rls_own <> '' THEN
              RAISE EXCEPTION USING ERRCODE = '{SHOWN}', MESSAGE = sqla_rls_own;
            END IF;
          END $sqla_rls$"""


@dataclass(frozen=True, slots=True)
class _Got:
    """What a caller gets by a call."""

    #: Whether its policies show it the marked row.
    is_own: bool
    #: The result with a mark; empty if there is none.
    shown: str

    @classmethod
    def of(cls, outcome: Outcome) -> _Got:
        code, _, text = (outcome.error or "").partition(": ")
        if code != SHOWN:
            return cls(is_own=False, shown="")
        return cls(text.startswith(_OWN), text.removeprefix(_OWN))


def shown_by_function(database: Database, row: RowMapping, roles: Sequence[str]) -> FunctionReads | None:
    """Return what a function shows to strangers of *roles*; note what can't be decided.

    Args:
        database: the database.
        row: the function, of ``definer_functions``.
        roles: the roles of callers that may execute it.
    """
    signature = row["signature"]
    arguments = row["arguments"] or []
    if row["is_procedure"]:
        return None
    if any(category == "P" for _, category, _ in arguments):
        reason = "no value can be made for its arguments, which may be of any type"
        database.note_unknown(signature, reason, kind="function", role=roles[0])
        return None
    tries = _Tries(database, row, arguments)
    found: list[FunctionReads] = []
    try:
        with database.scratch() as connection:
            for table in tries.tables:
                database.require_complete(table)
                for role in _distinct(database, table, roles):
                    with undone(connection):
                        found += tries.of(connection, table, role)
    except (AnalysisError, DBAPIError) as error:
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            raise
        tries.refused = str(getattr(error, "orig", None) or error).partition("\n")[0]
    if not found and not tries.has_run:
        reason = tries.refused or "no value of its rows can be told from those of other rows"
        database.note_unknown(signature, reason, kind="function", role=roles[0])
    return min(found, key=lambda one: LEVELS.index(one.level), default=None)


def _distinct(database: Database, table: str, roles: Sequence[str]) -> list[str]:
    """Return one of the roles with the same privileges and policies on *table*."""
    found: dict[tuple[bool, Profile], str] = {}
    for role in roles:
        found.setdefault(
            (database.is_anonymous(role), replace(database.profiles[table, role], role="")), role
        )
    return list(found.values())


@dataclass(eq=False)
class _Tries:
    """Tries the calls of one function."""

    database: Database
    row: RowMapping
    arguments: Sequence[tuple[str, str, str]]
    #: Why a call couldn't be tried.
    refused: str | None = None
    has_run: bool = False

    @property
    def signature(self) -> str:
        return str(self.row["signature"])

    @property
    def tables(self) -> list[str]:
        """The protected tables that the function reads past the policies of its callers."""
        return sorted(
            {
                name
                for name, role in reach_of(self.database.schema, self.signature).relations
                if role != CALLER
                and (table := self.database.schema.relations[name]).has_rows
                and table.row_security
                and self.database.escapes(role, table)
            }
        )

    def of(self, connection: Connection, table: str, role: str) -> Iterator[FunctionReads]:
        """Yield the rows of *table* that strangers of *role* get."""
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT}")
        connection.exec_driver_sql(script("try_statements"), execution_options={"no_parameters": True})
        schema = self.database.schema
        # The body decides about the rows of the table, as that of a trigger does.
        calls = Edge("trigger", None, None, self.signature)
        edges = {**schema.edges, table: (*schema.edges.get(table, ()), calls)}
        asked = replace(schema, edges=edges)
        universe = Reaches.of(self.database).worlds.universe(asked.relations[table], connection, asked)
        worlds = MarkedWorlds(universe=universe, signature=self.signature)
        scratch = ScratchDatabase(connection, schema)
        for marked in (worlds.with_free_marks(), worlds.with_marks_everywhere()):
            yield from self._leaks(scratch, universe, role, [*itertools.islice(marked, _MOST_MARKED)])

    def _leaks(
        self, scratch: ScratchDatabase, universe: Universe, role: str, worlds: Sequence[Marked]
    ) -> Iterator[FunctionReads]:
        """Yield the calls by which strangers get marks in *worlds*."""
        strangers, owners = self._actors(universe, role, worlds)
        actors = [*strangers, *owners]
        trials = [Trial(one.world, self._calls(universe, one, role)) for one in worlds]
        found = scratch.run(trials, actors, fires_triggers=False)
        public = self._public(scratch, role, strangers, worlds, trials)
        leaks: dict[int, tuple[Marked, _Call, str]] = {}
        filtering = set[int]()
        for number, (marked, trial, tried) in enumerate(zip(worlds, trials, found, strict=True)):
            outcomes = [Outcome.of(one) for one in tried.results]
            self._note(outcomes, tried.rejected)
            for place, (call, got) in enumerate(_by_call(trial, outcomes)):
                by_strangers, by_owners = got[: len(strangers)], got[len(strangers) :]
                if not all(one.shown for one in by_strangers):
                    if any(one.shown for one in by_owners):
                        filtering.add(place)
                elif (
                    not any(one.is_own for one in by_strangers)
                    and (number, place) not in public
                    and self._is_owned(universe, marked, by_owners, role)
                    and (is_more_than_number(by_strangers[0].shown) or has_others(marked))
                ):
                    leaks.setdefault(place, (marked, call, by_strangers[0].shown))
        for place, (marked, call, shown) in leaks.items():
            if place not in filtering:
                yield self._found(universe, marked, strangers[0], call, shown)

    def _public(
        self,
        scratch: ScratchDatabase,
        role: str,
        strangers: Sequence[Actor],
        worlds: Sequence[Marked],
        trials: Sequence[Trial],
    ) -> set[tuple[int, int]]:
        """Return the places of worlds and calls by which strangers get a mark that they may know.

        They get it without the marked row, too, or read it in the row to which a foreign key refers.
        """
        asked: dict[int, Trial] = {}
        for number, (marked, trial) in enumerate(zip(worlds, trials, strict=True)):
            if (world := without_row(marked)) is not None:
                own = self._readable(role, world)
                asked[number] = Trial(world, [_Call("SELECT", one.text, own=own) for one in trial.statements])
        found = scratch.run([*asked.values()], strangers, fires_triggers=False)
        return {
            (number, place)
            for (number, trial), tried in zip(asked.items(), found, strict=True)
            for place, (_, got) in enumerate(_by_call(trial, [Outcome.of(one) for one in tried.results]))
            if any(one.is_own or one.shown for one in got)
        }

    def _readable(self, role: str, world: World) -> str | None:
        """Return the SQL with which the caller reads each row of *world* with a mark; None if it can't."""
        reads: list[str] = []
        for name in dict.fromkeys(row.relation for row in world.rows):
            profile = self.database.profiles[name, role]
            if profile.usage and profile.selects:
                reads.append(f"SELECT 1 FROM {marked_rows(name, profile.selects)}")  # noqa: S608
        return " UNION ALL ".join(reads) or None

    def _note(self, outcomes: Iterable[Outcome], rejected: str | None) -> None:
        for error in [rejected] if rejected else [one.error for one in outcomes]:
            if error is not None and error.startswith(_UNABLE) and not error.startswith(_DENIED):
                self.refused = self.refused or f"no call of the worlds runs: {error}"
            elif rejected is not None:
                self.refused = self.refused or f"no row of the worlds can be inserted: {error}"
            else:
                self.has_run = True

    def _actors(
        self, universe: Universe, role: str, worlds: Iterable[Marked]
    ) -> tuple[list[Actor], list[Actor]]:
        """Return callers whom no row names, and those whom rows name."""
        words, kind = universe.pools.vocabulary, universe.pools.kinds[0]

        def with_subject(subject: str) -> Actor:
            settings = {
                name: subject if subject.isdecimal() or terms.Setting(name) not in words.numbers else "84"
                for name in words.settings
            }
            return Actor(role=role, claims={"sub": subject}, settings=settings)

        names = _owners(universe)
        marks = (one.row.values[name] for one in worlds for name in one.columns if name in names)
        owners = [with_subject(one) for one in dict.fromkeys((*SUBJECTS[kind], *map(str, marks)))]
        if self.database.is_anonymous(role):
            return [Actor(role=role, claims=None, settings={})], owners
        return [with_subject(one) for one in _STRANGERS[kind]], owners

    def _calls(self, universe: Universe, marked: Marked, role: str) -> list[_Call]:
        """Return calls, those without a value of the marked row first."""
        return [*itertools.islice(self._all_calls(universe, marked, role), _MOST_CALLS)]

    def _all_calls(self, universe: Universe, marked: Marked, role: str) -> Iterator[_Call]:
        own = self._own(universe, marked, role)
        least = len(self.arguments) - int(self.row["defaults"])
        for number in dict.fromkeys((least, len(self.arguments))):
            choices = [[*self._arguments(universe, marked, *one)] for one in self.arguments[:number]]
            combinations = sorted(
                itertools.islice(itertools.product(*choices), 4 * _MOST_CALLS),
                key=lambda some: sum(bool(one.known) for one in some),
            )
            for some in combinations:
                given = [one.sql for one in some]
                if self.row["is_variadic"] and number == len(self.arguments):
                    given[-1] = f"VARIADIC {given[-1]}"
                text = f"SELECT ({self.row['name']}({', '.join(given)}))::pg_catalog.text"
                known = frozenset(one.known for one in some if one.known)
                yield _Call("SELECT", text, own=own, known=known)

    def _arguments(
        self, universe: Universe, marked: Marked, type_: str, category: str, base: str
    ) -> Iterator[_Argument]:
        relation = universe.relation
        owners = _owners(universe)
        keys = {name for key in relation.keys for name in key}
        # Another column of that value may be a secret of the row, such as the token of a link.
        secret = {repr(one) for name, one in marked.row.values.items() if name not in owners | keys}
        for name, value in marked.row.values.items():
            column = relation.columns[name]
            is_of_type = column.base == base or column.category == category
            if name in marked.columns or value is None or not is_of_type or repr(value) in secret:
                continue
            sql = f"{literal_text(str(value))}::{type_}"
            if name in owners and all(marked.row.values.get(key) != value or key in owners for key in keys):
                yield _Argument(sql, "owner")
            elif name in keys:
                yield _Argument(sql, "number" if category == "N" else "key")
        for value in _GENERIC.get(category, ()):
            yield _Argument(f"{literal_text(value)}::{type_}")
        yield _Argument(f"NULL::{type_}")

    def _own(self, universe: Universe, marked: Marked, role: str) -> str | None:
        """Return the SQL with which the caller reads the marked row; None if it can't."""
        relation = universe.relation
        profile = self.database.profiles[relation.name, role]
        if not profile.usage or not profile.selects:
            return None
        key = relation.keys[0] if relation.keys else ()
        same = " AND ".join(f"{quoted(each)} = {value_of(marked, relation, each)}" for each in key)
        is_known = bool(key) and set(key) <= {*profile.selects}
        if is_known:
            return f"SELECT FROM {relation.name} WHERE {same}"
        return f"SELECT FROM {marked_rows(relation.name, profile.selects)}"

    def _is_owned(self, universe: Universe, marked: Marked, got: Sequence[_Got], role: str) -> bool:
        """Return whether the marked row is somebody's: the policies show it, or a column says so."""
        profile = self.database.profiles[universe.relation.name, role]
        if profile.usage and profile.selects and not self.database.is_anonymous(role):
            return any(one.is_own for one in got)
        return any(marked.row.values.get(name) is not None for name in _owners(universe))

    def _found(
        self, universe: Universe, marked: Marked, actor: Actor, call: _Call, shown: str
    ) -> FunctionReads:
        table = universe.relation.name
        rows = ", ".join(row_in_words(universe, row) for row in marked.world.all_rows)
        return FunctionReads(
            table=table,
            role=actor.role,
            level=self._level(table, actor.role, call),
            evidence=Evidence(
                kind="counterexample",
                text=f"{actor.text} runs {call.text}, and it {shown}, with {rows}",
                data={
                    "role": actor.role,
                    "claims": actor.claims,
                    "settings": dict(actor.settings),
                    "rows": marked.world.values_by_relation,
                    "statement": call.text,
                    "result": shown,
                },
            ),
        )

    def _level(self, table: str, role: str, call: _Call) -> Level:
        if "key" in call.known:
            # A key that isn't a number can't be guessed: the caller has it from somebody.
            return "info"
        row = self.row
        shows_rows = row["returns_set"] or row["kind"] == "c" or row["returns"] in ("record", "json", "jsonb")
        may_read = role in self.database.roles_with_privileges(table, "SELECT")
        return "error" if shows_rows and may_read and "owner" not in call.known else "warning"


def _owners(universe: Universe) -> frozenset[str]:
    """Return the columns of the table that definitions compare with the caller."""
    name = universe.relation.name
    return frozenset(column for relation, column in universe.callers if relation == name)


def _by_call(trial: Trial, outcomes: Sequence[Outcome]) -> Iterator[tuple[_Call, list[_Got]]]:
    """Yield each call of *trial* with what each caller gets; nothing if the world was rejected."""
    width = len(trial.statements)
    for place, call in enumerate(trial.statements if outcomes else ()):
        assert isinstance(call, _Call)
        yield call, [_Got.of(one) for one in outcomes[place::width]]
