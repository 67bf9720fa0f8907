"""The policies that the statements of a test run exercise, by role and command.

A statement of a bound session exercises the policies of its tables for its command and the caller's role,
whether Postgres permits it or not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, Engine, MetaData, Table, event
from sqlalchemy.sql import visitors

from sqla_rls.declare.base import TableDeclarations
from sqla_rls.declare.policies import Policy
from sqla_rls.session.sharing import sessions_on

#: The full name of a table, a command, and the role of a caller.
Use: TypeAlias = tuple[str, str, str]

_COMMANDS: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")
_PUBLIC: Final = "public"


@dataclass(frozen=True, slots=True, order=True)
class Exercise:
    """A policy for one command and one role; for PUBLIC, any role counts."""

    table: str
    policy: str
    command: str
    role: str

    def __str__(self) -> str:
        return f"{self.table}: policy {self.policy!r}, {self.command} as {self.role}"

    def is_done(self, uses: Collection[Use]) -> bool:
        if self.role == _PUBLIC:
            return any((self.table, self.command) == use[:2] for use in uses)
        return (self.table, self.command, self.role) in uses


def exercises(metadatas: Iterable[MetaData]) -> list[Exercise]:
    """Return the declared policies, for each of their commands and roles."""
    return sorted(
        Exercise(table.fullname, policy.name, command, str(role))
        for metadata in metadatas
        for table in metadata.tables.values()
        for policy in TableDeclarations.of(table).of_type(Policy)
        for command in (_COMMANDS if policy.command == "ALL" else (policy.command,))
        for role in policy.roles
    )


class Recorder:
    """Records the uses of tables by bound sessions, on all engines, until it stops."""

    def __init__(self) -> None:
        self.uses: set[Use] = set()

    def start(self) -> None:
        event.listen(Engine, "before_cursor_execute", self._note)

    def stop(self) -> None:
        event.remove(Engine, "before_cursor_execute", self._note)

    def _note(
        self, connection: Connection, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> None:
        compiled = getattr(context, "compiled", None)
        if getattr(compiled, "statement", None) is None:
            return
        bound = [session._bound for session in sessions_on(connection)]
        # Service access without a role is that of the login role, which has no policies.
        roles = {one.role for one in bound if one is not None and one.role is not None}
        if roles:
            used = {*_used(compiled)}
            self.uses |= {(table, command, role) for table, command in used for role in roles}


def _used(compiled: Any) -> Iterator[tuple[str, str]]:
    """Yield the tables of a statement with the commands whose policies hold."""
    statement = compiled.statement
    command = next((one for one in _COMMANDS[1:] if getattr(statement, f"is_{one.lower()}", False)), None)
    changed = None if command is None else statement.table
    if command is not None and isinstance(changed, Table):
        yield changed.fullname, command
    # The ORM's own statement has the tables of eager loads.
    whole = [statement, getattr(getattr(compiled, "compile_state", None), "statement", None)]
    for table in _tables(one for one in whole if one is not None):
        # An INSERT reads its own table only to return the row.
        reads = command != "INSERT" or bool(compiled.effective_returning) if table is changed else True
        if reads:
            yield table.fullname, "SELECT"


def _tables(elements: Iterable[Any]) -> Iterator[Table]:
    seen: set[Table] = set()
    for element in elements:
        for one in visitors.iterate(element):
            table = one if isinstance(one, Table) else getattr(one, "table", None)
            table = getattr(table, "element", table)
            if isinstance(table, Table) and table not in seen:
                seen.add(table)
                yield table


def summary(wanted: Collection[Exercise], uses: Collection[Use]) -> tuple[float, list[str]]:
    """Return the percentage that is exercised, and the lines of the summary."""
    missing = [one for one in wanted if not one.is_done(uses)]
    done = len(wanted) - len(missing)
    percent = 100.0 * done / len(wanted) if wanted else 100.0
    lines = [f"{done} of {len(wanted)} policies by command and role exercised ({percent:.0f} %)"]
    lines += [f"  not exercised: {one}" for one in missing]
    return percent, lines
