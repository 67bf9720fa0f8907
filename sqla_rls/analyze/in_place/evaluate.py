"""Evaluates conditions on rows of no table, as a caller, in one statement for all rows.

The error of one row counts for that row only.  After an error, a block of PL/pgSQL evaluates row by row;
without PL/pgSQL, the statement is repeated with halves of the rows.
"""

# ruff: noqa: S608

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, NestedTransaction, text
from sqlalchemy.exc import DBAPIError

from sqla_rls.analyze.in_place.conditions import Undecidable
from sqla_rls.analyze.why.target import script
from sqla_rls.analyze.worlds.pools import Actor
from sqla_rls.analyze.worlds.values import as_input
from sqla_rls.catalog.query import undone

#: The classes of errors that a command would raise, too: of data, of cardinality, and of functions.
_ERRORS_OF_ROWS: Final = ("22", "21", "P0")
_DENIED: Final = "42501"
_CAUGHT: Final = (*_ERRORS_OF_ROWS, _DENIED)
_UNITS: Final = "sqla_rls.units"
#: u.u is a unit, and u.n its number.
_ALL_UNITS: Final = (
    f"pg_catalog.jsonb_array_elements(CAST(pg_catalog.current_setting('{_UNITS}') AS pg_catalog.jsonb)) "
    "WITH ORDINALITY AS u (u, n)"
)
#: One text for all settings: SQLAlchemy and the driver have it ready.
_SET: Final = text(
    "SELECT pg_catalog.set_config(s.key, s.value, true) "
    "FROM pg_catalog.jsonb_each_text(CAST(CAST(:settings AS text) AS pg_catalog.jsonb)) AS s"
)
_ANSWERS: Final = text("SELECT pg_catalog.current_setting('sqla_rls.answers')")

#: None: the condition raises an error.
Answer = bool | None
Answers = tuple[Answer, ...]
#: The conditions whose answer needs no database.
CONSTANTS: Final[Mapping[str, Answer]] = {"true": True, "false": False}
#: One for each statement that has an answer.
_NUMBERS: Final = itertools.count(1)
_LETTERS: Final[Mapping[str, Answer]] = {"t": True, "f": False, "e": None}


@dataclass(frozen=True, slots=True)
class Unit:
    """A row in question, and the rows of the tables that are read inside."""

    row: Mapping[str, Any]
    rows: Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Question:
    """Conditions on the row that *source* selects from; *ctes* are the tables that they read."""

    conditions: tuple[str, ...]
    ctes: Mapping[str, str]
    source: str
    #: Whether a plan may keep the answer to another caller: functions that are called keep plans, too.
    forgets_plans: bool = False

    def statement(self, first: int, last: int, conditions: Sequence[str]) -> str:
        """Return the statement for the units *first* to *last*, counted from 1."""
        return (
            f"SELECT x.answers FROM {_ALL_UNITS} CROSS JOIN LATERAL ({self._answers(conditions)}) AS x "
            f"WHERE u.n BETWEEN {first} AND {last} ORDER BY u.n"
        )

    def letters(self, condition: str) -> dict[str, str]:
        """Return the statements for a word of t and f: for all units, and for the parameter $1 alone."""
        lateral = f"CROSS JOIN LATERAL ({self._answers([condition])}) AS x"
        letter = "CASE WHEN x.answers[1] THEN 't' ELSE 'f' END"
        return {
            "all": f"SELECT pg_catalog.string_agg({letter}, '' ORDER BY u.n) FROM {_ALL_UNITS} {lateral}",
            "one": f"SELECT {letter} FROM (SELECT $1 AS u) AS u {lateral}",
        }

    def _answers(self, conditions: Sequence[str]) -> str:
        ctes = ", ".join(f"{name} AS MATERIALIZED ({sql})" for name, sql in self.ctes.items())
        columns = ", ".join(f"({condition}) IS TRUE" for condition in conditions)
        return f"{f'WITH {ctes} ' if ctes else ''}SELECT ARRAY[{columns}] AS answers FROM {self.source}"


class Evaluator:
    """Asks questions on *connection*, in a transaction that is read only."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.statements = 0
        self._savepoint: NestedTransaction | None = None
        #: The question that raised an error when it was asked last.
        self._raising: Question | None = None
        #: The setting with the units, until a question needs it.
        self._units: dict[str, str] = {}

    @contextmanager
    def units(self, units: Sequence[Unit]) -> Iterator[None]:
        """Set the units that the questions of the block are about."""
        # The units have many rows in common.
        known: dict[int, Mapping[str, str | None]] = {}

        def as_text(row: Mapping[str, Any]) -> Mapping[str, str | None]:
            if id(row) not in known:
                known[id(row)] = _as_text(row)
            return known[id(row)]

        value = json.dumps(
            [
                {
                    "r": as_text(unit.row),
                    "w": {name: [as_text(row) for row in rows] for name, rows in unit.rows.items()},
                }
                for unit in units
            ]
        )
        outer, self._units = self._units, {_UNITS: value}
        self._roll_back()
        try:
            yield
        finally:
            self._roll_back()
            self._units = outer

    def answers(
        self,
        question: Question,
        number: int,
        actor: Actor | None = None,
        *,
        as_role: bool = False,
        settings: Sequence[str] = (),
    ) -> list[Answers]:
        """Return, for each of *number* units, whether each condition is true for the caller.

        Args:
            question: the conditions.
            number: the number of units.
            actor: the caller; None is the connection's own role without claims.
            as_role: whether the caller's role evaluates the conditions.
            settings: the settings that are empty unless *actor* has them.

        Raises:
            Undecidable: Postgres can't evaluate a condition on rows of no table.
        """
        if not number or not question.conditions:
            return [()] * number
        values = dict.fromkeys(("request.jwt.claims", *settings), "")
        if actor is not None:
            values |= actor.settings
            values["request.jwt.claims"] = "" if actor.claims is None else json.dumps(actor.claims)
            if as_role:
                values["role"] = actor.role
        if question is not self._raising:
            if self._savepoint is None:
                self._savepoint = self.connection.begin_nested()
                self._set({**self._units, **values})
            else:
                self._set(values)
            self._discard_plans(question)
            try:
                return self._asked(question, 1, number, question.conditions)
            except _RowError:
                pass
        self._roll_back()
        found = self._by_row(question, number, values)
        # The next caller, or the next world, most likely gets the same error.
        self._raising = question if found is not None and any(None in one for one in found) else None
        if found is not None:
            return found
        with undone(self.connection):
            self._set({**self._units, **values})
            columns = [self._column(question, 1, number, one) for one in question.conditions]
        return list(zip(*columns, strict=True))

    def _discard_plans(self, question: Question) -> None:
        if question.forgets_plans:
            self.statements += 1
            self.connection.exec_driver_sql("DISCARD PLANS")

    def _roll_back(self) -> None:
        if self._savepoint is not None:
            self._savepoint.rollback()
            self._savepoint = None

    def _set(self, settings: Mapping[str, str]) -> None:
        self.statements += 1
        self.connection.execute(_SET, {"settings": json.dumps(settings, ensure_ascii=False)})

    def _by_row(self, question: Question, number: int, values: Mapping[str, str]) -> list[Answers] | None:
        """Return the answers of a block of PL/pgSQL, which catches the errors; None if it can't run."""
        asked = json.dumps([question.letters(one) for one in question.conditions])
        try:
            with undone(self.connection):
                own = {
                    "sqla_rls.asked": asked,
                    "sqla_rls.errors_of_rows": ",".join(_CAUGHT),
                    "plan_cache_mode": "force_generic_plan",
                }
                self._set({**self._units, **values, **own})
                self._discard_plans(question)
                self.statements += 2
                self.connection.exec_driver_sql(
                    script("answers_by_row"), execution_options={"no_parameters": True}
                )
                words = json.loads(self.connection.scalar(_ANSWERS))
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
            return None
        if any(len(word) != number for word in words):
            return None
        return [tuple(_LETTERS[one] for one in letters) for letters in zip(*words, strict=True)]

    def _column(self, question: Question, first: int, last: int, condition: str) -> list[Answer]:
        try:
            with undone(self.connection):
                return [answers[0] for answers in self._asked(question, first, last, [condition])]
        except _RowError:
            if first == last:
                return [None]
        middle = (first + last) // 2
        halves = ((first, middle), (middle + 1, last))
        return [one for half in halves for one in self._column(question, *half, condition)]

    def _asked(self, question: Question, first: int, last: int, conditions: Sequence[str]) -> list[Answers]:
        self.statements += 1
        # A driver prepares a text that it knows; its plan may keep what a function returned to one caller.
        statement = f"{question.statement(first, last, conditions)} /* {next(_NUMBERS)} */"
        try:
            rows = self.connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
            return [tuple(row.answers) for row in rows]
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
            state = str(getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None))
            if state[:2] in _CAUGHT or state in _CAUGHT:
                raise _RowError from None
            reason = str(error.orig).partition("\n")[0]
            raise Undecidable(f"Postgres can't evaluate a policy on rows of no table: {reason}") from None


def _as_text(row: Mapping[str, Any]) -> Mapping[str, str | None]:
    """The values as the input functions of their types read them."""
    return {name: None if value is None else as_input(value) for name, value in row.items()}


class _RowError(Exception):
    """A row raises an error that a command would raise, too."""
