"""The tables and functions that expressions read and call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from sqlalchemy import ColumnClause, ColumnElement, MetaData, Table, TextClause
from sqlalchemy.sql import visitors

from sqla_rls.declare.auth import AuthFunction
from sqla_rls.declare.expressions import auth_uid
from sqla_rls.declare.views import declared_views
from sqla_rls.snapshot import (
    AUTH_SCHEMA,
    may_read,
)


def may_call_auth(*expressions: Iterable[Any]) -> bool:
    """Return whether *expressions* call a function of schema ``auth``; a call in SQL text may be one."""
    return any(
        "(" in expression
        if isinstance(expression, str)
        else isinstance(expression, visitors.ExternallyTraversible)
        and any(map(_calls_auth_itself, visitors.iterate(expression)))
        for expression in chain(*expressions)
    )


def names_auth(default: Any) -> bool:
    """Return whether a column default may name schema ``auth``; other calls in SQL text don't count.

    Each table has such calls, ``now()`` for example, also in models without a declaration.
    """
    if not isinstance(default, visitors.ExternallyTraversible):
        return False
    # U&"\0061uth" is a spelling of the name, too.
    return any(
        isinstance(element, AuthFunction | auth_uid)
        or AUTH_SCHEMA in (text := _text_of(element).lower())
        or 'u&"' in text
        for element in visitors.iterate(default)
    )


def _calls_auth_itself(element: object) -> bool:
    return isinstance(element, AuthFunction | auth_uid) or "(" in _text_of(element)


def may_read_tables(expression: ColumnElement[bool]) -> bool:
    """Return whether SQL text in *expression* may read tables; only Postgres knows."""
    return any(may_read(_text_of(element)) for element in visitors.iterate(expression))


def _text_of(element: object) -> str:
    """Return the SQL text that *element* is; empty for another element."""
    if isinstance(element, TextClause):
        return element.text
    return element.name if isinstance(element, ColumnClause) and element.is_literal else ""


def behind_views(tables: Iterable[Table], metadatas: Iterable[MetaData]) -> Iterator[Table]:
    """Yield *tables*, with the tables of a view in place of the view.

    The tables that a view reads as its owner are left out: the policies of the owner hold there.
    """
    views = {view.table: view for view in declared_views(metadatas)}
    found = list(tables)
    for table in found:  # the list grows
        if (view := views.get(table)) is None:
            yield table
        elif view.security_invoker:
            found += [one for one in view.reads() if one not in found]
