"""Why a caller may, or may not, read or write a row.

The owner of the table fetches the row.  Then the caller's own role evaluates each policy on it, as a row of
no table.  In this way, the policies of other tables apply inside, as they do for the caller.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, get_args

from sqlalchemy import Connection

from sqla_rls.analyze.why.acting import require_known_caller
from sqla_rls.analyze.why.constraints import OnConflict
from sqla_rls.analyze.why.explanation import Command, Explanation
from sqla_rls.analyze.why.question import Question, require_writable
from sqla_rls.analyze.why.rows import Rows
from sqla_rls.analyze.why.target import Target, resolve
from sqla_rls.analyze.why.trust import Untrusted
from sqla_rls.exc import AnalysisError
from sqla_rls.tokens.caller import Caller
from sqla_rls.tokens.signing import SigningKey


def explain_access(
    connection: Connection,
    caller: Caller,
    target: Any,
    command: Command = "SELECT",
    *,
    key: Any = None,
    row: Mapping[str, Any] | None = None,
    returning: bool = True,
    on_conflict: OnConflict | Literal["nothing", "update"] | None = None,
    signing_key: SigningKey | None = None,
) -> Explanation:
    """Explain whether *caller* may run *command* on one row.

    Nothing is written: the policies see rows of no table, in a transaction that is read only and rolled
    back.  Under asyncio, ``await connection.run_sync(explain_access, caller, …)``.

    Args:
        connection: a connection of the table's owner, or of a role that row security doesn't hold for.  It
            must be a member of the caller's role.
        caller: the caller.  Only the role counts for a caller without claims.
        target: an instance, a mapped class, a ``Table``, or the name of a table.
        command: "SELECT", "INSERT", "UPDATE" or "DELETE".
        key: the primary key of the row, if the target isn't an instance: a value, a sequence of values, or
            a mapping of columns.
        row: the new values by their columns: the row of INSERT, the changed columns of UPDATE.
        returning: INSERT reads its row back, as the ORM does.
        on_conflict: the ON CONFLICT clause of INSERT; "nothing" is ``OnConflict("nothing")``.
        signing_key: the key, where the database verifies callers.

    Raises:
        AnalysisError: the table doesn't exist or is a view, or the connection doesn't see all of its rows.
            Or the effect of a foreign key on rows that refer to the row isn't known.
        BindingError: the connection's role isn't a member of the caller's role.

    Emits:
        SELECT statements over the catalog and the table, ``set_config(…, true)`` for the caller, and one
        SELECT for each policy, in a savepoint.
    """
    if command not in get_args(Command):
        raise AnalysisError(f"command={command!r} can't be explained: give one of {get_args(Command)}")
    if on_conflict is not None and command != "INSERT":
        raise AnalysisError(
            f"on_conflict={on_conflict!r} can't be explained: {command} has no such clause. Leave it out, or "
            "give command='INSERT'"
        )
    name, found_key, found_row = resolve(connection, target, inserts=command == "INSERT")
    key, row = found_key if key is None else key, {**found_row, **(row or {})}
    with _read_only(connection):
        table = Target.read(connection, name)
        _require_trust(connection, table)
        require_writable(table, row)
        source = Rows(connection, table, caller, signing_key)
        require_known_caller(connection, caller, signing_key)
        return Question(
            source=source,
            command=command,
            row=row,
            returning=returning,
            on_conflict=OnConflict(on_conflict) if isinstance(on_conflict, str) else on_conflict,
        ).answer(key)


def explain_role(
    connection: Connection, caller: Caller, target: Any, command: Command, *, returning: bool = False
) -> str:
    """Explain which right the role of *caller* lacks for *command*, where the row is unknown.

    Args:
        connection: as for ``explain_access()``.
        caller: the caller, of whom only the role counts.
        target: a mapped class, a ``Table``, or the name of a table.
        command: "SELECT", "INSERT", "UPDATE" or "DELETE".
        returning: INSERT reads its row back.

    Raises:
        AnalysisError: as for ``explain_access()``.
    """
    name, _, _ = resolve(connection, target, inserts=False)
    with _read_only(connection):
        table = Target.read(connection, name)
        _require_trust(connection, table)
        source = Rows(connection, table, caller, None)
        return Question(
            source=source, command=command, row={}, returning=returning, on_conflict=None
        ).without_row()


def _require_trust(connection: Connection, table: Target) -> None:
    """Raise AnalysisError if the policies of *table* may be a trap for the connection's role."""
    # The catalog is read as a whole only where some code isn't trusted.
    if (untrusted := Untrusted.read(connection)).any_obstacle is None:
        return
    from sqla_rls.analyze.worlds.schema import Schema

    schema = Schema.read(connection)
    reason = untrusted.obstacle(schema.reads(table.name), schema.calls(table.name))
    if reason is not None:
        raise AnalysisError(
            f"table {table.name} can't be explained: {reason}. Connect as the owner of the table"
        )


@contextmanager
def _read_only(connection: Connection) -> Iterator[None]:
    with connection.begin_nested() if connection.in_transaction() else connection.begin() as transaction:
        connection.exec_driver_sql("SET LOCAL transaction_read_only = on")
        yield
        transaction.rollback()
