"""Whether a trigger function shows its callers values of rows that policies hide: statements in small worlds.

A row of a protected table gets values that occur nowhere else. Then a caller, who doesn't read that row, runs
the statement that fires the trigger. The function shows the row if the caller then reads one of these values,
or gets it in the message of an error.
"""

# ruff: noqa: S608
# Names come quoted from the catalog; other names and values are quoted by psycopg.

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final

from sqlalchemy import Connection, RowMapping
from sqlalchemy.exc import DBAPIError

from sqla_rls.analyze.lint.callers import distinct_callers, first_actors, function_asks
from sqla_rls.analyze.lint.database import Database, listed
from sqla_rls.analyze.lint.finding import Evidence, Level
from sqla_rls.analyze.lint.reach import Reaches
from sqla_rls.analyze.lint.trigger_marks import SHOWN, Marked, Showing, marked_rows, marks_of, value_of
from sqla_rls.analyze.lint.triggers import way_in_words, writers
from sqla_rls.analyze.verdict import Budget
from sqla_rls.analyze.vocabulary import has_words
from sqla_rls.analyze.why.explanation import WRITES, Command
from sqla_rls.analyze.why.target import script
from sqla_rls.analyze.worlds.acting import CALLER, reach_of
from sqla_rls.analyze.worlds.counterexamples import row_in_words
from sqla_rls.analyze.worlds.generate import generate_worlds
from sqla_rls.analyze.worlds.objects import Profile, Relation
from sqla_rls.analyze.worlds.pools import SUBJECTS, Actor
from sqla_rls.analyze.worlds.schema import Schema
from sqla_rls.analyze.worlds.scratch import STATEMENT_TIMEOUT, Outcome, ScratchDatabase, Trial, Tried
from sqla_rls.analyze.worlds.statements import Shape, Statement, Statements, literal, quoted
from sqla_rls.analyze.worlds.universe import Universe
from sqla_rls.analyze.worlds.world import Row, World
from sqla_rls.catalog.query import undone
from sqla_rls.exc import AnalysisError

_BUDGET: Final = Budget(worlds=16, rows=2)
#: The most statements of one caller in a world.
_MOST_STATEMENTS: Final = 4
#: The most worlds with a marked row for one role, and those of one round trip.
_MOST_MARKED: Final = 96
_AT_ONCE: Final = 24
#: The words without which a body reads no row of another table.
_READING: Final = ("SELECT", "FROM", "TABLE", "RETURNING", "USING")
#: SQLSTATEs: a policy or a privilege denies, or CHECK OPTION, or a trigger.
_ANSWERS: Final = ("42501", "44000", "P0001")

#: A third subject for each of two.
_THIRDS: Final[Mapping[str, str]] = {
    subject: third
    for kind, third in {
        "text": "carol",
        "uuid": "cccccccc-cccc-4ccc-8ccc-cccccccccccc",
        "number": "3",
    }.items()
    for subject in SUBJECTS[kind]
}
_OTHERS: Final = dict(SUBJECTS.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerReads:
    """Rows that a trigger function shows to callers whose policies hide them."""

    table: str
    role: str
    command: Command
    level: Level
    evidence: Sequence[Evidence]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """A command of callers that fires a trigger."""

    row: RowMapping
    relation: Relation
    command: Command
    roles: Sequence[str]


def shown_by_trigger(database: Database, signature: str, rows: Sequence[RowMapping]) -> TriggerReads | None:
    """Return what trigger function *signature* shows to its callers; note what can't be decided.

    Args:
        database: the database.
        signature: the signature of the function, which is SECURITY DEFINER.
        rows: the relations whose commands fire its triggers, of ``definer_triggers``.
    """
    schema = database.schema
    tables = _tables(database, signature)
    ways = list(_ways(database, rows))
    if not tables or not ways or not _may_read(schema, signature):
        return None
    tries = _Tries(database, signature, tables)
    found: TriggerReads | None = None
    refused: str | None = None
    try:
        with database.scratch() as connection:
            for way, role in _callers(database, ways):
                with undone(connection):
                    for one in tries.of(connection, way, role):
                        if found is None or (found.level, one.level) == ("warning", "error"):
                            found = one
                if found is not None and found.level == "error":
                    return found
        refused = tries.refused
    except (AnalysisError, DBAPIError) as error:
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            raise
        refused = str(getattr(error, "orig", None) or error).partition("\n")[0]
    if found is None and refused is not None:
        database.note_unknown(signature, refused, kind="function", role=ways[0].roles[0])
    return found


def _callers(database: Database, ways: Iterable[_Way]) -> Iterator[tuple[_Way, str]]:
    """Yield the roles of each way whose callers differ.

    Raises:
        AnalysisError: the scratch database has the relation of a way only in part.
    """
    for way in ways:
        database.require_complete(way.relation.name)
        for role in distinct_callers(database, way.relation, way.roles):
            yield way, role


def callers_of_trigger(database: Database, rows: Sequence[RowMapping]) -> list[str]:
    """Return the callers' roles whose INSERT, UPDATE or DELETE fires a trigger of *rows*."""
    roles = {role for way in _ways(database, rows) for role in way.roles}
    return [one.name for one in database.callers if one.name in roles]


def _ways(database: Database, rows: Iterable[RowMapping]) -> Iterator[_Way]:
    for row in rows:
        relation = database.schema.relations.get(row["relation"] or "")
        if relation is None:
            continue
        for command in WRITES:
            if command in row["commands"] and (roles := writers(database, relation.name, command)):
                yield _Way(row=row, relation=relation, command=command, roles=roles)


def _tables(database: Database, signature: str) -> dict[str, str]:
    """Return the protected tables that the function names, with the role whose rights it has there."""
    return {
        name: role
        for name, role in sorted(reach_of(database.schema, signature).relations)
        if role != CALLER
        and (table := database.schema.relations[name]).has_rows
        and table.row_security
        and (database.escapes(role, table) or database.profiles[name, role].has_privileges)
    }


def _may_read(schema: Schema, signature: str) -> bool:
    """Return whether a function, or one that it calls, has words with which it may read rows."""
    return any(
        schema.functions[one].is_opaque or has_words(schema.functions[one].body, _READING)
        for one, _ in reach_of(schema, signature).functions
    )


@dataclass(eq=False)
class _Tries:
    """Tries the statements that fire the triggers of one function."""

    database: Database
    signature: str
    #: The protected tables, with the roles whose rights the function has there.
    tables: Mapping[str, str]
    #: Why no statement of a command has run so far.
    refused: str | None = None
    _has_run: bool = False

    def __post_init__(self) -> None:
        schema = self.database.schema
        reached = reach_of(schema, self.signature)
        self._asks = function_asks(schema, self.signature)
        self._words = {
            word for name, _ in reached.functions for word in schema.functions[name].vocabulary.names
        }
        self._named = {name for name, _ in reached.relations}
        self._columns = {
            (edge.reads, edge.column)
            for function, _ in reached.functions
            for edge in schema.edges.get(function, ())
            if edge.column is not None
        }

    def of(self, connection: Connection, way: _Way, role: str) -> Iterator[TriggerReads]:
        """Yield what callers of *role* read by *way*: a warning, or an error, which comes last."""
        schema = self.database.schema
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT}")
        connection.exec_driver_sql(script("try_statements"), execution_options={"no_parameters": True})
        scratch = ScratchDatabase(connection, schema)
        universe = Reaches.of(self.database).worlds.universe(way.relation, connection, schema)
        actors = _two(first_actors(self.database, universe, role))
        if self._asks and len(actors) < 2:
            # The values may be the caller's own.
            return
        trials = list(self._trials(universe, way, role))
        kept: list[Trial] = []
        for trial, one in zip(trials, scratch.run(trials, actors, fires_triggers=False), strict=True):
            fired = _fired(trial.statements, [Outcome.of(each) for each in one.results])
            if fired:
                kept.append(Trial(trial.world, fired))
            if not self._has_run:
                self._note(way, one)
        if not trials and not self._has_run:
            self.refused = f"no world about {way.relation.name} has a row of {listed(self.tables)}"
        marked = islice(
            ((one, trial) for trial in kept for one in self._marked(universe, trial.world)), _MOST_MARKED
        )
        while some := list(islice(marked, _AT_ONCE)):
            asked = [
                Trial(one.world, [self._showing(each, one, role, way) for each in trial.statements])
                for one, trial in some
            ]
            for (mark, trial), result in zip(
                some, scratch.run(asked, actors, fires_triggers=False), strict=True
            ):
                found = self._first(result.results, trial.statements, actors)
                if found is None:
                    continue
                actor, statement, where = found
                read = self._read(universe, way, mark, actor, statement, where)
                yield read
                if read.level == "error":
                    return

    def _note(self, way: _Way, tried: Tried) -> None:
        """Note whether a statement got as far as a policy or the trigger."""
        errors = [tried.rejected] if tried.rejected else [Outcome.of(one).error for one in tried.results]
        if any(one is None or one.startswith(_ANSWERS) for one in errors):
            self._has_run, self.refused = True, None
        elif errors:
            trigger = way.row["trigger"]
            self.refused = f"no {way.command} of the worlds gets as far as trigger {trigger}: {errors[0]}"

    def _trials(self, universe: Universe, way: _Way, role: str) -> Iterator[Trial]:
        """Yield the worlds with a row of a protected table, and the statements that fire the trigger."""
        profile = self.database.profiles[way.relation.name, role]
        statements = Statements(universe=universe, profiles=(profile,))
        for world in generate_worlds(universe, _BUDGET):
            # The row in question is inserted by a statement.
            rows = world.rows if way.command == "INSERT" else world.all_rows
            hidden = [row for row in rows if row.relation in self.tables]
            if not hidden or not (world.row is not None or way.relation.is_view or way.command == "INSERT"):
                continue
            found: list[Statement] = []
            if way.relation.is_view:
                found = [*statements.on(None)]
            elif way.command == "INSERT":
                new = universe.rows[way.relation.name]
                found = [one for row in new for one in statements.inserting(row)]
                found += [
                    one
                    for row in new[:_MOST_STATEMENTS]
                    for name, value in self._references(way.relation, hidden)
                    for one in statements.inserting(Row(row.relation, {**row.values, name: value}))
                ]
            elif world.row is not None:
                if way.command == "UPDATE":
                    found = [*self._updates(universe, profile, world.row, hidden)]
                found += statements.on(world.row)
            found = [one for one in found if one.command == way.command and not one.returns_rows]
            if found:
                yield Trial(World(rows=rows), list(dict.fromkeys(found)))

    def _updates(
        self, universe: Universe, profile: Profile, row: Row, hidden: Sequence[Row]
    ) -> Iterator[Statement]:
        """Yield the UPDATE that sets each column, and those of one column that the function names."""
        relation = universe.relation
        keys = {name for key in relation.keys for name in key}
        free = [
            name
            for name in profile.updates
            if name in row.values and relation.columns[name].generated is None and name not in keys
        ]
        same = [(name, row.values[name]) for name in free]
        if same:
            yield _update(relation, same)
        for name, value in self._references(relation, hidden):
            if name in free:
                yield _update(relation, [(name, value)])
        for name in free:
            if name in self._words:
                for value in universe.pools.values(relation.columns[name])[:2]:
                    yield _update(relation, [(name, value)])

    def _references(self, relation: Relation, hidden: Sequence[Row]) -> Iterator[tuple[str, Any]]:
        """Yield the columns of *relation* that the function names, each with the key of a hidden row."""
        schema = self.database.schema
        for row in hidden[:2]:
            target = schema.relations[row.relation]
            for key in (name for names in target.keys for name in names):
                for name, column in relation.columns.items():
                    if name in self._words and column.is_writable and column.base == target.columns[key].base:
                        yield name, row.values[key]

    def _marked(self, universe: Universe, world: World) -> Iterator[Marked]:
        """Yield *world* with each row of a protected table marked: in free columns, then in one column."""
        for row in world.all_rows:
            if row.relation not in self.tables:
                continue
            relation = universe.schema.relations[row.relation]
            marks = marks_of(relation, row.values, universe.pools)
            used = {name for key in relation.keys for name in key}
            used |= {name for key in relation.foreign_keys for name in key.columns}
            decide = {
                edge.column
                for edge in universe.schema.edges.get(relation.name, ())
                if edge.part == "policy" and edge.reads == relation.name and edge.column is not None
            }
            free = tuple(name for name in marks if name not in used | decide)
            single = [(name,) for name in marks if (relation.name, name) in self._columns]
            # Policies hide the rows of a third person from both callers.
            of_a_third = {
                name: _THIRDS[str(value)]
                for name, value in row.values.items()
                if name in decide - used and str(value) in _THIRDS
            }
            for columns in dict.fromkeys([free, *single]):
                if not columns:
                    continue
                values = {**row.values, **of_a_third, **{name: marks[name] for name in columns}}
                new = Row(row.relation, values, row.copy)
                rows = tuple(new if one is row else one for one in world.all_rows)
                yield Marked(row=new, columns=columns, world=World(rows=rows))

    def _showing(self, statement: Statement, marked: Marked, role: str, way: _Way) -> Showing:
        schema, profiles = self.database.schema, self.database.profiles_of(role)
        relation = schema.relations[marked.row.relation]
        key = relation.keys[0] if relation.keys else ()
        reads: dict[str, str] = {}
        own = None
        for name, profile in profiles.items():
            one = schema.relations[name]
            if not (profile.usage and profile.selects) or not self._is_of_function(one, way.relation):
                continue
            condition = ""
            if name == relation.name:
                same = " AND ".join(f"{quoted(each)} = {value_of(marked, relation, each)}" for each in key)
                is_known = bool(key) and set(key) <= {*profile.selects}
                own = (
                    f"SELECT FROM {marked_rows(name, profile.selects, f' WHERE {same}' if is_known else '')}"
                )
                if not is_known:
                    continue
                condition = f" WHERE NOT ({same})"
            reads[name] = f"SELECT t.r FROM {marked_rows(name, profile.selects, condition)}"
        return Showing(statement.command, statement.text, statement.shape, reads=reads, own=own)

    def _is_of_function(self, relation: Relation, written: Relation) -> bool:
        """Return whether *relation* may have rows that the function writes."""
        if relation.name == written.name or (relation.has_rows and relation.name in self._named):
            return True
        if relation.kind != "v":
            return False
        read = {name for name, _ in reach_of(self.database.schema, relation.name).relations}
        # A view of a protected table shows its rows without the function.
        return not read & self.tables.keys() and bool(read & {*self._named, written.name})

    def _first(
        self, results: Sequence[str], statements: Sequence[Statement], actors: Sequence[Actor]
    ) -> tuple[Actor, Statement, str] | None:
        """Return the first caller who reads a mark, by which statement, and where."""
        found: dict[int, tuple[Actor, Statement, str]] = {}
        for number, one in enumerate(map(Outcome.of, results)):
            place, which = divmod(number, len(statements))
            if (one.error or "").startswith(f"{SHOWN}: "):
                where = (one.error or "").partition(": ")[2]
                found.setdefault(place, (actors[place], statements[which], where))
        # A body that asks who calls may show each caller what is theirs.
        if not found or (self._asks and len(found) < len(actors)):
            return None
        return next(iter(found.values()))

    def _read(
        self,
        universe: Universe,
        way: _Way,
        marked: Marked,
        actor: Actor,
        statement: Statement,
        where: str,
    ) -> TriggerReads:
        table = marked.row.relation
        may_read = actor.role in self.database.roles_with_privileges(table, "SELECT")
        owner = self.tables[table]
        if self.database.escapes(owner, universe.schema.relations[table]):
            reason = f"row security of {table} doesn't hold for its owner {owner}"
            if owner != way.row["owner"]:
                reason = f"row security of {table} doesn't hold for {owner}, with whose rights it reads"
        else:
            reason = f"it has the rights of {owner}, to whom other policies of {table} apply"
        rows = ", ".join(row_in_words(universe, row) for row in marked.world.all_rows)
        return TriggerReads(
            table=table,
            role=actor.role,
            command=way.command,
            level="error" if may_read and not _is_known(marked, statement, way, universe) else "warning",
            evidence=[
                Evidence(
                    kind="counterexample",
                    text=f"{actor.text} runs {statement.text}, and {where}, with {rows}",
                    data={
                        "role": actor.role,
                        "claims": actor.claims,
                        "settings": dict(actor.settings),
                        "rows": marked.world.values_by_relation,
                        "command": way.command,
                        "statement": statement.text,
                        "result": where,
                    },
                ),
                Evidence(
                    kind="catalog",
                    text=f"{way_in_words(way.row, way.command, way.roles)}; {reason}",
                    data={
                        "roles": list(way.roles),
                        "tables": [table],
                        "owner": way.row["owner"],
                        "acts_as": [owner],
                        "trigger": way.row["trigger"],
                    },
                ),
            ],
        )


def _two(actors: Sequence[Actor]) -> list[Actor]:
    """Return the first of *actors*, and one with another subject; one without a subject is alone."""
    for one in actors:
        subject = (one.claims or {}).get("sub")
        if subject in _OTHERS:
            return [one, replace(one, claims={**(one.claims or {}), "sub": _OTHERS[subject]})]
    return [*actors[:1]]


def _update(relation: Relation, values: Sequence[tuple[str, Any]]) -> Statement:
    assigned = ", ".join(
        f"{quoted(name)} = {literal(relation.columns[name], value)}" for name, value in values
    )
    shape = Shape(assigned=values[0] if len(values) == 1 else None)
    return Statement("UPDATE", f"UPDATE {relation.name} SET {assigned}", shape)


def _fired(statements: Sequence[Statement], outcomes: Sequence[Outcome]) -> list[Statement]:
    """Return some statements that change a row for a caller, or that a trigger may refuse."""
    found: dict[Statement, None] = {}
    # The outcomes are those of one caller after the other.
    for start in range(0, len(outcomes), len(statements)):
        own = zip(statements, outcomes[start : start + len(statements)], strict=True)
        firing = (each for each, one in own if one.count or (one.error or "").startswith("P0001"))
        found |= dict.fromkeys(islice(firing, _MOST_STATEMENTS))
    return [*found]


def _is_known(marked: Marked, statement: Statement, way: _Way, universe: Universe) -> bool:
    """Return whether the statement, or the row that it changes, has a value of the marked row."""
    given = list(statement.shape.inserted.values())
    given += [statement.shape.assigned[1]] if statement.shape.assigned is not None else []
    if way.command != "INSERT":
        given += [
            value
            for row in marked.world.all_rows
            if row.relation == universe.relation.name and row != marked.row
            for value in row.values.values()
        ]
    known = {repr(one) for one in given if one is not None and not isinstance(one, bool)}
    return any(
        repr(value) in known for name, value in marked.row.values.items() if name not in marked.columns
    )
