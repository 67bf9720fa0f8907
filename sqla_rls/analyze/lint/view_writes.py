"""Whether callers write more rows through a view than with security_invoker: statements, run in small worlds.

Each statement runs as the view is, and once more with security_invoker, by the same caller on the same rows.
There, the caller has all privileges on the tables, and on what their policies use, so that only policies
decide.
"""

# ruff: noqa: S608
# Names come quoted from the catalog; other names and values are quoted by psycopg.

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection

from sqla_rls.analyze.in_place.conditions import Part
from sqla_rls.analyze.in_place.triggers import commands_of_triggers
from sqla_rls.analyze.lint.callers import distinct_callers, first_actors
from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import LEVELS, Evidence, Level
from sqla_rls.analyze.lint.other_policies import PARTS_OF_WRITES, Undecided, other_policies
from sqla_rls.analyze.lint.reach import Reaches
from sqla_rls.analyze.lint.syntax import columns_of_view
from sqla_rls.analyze.lint.view_triggers import Trigger, Triggered, observed, triggers_of
from sqla_rls.analyze.verdict import Budget
from sqla_rls.analyze.why.explanation import WRITES, Command
from sqla_rls.analyze.why.target import script
from sqla_rls.analyze.worlds.acting import CALLER, reach_of
from sqla_rls.analyze.worlds.counterexamples import row_in_words
from sqla_rls.analyze.worlds.generate import generate_worlds
from sqla_rls.analyze.worlds.objects import Column, Profile, Relation
from sqla_rls.analyze.worlds.pools import Actor
from sqla_rls.analyze.worlds.schema import Schema
from sqla_rls.analyze.worlds.scratch import STATEMENT_TIMEOUT, Outcome, ScratchDatabase, Trial
from sqla_rls.analyze.worlds.statements import Statement, literal, quoted, quoted_list
from sqla_rls.analyze.worlds.universe import Universe
from sqla_rls.analyze.worlds.world import Row, World
from sqla_rls.catalog.query import undone

_BUDGET: Final = Budget(worlds=16, rows=2)
#: The most rows that are inserted in a world with other rows, and the most updates of a world.
_MOST_INSERTS: Final = 4
_MOST_UPDATES: Final = 12
#: The most INSERTs of a world that change the row in their way.
_MOST_CONFLICTS: Final = 6
#: SQLSTATEs: a policy, a privilege or CHECK OPTION denies.
_DENIALS: Final = ("42501", "44000")
#: SQLSTATEs: a constraint or a trigger refuses a row, and another row might satisfy it.
_REFUSALS: Final = ("23503", "23505", "23514", "23P01", "P0001")

#: The outcomes of the statements of a world, by the place of the caller and the statement.
_Outcomes: TypeAlias = dict[tuple[int, Statement], Outcome]


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewWrite:
    """A statement of a caller that writes more than with security_invoker."""

    command: Command
    role: str
    level: Level
    evidence: Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewWrites:
    """What callers write through a view, past the policies of its table."""

    table: Relation
    #: The roles of the callers.
    roles: Sequence[str]
    #: The roles with whose rights the view writes.
    acts_as: Sequence[str]
    #: The first statement of each command.
    found: Sequence[ViewWrite]
    #: The functions of triggers that write, which have other rights than the caller.
    functions: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewBase:
    """The table whose rows the statements on a view write."""

    table: Relation
    #: The view, and the views below it.
    views: Sequence[str]
    #: The columns of the table by those of the view; an expression isn't one.
    columns: Mapping[str, Column]


def writes_past_policies(database: Database, view: Relation) -> ViewWrites | None:
    """Try the writes of callers through *view*; note what can't be decided.

    Raises:
        AnalysisError: there is no scratch database, or it has the view only in part.
        DBAPIError: the scratch database refuses a statement that isn't one of a caller.
    """
    held: dict[Command, Sequence[str]] = {
        command: database.roles_with_privileges(view.name, command) for command in WRITES
    }
    roles = [one.name for one in database.callers if any(one.name in ones for ones in held.values())]
    if not roles:
        return None
    triggers = list(triggers_of(database, view))
    base = base_of(database.schema, view)
    if base is None or not base.table.row_security:
        for trigger in triggers:
            database.note_unknown(view.name, trigger.reason, kind="view", role=roles[0])
        return None
    reached = reach_of(database.schema, view.name).relations
    readers = sorted({reader for name, reader in reached if name == base.table.name} - {CALLER})
    undecided: dict[str, str] = {}
    if any(database.escapes(reader, base.table) for reader in readers):
        actors: dict[str, list[Actor]] = {role: [] for role in roles}
    else:
        actors, undecided = _actors_of_other_policies(database, view, roles, held)
    for role in roles if triggers else ():
        actors.setdefault(role, [])
    suspects = [role for role in roles if role in actors or role in undecided]
    found: dict[Command, ViewWrite] = {}
    if suspects:
        with database.scratch() as connection:
            database.require_complete(view.name)
            tries = _Tries(database, connection, view, base, triggers)
            for role in distinct_callers(database, view, suspects):
                for write in tries.of(role, actors.get(role, ())):
                    known = found.get(write.command)
                    if known is None or LEVELS.index(write.level) < LEVELS.index(known.level):
                        found[write.command] = write
            reasons = [reason for command, reason in tries.refused.items() if command not in found]
            reasons += [
                trigger.reason
                for trigger in triggers
                for command in WRITES
                if command in trigger.commands - found.keys() - tries.decided and held[command]
            ]
            for reason in reasons:
                database.note_unknown(view.name, reason, kind="view", role=suspects[0])
    if not found:
        for role, reason in undecided.items():
            database.note_unknown(view.name, reason, kind="view", role=role)
        return None
    writes = [found[command] for command in WRITES if command in found]
    writing = [trigger for trigger in triggers if trigger.commands & found.keys()]
    by_triggers = {command for trigger in writing for command in trigger.commands}
    return ViewWrites(
        table=base.table,
        roles=[role for role in suspects if any(role in held[one.command] for one in writes)],
        acts_as=sorted(
            {
                *(readers if found.keys() - by_triggers else ()),
                *(one for trigger in writing for one in trigger.rights),
            }
        ),
        found=writes,
        functions=sorted({one for trigger in writing for one in trigger.functions}),
    )


def _actors_of_other_policies(
    database: Database, view: Relation, roles: Sequence[str], held: Mapping[Command, Sequence[str]]
) -> tuple[dict[str, list[Actor]], dict[str, str]]:
    """Return the callers that other policies let through the view, and why it is unknown for other roles."""
    actors: dict[str, list[Actor]] = {}
    undecided: dict[str, str] = {}
    for role in roles:
        parts: list[Part] = []
        for command in WRITES:
            parts += PARTS_OF_WRITES[command] if role in held[command] else ()
        one = other_policies(database, view.name, role, parts)
        if isinstance(one, Undecided):
            undecided[role] = one.reason
        elif one is not None:
            actors[role] = [one.actor]
    return actors, undecided


def base_of(schema: Schema, view: Relation) -> ViewBase | None:
    """Return the table that statements on *view* write, through views below it; None if there is none.

    Raises:
        AnalysisError: the parser doesn't know the syntax of a view.
    """
    by_name = {(one.schema, one.relname): one for one in schema.relations.values()}
    names = {name: name for name in view.columns}
    views: list[str] = []
    while view.kind == "v":
        views.append(view.name)
        found = columns_of_view(view.query or "")
        below = None if found is None else by_name.get(found.source)
        if found is None or below is None:
            return None
        own = dict(zip(found.renamed, below.columns, strict=False))
        taken = {name: found.columns[one] for name, one in names.items() if one in found.columns}
        names = {name: own.get(one, one) for name, one in taken.items()}
        view = below
    columns = {name: view.columns[one] for name, one in names.items() if one in view.columns}
    return ViewBase(table=view, views=views, columns=columns) if view.has_rows else None


@dataclass(eq=False)
class _Tries:
    """Tries the writes of callers through one view, in a scratch database whose block is undone."""

    database: Database
    connection: Connection
    view: Relation
    base: ViewBase
    #: The triggers with other rights than the caller.
    triggers: Sequence[Trigger] = ()
    #: The commands whose statements a constraint or a trigger refused, with the reason.
    refused: dict[Command, str] = field(default_factory=dict[Command, str])
    #: The commands that run a trigger and changed rows: with an answer by the caller's rights, too, and
    #: without one.
    _answered: set[Command] = field(default_factory=set[Command])
    _unanswered: set[Command] = field(default_factory=set[Command])

    def __post_init__(self) -> None:
        self.triggered = commands_of_triggers(self.view)
        self._execute(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT}")
        self._execute(script("try_statements"))
        schema = self.database.schema
        self._scratch = ScratchDatabase(self.connection, schema)
        worlds = Reaches.of(self.database).worlds
        self._universe: Universe = worlds.universe(self.view, self.connection, schema)
        edges = schema.edges.get(self.base.table.name, ())
        decide = {edge.column for edge in edges if edge.part == "policy"}
        free = [name for name, one in self.base.columns.items() if one.is_writable]
        self._columns = sorted(free, key=lambda name: self._below(name) not in decide)

    def of(self, role: str, others: Sequence[Actor]) -> Iterator[ViewWrite]:
        """Yield the first write of each command that callers of *role* can't do with security_invoker.

        Args:
            role: the role.
            others: callers of the role that are tried, too.
        """
        first = first_actors(self.database, self._universe, role)
        actors = [*first, *(one for one in others if one not in first)]
        trials = list(self._trials(self.database.profiles[self.view.name, role]))
        as_is = self._run(trials, actors)
        self._note_refusals(trials, as_is)
        again: list[tuple[Trial, _Outcomes]] = []
        for trial, outcomes in zip(trials, as_is, strict=True):
            permitted = {statement for (_, statement), one in outcomes.items() if one.count}
            if permitted:
                again.append(
                    (Trial(trial.world, [one for one in trial.statements if one in permitted]), outcomes)
                )
        with undone(self.connection):
            self._make_invoker(role)
            as_invoker = self._run([trial for trial, _ in again], actors)
        found: set[Command] = set()
        for (trial, before), after in zip(again, as_invoker, strict=True):
            for (place, statement), one in after.items():
                is_answer = one.error is None or one.error.startswith("42501")
                more = before[place, statement].permits_more_than(one)
                if isinstance(statement, Triggered):
                    is_answer = self._is_of_policy(one, before[place, statement])
                    (self._answered if is_answer else self._unanswered).add(statement.command)
                if statement.command not in found and is_answer and more:
                    found.add(statement.command)
                    yield self._write(trial.world, actors[place], statement, before[place, statement], one)

    def _run(self, trials: Sequence[Trial], actors: Sequence[Actor]) -> list[_Outcomes]:
        """Return the outcomes of each trial; none for a world whose rows can't be inserted."""
        found: list[_Outcomes] = []
        tried = self._scratch.run(trials, actors, fires_triggers=False) if trials else []
        for trial, one in zip(trials, tried, strict=True):
            keys = [(place, statement) for place in range(len(actors)) for statement in trial.statements]
            outcomes = {}
            if one.results:
                outcomes = {key: observed(one.outcome(number)) for number, key in enumerate(keys)}
            found.append(outcomes)
        return found

    def _make_invoker(self, role: str) -> None:
        """Set security_invoker, and give *role* all privileges that it needs, so that policies decide."""
        schema = self.database.schema
        tables, functions = set[str](), set[str]()
        for view in self.base.views:
            # With those that policies read and call.
            tables |= schema.reads(view)
            functions |= schema.calls(view)
        schemas = {schema.relations[name].schema for name in tables}
        schemas |= {schema.functions[name].schema for name in functions}
        to = f"TO {quoted(role)}"
        statements = [f"ALTER VIEW {name} SET (security_invoker = true)" for name in self.base.views]
        statements += [f"GRANT SELECT, INSERT, UPDATE, DELETE ON {', '.join(sorted(tables))} {to}"]
        statements += [f"GRANT EXECUTE ON ROUTINE {name} {to}" for name in sorted(functions)]
        statements += [f"GRANT USAGE ON SCHEMA {quoted_list(sorted(schemas))} {to}"]
        statements += [
            f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {quoted_list(sorted(schemas))} {to}",
        ]
        statements += [
            f"ALTER ROUTINE {name} SECURITY INVOKER"
            for name in sorted({name for trigger in self.triggers for name in trigger.functions})
        ]
        # What a trigger reads to decide is its own matter; the policies of the table may depend on it, too.
        statements += [
            f"ALTER TABLE {name} DISABLE ROW LEVEL SECURITY"
            for name in sorted(self._others() - self._read_by_policies())
        ]
        for one in statements:
            self._execute(one)

    def _others(self) -> set[str]:
        """Return the other tables with row security that triggers reach with other rights."""
        schema = self.database.schema
        return {
            name
            for trigger in self.triggers
            for name, role in reach_of(schema, trigger.function).relations
            if role != CALLER and schema.relations[name].has_rows and schema.relations[name].row_security
        } - {self.base.table.name}

    def _read_by_policies(self) -> set[str]:
        schema = self.database.schema
        used = {
            one
            for edge in schema.edges.get(self.base.table.name, ())
            if edge.part == "policy"
            for one in (edge.reads, edge.calls)
            if one is not None and one != self.base.table.name
        }
        return {name for one in used for name in schema.reads(one)}

    def _is_of_policy(self, outcome: Outcome, before: Outcome) -> bool:
        """Return whether a policy decides the outcome with the caller's rights, and not the trigger."""
        if outcome.error is not None:
            return "row-level security policy" in outcome.error
        return outcome.count >= before.count or not self._others() & self._read_by_policies()

    @property
    def decided(self) -> set[Command]:
        """The commands of which the statements have shown what their triggers write."""
        return self._answered - self._unanswered

    def _execute(self, sql: str) -> None:
        self.connection.exec_driver_sql(sql, execution_options={"no_parameters": True})

    def _note_refusals(self, trials: Sequence[Trial], tried: Sequence[_Outcomes]) -> None:
        """Note the commands that no world answers, since constraints or triggers refuse its rows."""
        for command in WRITES:
            if not any(one.command == command for trial in trials for one in trial.statements):
                continue
            errors = [
                one.error or ""
                for trial, outcomes in zip(trials, tried, strict=True)
                if command == "INSERT" or self._has_row(trial.world)
                for (_, statement), one in outcomes.items()
                if statement.command == command
            ]
            if not errors:
                self.refused[command] = f"no {command} was tried: no row of the worlds can be inserted"
                continue
            refusal = next((one for one in errors if one.startswith(_REFUSALS)), None)
            if refusal is not None and all(one and not one.startswith(_DENIALS) for one in errors):
                self.refused[command] = f"no {command} of the worlds gets as far as a policy: {refusal}"

    def _has_row(self, world: World) -> bool:
        return any(row.relation == self.base.table.name for row in world.all_rows)

    def _trials(self, profile: Profile) -> Iterator[Trial]:
        """Yield worlds with the statements of a role: without a row of the table, with one, with others."""
        table = self.base.table
        rows = self._universe.rows.get(table.name, ())
        parents = [row for row in self._universe.complete(rows) or () if row.relation != table.name]
        yield Trial(World(rows=tuple(parents)), list(self._inserts(profile, rows)))
        for row in rows:
            completed = self._universe.complete((*parents, row))
            if completed is not None:
                changes = [*self._changes(profile), *self._conflicts(profile, row)]
                yield Trial(World(rows=completed), changes)
        for world in generate_worlds(self._universe, _BUDGET):
            new = [row for row in rows if row not in world.rows][:_MOST_INSERTS]
            completed = self._universe.complete((*world.rows, *new)) or world.rows
            present = tuple(row for row in completed if row not in new)
            old = [row for row in present if row.relation == table.name][:1]
            conflicts = [one for row in old for one in self._conflicts(profile, row)]
            yield Trial(
                World(rows=present), [*self._inserts(profile, new), *self._changes(profile), *conflicts]
            )

    def _inserts(self, profile: Profile, rows: Sequence[Row]) -> Iterator[Statement]:
        for row in rows:
            given = self._given(profile, row)
            if given:
                yield self._statement("INSERT", self._insert(given))

    def _statement(self, command: Command, text: str) -> Statement:
        if command in self.triggered:
            return Triggered(command, text, table=self.base.table.name)
        return Statement(command, text)

    def _given(self, profile: Profile, row: Row) -> dict[str, Any]:
        """Return the values of *row* that an INSERT has, by the columns of the view."""
        names = [name for name in self._columns if name in profile.inserts]
        return {name: row.values[self._below(name)] for name in names if self._below(name) in row.values}

    def _insert(self, given: Mapping[str, Any]) -> str:
        values = ", ".join(literal(self.base.columns[name], value) for name, value in given.items())
        return f"INSERT INTO {self.view.name} ({quoted_list(given)}) VALUES ({values})"

    def _conflicts(self, profile: Profile, row: Row) -> Iterator[Statement]:
        """Yield INSERTs that find *row* in their way, and change it: the filter of a view doesn't hide it."""
        if "INSERT" in self.triggered:
            # Postgres refuses ON CONFLICT there.
            return
        given = self._given(profile, row)
        by_column = {self._below(name): name for name, value in given.items() if value is not None}
        for key in self.base.table.keys:
            if by_column.keys() >= set(key):
                target = quoted_list(by_column[one] for one in key)
                for name, value in islice(self._new_values(profile), _MOST_CONFLICTS):
                    proposed = {one: value if one == name else given[one] for one in given}
                    action = f"DO UPDATE SET {self._assigned(name, value)}"
                    yield Statement("INSERT", f"{self._insert(proposed)} ON CONFLICT ({target}) {action}")
                return

    def _changes(self, profile: Profile) -> Iterator[Statement]:
        for name, value in islice(self._new_values(profile), _MOST_UPDATES):
            yield self._statement("UPDATE", f"UPDATE {self.view.name} SET {self._assigned(name, value)}")
        if profile.delete:
            yield self._statement("DELETE", f"DELETE FROM {self.view.name}")

    def _new_values(self, profile: Profile) -> Iterator[tuple[str, Any]]:
        for name in self._columns:
            if name in profile.updates:
                for value in self._universe.pools.values(self.base.columns[name]):
                    yield name, value

    def _assigned(self, name: str, value: Any) -> str:
        return f"{quoted(name)} = {literal(self.base.columns[name], value)}"

    def _below(self, name: str) -> str:
        return self.base.columns[name].name

    def _write(
        self, world: World, actor: Actor, statement: Statement, before: Outcome, after: Outcome
    ) -> ViewWrite:
        may = self.database.roles_with_privileges(self.base.table.name, statement.command)
        how = "the caller's rights" if isinstance(statement, Triggered) else "security_invoker"
        text = f"{actor.text} runs {statement.text}: {before}; with {how}: {after}"
        rows = [] if statement.command == "INSERT" else world.all_rows
        words = ", ".join(row_in_words(self._universe, row) for row in rows)
        return ViewWrite(
            command=statement.command,
            role=actor.role,
            level="error" if actor.role in may else "warning",
            evidence=Evidence(
                kind="counterexample",
                text=text + (f", with {words}" if words else ""),
                data={
                    "role": actor.role,
                    "claims": actor.claims,
                    "settings": dict(actor.settings),
                    "rows": world.values_by_relation,
                    "command": statement.command,
                    "statement": statement.text,
                    "result": str(before),
                    "with_security_invoker": str(after),
                },
            ),
        )
