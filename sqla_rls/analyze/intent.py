"""The intent: whose rows are whose, in Python, independent of the policies.

``sqla-rls prove`` compares it with the rows that Postgres shows and changes.  Declarations such as
``own_rows("user_id")`` state it themselves.  State it for a policy that is SQL text, and for rows that are
public on purpose::

    @intends(Doc, "SELECT", role=authenticated)
    def may_read(caller: Caller, row: Row, world: World) -> bool:
        return bool(row["is_public"] or row["owner_id"] == caller.subject)

    intends(Notice, "SELECT", role=[anonymous, authenticated], rows=everyone)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar, get_args, overload
from uuid import UUID

from sqlalchemy import MetaData, Table

from sqla_rls.analyze.why.explanation import Command
from sqla_rls.declare.base import Roles, as_roles, keep_on, kept_on, table_of
from sqla_rls.exc import DeclarationError
from sqla_rls.tokens.caller import Caller

__all__ = [
    "Row",
    "Rule",
    "Test",
    "World",
    "everyone",
    "intends",
    "member",
    "no_one",
    "owner",
]

#: A row by the names of its columns.  Dates, times and UUIDs are objects of Python, enums are text.
Row: TypeAlias = Mapping[str, Any]
#: The rows of all tables by their names: ``world["members"]``, or ``world["public.members"]``.
World: TypeAlias = Mapping[str, Sequence[Row]]
#: Whether a caller may run the command on a row.
Test: TypeAlias = Callable[[Caller, Row, World], bool]

_Test = TypeVar("_Test", bound=Test)


class Rule:
    """A test with the operators ``|``, ``&`` and ``~``."""

    def __init__(self, test: Test) -> None:
        self.test = test

    def __call__(self, caller: Caller, row: Row, world: World) -> bool:
        return self.test(caller, row, world)

    def __or__(self, other: Test) -> Rule:
        return Rule(lambda *given: self(*given) or other(*given))

    def __and__(self, other: Test) -> Rule:
        return Rule(lambda *given: self(*given) and other(*given))

    def __invert__(self) -> Rule:
        return Rule(lambda *given: not self(*given))


#: Every row, for rows that are public on purpose.
everyone: Final = Rule(lambda caller, row, world: True)
#: No row.
no_one: Final = Rule(lambda caller, row, world: False)


def owner(column: str) -> Rule:
    """Return the rule that the caller's subject stands in *column*."""
    return Rule(lambda caller, row, world: is_subject(caller, row[column]))


def member(
    table: Any, *, column: str, group: str, user: str, where: Callable[[Row], bool] | None = None
) -> Rule:
    """Return the rule that the caller is a member of the row's group.

    Args:
        table: the table of memberships: a mapped class, a ``Table``, or a name.
        column: the column with the group of the row.
        group: the column with the group in the table of memberships.
        user: the column with the user in the table of memberships.
        where: selects memberships, for example those with a role.
    """

    def is_member(caller: Caller, row: Row, world: World) -> bool:
        return row[column] is not None and any(
            one[group] == row[column] and is_subject(caller, one[user]) and (where is None or where(one))
            for one in world[_name(table)]
        )

    return Rule(is_member)


def is_subject(caller: Caller, value: Any) -> bool:
    """Return whether *value* of a column is the caller's subject."""
    if caller.subject is None or value is None:
        return False
    if isinstance(value, UUID):
        try:
            return UUID(caller.subject) == value
        except ValueError:
            return False
    return str(value) == caller.subject


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """The stated intent for some commands of some roles on a table."""

    table: Table
    commands: tuple[Command, ...]
    roles: tuple[str, ...]
    test: Test
    #: The test of the new row of UPDATE.
    new: Test


@overload
def intends(
    target: Any, *commands: Command, role: Roles, rows: Test, new_rows: Test | None = None
) -> None: ...
@overload
def intends(
    target: Any, *commands: Command, role: Roles, new_rows: Test | None = None
) -> Callable[[_Test], _Test]: ...
def intends(
    target: Any, *commands: Command, role: Roles, rows: Test | None = None, new_rows: Test | None = None
) -> Any:
    """State which rows a role may read or change.

    It replaces what the declarations of the table state for these commands and roles.  Write it beside the
    model, or in a module of its own: ``sqla-rls prove`` takes the option ``--intents``.

    Args:
        target: a mapped class, a ``Table``, or the table of a declared view.
        *commands: "SELECT", "INSERT", "UPDATE" or "DELETE"; several may have one intent.
        role: the role, or several.
        rows: the test of a row; without it, ``intends()`` decorates a function.  INSERT has only a new row.
            UPDATE tests the row before and after.
        new_rows: another test of the row after UPDATE.

    Raises:
        DeclarationError: an argument is wrong, or the intent is stated twice.
    """
    table = _table(target)
    if not commands or not set(commands) <= set(get_args(Command)):
        raise DeclarationError(
            f"the intent for {table.fullname} can't be stated: its commands are {commands}. "
            f"Give some of {', '.join(get_args(Command))}"
        )
    roles = tuple(str(one) for one in as_roles(role))

    def state(test: _Test) -> _Test:
        for other in intents(table.metadata):
            if other.table is table and set(other.commands) & set(commands) and set(other.roles) & set(roles):
                raise DeclarationError(
                    f"the intent for {table.fullname} is stated twice, for {', '.join(commands)} and "
                    f"{', '.join(roles)}. Remove one, or join the two with |"
                )
        found = Intent(table=table, commands=commands, roles=roles, test=test, new=new_rows or test)
        keep_on(table.metadata, found)
        return test

    if rows is None:
        return state
    state(rows)
    return None


def intents(*metadatas: MetaData) -> list[Intent]:
    """Return the stated intents."""
    return kept_on(metadatas, Intent)


def _table(target: Any) -> Table:
    table = table_of(target)
    if table is None:
        raise DeclarationError(
            f"the intent can't be stated: {target!r} isn't a table. Give a mapped class or a Table"
        )
    return table


def _name(table: Any) -> str:
    return table if isinstance(table, str) else _table(table).fullname
