"""Changes of functions as operations."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from sqlalchemy import Connection, func, select

from sqla_rls.alembic.autogenerate.privileges import privileges_to_restore, restored_grants
from sqla_rls.alembic.autogenerate.render import Call
from sqla_rls.catalog.read import DatabaseSnapshot
from sqla_rls.diff.functions import FunctionChange
from sqla_rls.log import autogenerate_log
from sqla_rls.snapshot import CURRENT_SCHEMA, ObjectKey, Privilege, SQLFunction, TableKey

log = autogenerate_log(__name__)


def dropped_functions(
    changes: Iterable[FunctionChange], live: DatabaseSnapshot, unchecked: Collection[TableKey] = ()
) -> Iterator[Call]:
    """Yield the drops of functions, with the privileges that the downgrade restores."""
    for change in changes:
        if change.before is None or change.replaces:
            continue
        yield from privileges_to_restore(live, [ObjectKey("FUNCTION", *change.before.key)])
        yield _create(change.before, check_body=change.key not in unchecked).undo


def created_functions(
    changes: Iterable[FunctionChange],
    left_alone: Collection[Privilege],
    unchecked: Collection[TableKey] = (),
    late: Collection[TableKey] = (),
) -> Iterator[Call]:
    """Yield the new, changed and recreated functions, with the privileges of ignored roles, *left_alone*.

    The downgrade restores those in *late* elsewhere.
    """
    for change in changes:
        if change.after is None:
            continue
        call = _create(change.after, check_body=change.key not in unchecked)
        if change.replaces and change.before is not None:
            call.undone_by(_create(change.before))
            call.undo.implicit = change.key in late
        yield call
        if not change.replaces:
            yield from restored_grants(left_alone, ObjectKey("FUNCTION", *change.after.key))


def restored_functions(changes: Iterable[FunctionChange], late: Collection[TableKey]) -> Iterator[Call]:
    """Yield calls that do nothing in the upgrade, and restore the replaced functions in *late*."""
    for change in changes:
        if change.key in late and change.before is not None and change.after is not None:
            nothing = _create(change.after)
            nothing.implicit = True
            yield nothing.undone_by(_create(change.before))


def reading(changes: Iterable[FunctionChange], names: Collection[str]) -> set[TableKey]:
    """Return the replaced functions whose former bodies name one of *names*: changed columns, lost objects.

    Postgres refuses such a body before the downgrade has restored these.
    """
    return {
        change.key
        for change in changes
        if change.before is not None and change.replaces and any(name in change.before.body for name in names)
    }


def checked_functions(changes: Iterable[FunctionChange], *, dropped: bool) -> Iterator[Call]:
    """Yield checks of bodies after the tables exist; with *dropped*, for the downgrade."""
    for change in changes:
        if (change.after is None) is dropped:
            check, nothing = (
                Call("check_rls_function", change.key.name, schema=change.key.schema, implicit=implicit)
                for implicit in (False, True)
            )
            yield check.undone_by(nothing) if not dropped else nothing.undone_by(check)


def for_any_schema(
    changes: Iterable[FunctionChange], written: Mapping[TableKey, str | None], connection: Connection
) -> Iterator[FunctionChange]:
    """Yield *changes* whose downgrade restores each function in the schema of its own tenant.

    The body in the database names the schema of one tenant.  The downgrade may run in the schema of another.
    A body that no revision has as a literal, or that a person has changed, gets CURRENT_SCHEMA in its place.

    Args:
        changes: the changes.
        written: the bodies of the functions in the revisions.
        connection: the connection.
    """
    schema = ""
    for change in changes:
        body = written.get(change.key)
        if change.before is None or not _is_for_any_schema(change, written):
            yield change
            continue
        schema = schema or str(connection.scalar(select(func.quote_ident(func.current_schema()))))
        if body is None or body.replace(CURRENT_SCHEMA, schema) != change.before.body:
            body = body_for_any_schema(change.before.body, schema)
        yield change._replace(before=replace(change.before, body=body))


def body_for_any_schema(body: str, schema: str) -> str:
    """Return *body* with CURRENT_SCHEMA for each word that is *schema*, as ``quote_ident()`` has it.

    A word that isn't the name of the schema becomes that of the other tenant's, and so an error there.  It
    never names this tenant's.
    """
    word = re.escape(schema)
    if not schema.startswith('"'):
        # Postgres folds a name to lower case, except between quotes.
        word = rf'(?:(?<="){word}|(?<!")(?i:{word}))'
    return re.sub(rf"(?<![\w$]){word}(?![\w$])", CURRENT_SCHEMA, body)


def _is_for_any_schema(change: FunctionChange, written: Mapping[TableKey, str | None]) -> bool:
    """Return whether the function is of the default schema, and its body may name that of the database."""
    if change.key.schema is not None:
        return False
    if change.key in written and written[change.key] is None:
        return True
    bodies = (written.get(change.key), change.after.body if change.after else None)
    return any(CURRENT_SCHEMA in body for body in bodies if body is not None)


def log_functions(changes: Iterable[FunctionChange]) -> None:
    for change in changes:
        verb = "changed" if change.before and change.after else "added" if change.after else "removed"
        log.info("Detected %s function %r", verb, change.key.name)


def _create(function: SQLFunction, *, check_body: bool = True) -> Call:
    return Call(
        "create_rls_function",
        function.name,
        arguments=function.arguments or None,
        returns=function.returns,
        language=None if function.language == "sql" else function.language,
        volatility=None if function.volatility == "VOLATILE" else function.volatility,
        parallel=None if function.parallel == "UNSAFE" else function.parallel,
        strict=function.strict or None,
        leakproof=function.leakproof or None,
        security_definer=function.security_definer or None,
        settings=list(function.settings) or None,
        body=function.body,
        check_body=None if check_body else False,
        comment=function.comment,
        schema=function.schema,
    ).undone_by(Call("drop_rls_function", function.name, schema=function.schema))
