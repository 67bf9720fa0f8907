"""INSTEAD OF triggers whose functions have other rights than the caller, and the rows that they change."""

# ruff: noqa: S608
# Names come quoted from the catalog; the statements are those of view_writes.py.

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqla_rls.analyze.in_place.triggers import commands_of_triggers
from sqla_rls.analyze.lint.database import Database, listed
from sqla_rls.analyze.why.explanation import Command
from sqla_rls.analyze.worlds.acting import CALLER, reach_of
from sqla_rls.analyze.worlds.objects import Relation
from sqla_rls.analyze.worlds.scratch import Outcome
from sqla_rls.analyze.worlds.statements import Statement

#: The SQLSTATE with which a statement says how many rows it has changed.
_CHANGED: Final = "RLS04"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """A function of an INSTEAD OF trigger that may write past policies."""

    function: str
    commands: frozenset[Command]
    #: The roles other than the caller with whose rights it acts.
    rights: Sequence[str]
    #: The function, and those that it calls, as far as they are SECURITY DEFINER and may write.
    functions: Sequence[str]

    @property
    def reason(self) -> str:
        return (
            f"its INSTEAD OF trigger calls {self.function}, which has the rights of {listed(self.rights)}, "
            "and no statement of the worlds shows what it writes"
        )


def writes_by_triggers(database: Database, view: Relation) -> bool:
    """Return whether an INSTEAD OF trigger of *view* may write with other rights than the caller."""
    return next(triggers_of(database, view), None) is not None


def triggers_of(database: Database, view: Relation) -> Iterator[Trigger]:
    """Yield the functions of INSTEAD OF triggers that may write past policies."""
    schema = database.schema
    for edge in schema.edges.get(view.name, ()):
        function = schema.functions.get(edge.calls or "")
        if edge.part != "trigger" or function is None:
            continue
        reach = reach_of(schema, function.signature)
        rights = {role for name, role in reach.relations if schema.relations[name].row_security}
        rights |= {role for name, role in reach.functions if schema.functions[name].is_opaque}
        called = {schema.functions[name] for name, _ in reach.functions}
        writers = [
            one.signature
            for one in called
            if one.is_definer and (one == function or one.is_opaque or one.vocabulary.writes)
        ]
        if rights - {CALLER}:
            yield Trigger(
                function=function.signature,
                commands=_commands(view, function.signature),
                rights=sorted(rights - {CALLER}),
                functions=sorted(writers),
            )


def _commands(view: Relation, function: str) -> frozenset[Command]:
    """Return the commands that run a trigger function."""
    # A call may have arguments, which the signature lacks.
    called = [one for one in view.triggers if f" {function.removesuffix(')')}" in one]
    return commands_of_triggers(replace(view, triggers=tuple(called)))


@dataclass(frozen=True, slots=True)
class Triggered(Statement):
    """A statement whose trigger writes: its result is the number of rows of *table* that it changes.

    The trigger says how many rows it takes for changed, and not how many it changed.
    """

    table: str = ""

    @property
    def tried(self) -> str:
        rows = f"SELECT pg_catalog.to_jsonb(t) AS r FROM {self.table} AS t"
        return f"""nDO $sqla_rls$
          DECLARE
            sqla_rls_role text := pg_catalog.current_setting('role');
            sqla_rls_rows jsonb;
            sqla_rls_changed bigint;
          BEGIN
            PERFORM pg_catalog.set_config('role', 'none', true);
            sqla_rls_rows := (SELECT pg_catalog.jsonb_agg(t.r) FROM ({rows}) AS t);
            PERFORM pg_catalog.set_config('role', sqla_rls_role, true);
            {self.text};
            PERFORM pg_catalog.set_config('role', 'none', true);
            SELECT greatest((SELECT pg_catalog.count(*) FROM ({rows} EXCEPT ALL
                              SELECT pg_catalog.jsonb_array_elements(sqla_rls_rows)) AS t),
                            (SELECT pg_catalog.count(*) FROM (
                              SELECT pg_catalog.jsonb_array_elements(sqla_rls_rows) EXCEPT ALL {rows}) AS t))
              INTO sqla_rls_changed;
            RAISE EXCEPTION USING ERRCODE = '{_CHANGED}', MESSAGE = sqla_rls_changed::text;
          END $sqla_rls$"""


def observed(outcome: Outcome) -> Outcome:
    """Return the outcome of a statement by the rows that it changed."""
    if outcome.error is not None and outcome.error.startswith(f"{_CHANGED}: "):
        return Outcome(count=int(outcome.error.partition(": ")[2]))
    return outcome
