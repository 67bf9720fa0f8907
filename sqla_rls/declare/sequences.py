"""The sequences that the columns of a table own, and those that their defaults call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from sqlalchemy import ClauseElement, Sequence, Table
from sqlalchemy.exc import CompileError
from sqlalchemy.sql import visitors
from sqlalchemy.sql.functions import next_value

from sqla_rls.ddl.compile import literally
from sqla_rls.snapshot import (
    CalledSequence,
    SequenceKey,
    TableKey,
)


def serial_sequences(table: Table, key: TableKey) -> Iterator[tuple[SequenceKey, bool]]:
    """Yield the sequences that columns of *table* own, and whether the column is an identity column."""
    autoincrement = table.autoincrement_column
    for column in table.columns:
        default: Any = column.default
        is_made_by_default = default is not None and not (isinstance(default, Sequence) and default.optional)
        # SQLAlchemy writes SERIAL, even if a reflected column has a default.
        if column.identity or (column is autoincrement and not is_made_by_default):
            yield SequenceKey(*key, column.name), column.identity is not None


def called_sequences(table: Table, key: TableKey, default_schema: str | None) -> Iterator[CalledSequence]:
    """Yield the sequences that server defaults and SQLAlchemy's defaults call."""
    for column in table.columns:
        default: Any = column.default
        if default is None and column.server_default is None:
            continue
        if isinstance(default, Sequence):
            found = [] if default.optional else [default]
        else:
            expressions = [getattr(one, "arg", None) for one in (default, column.server_default)]
            found = [
                element.sequence
                for expression in expressions
                if isinstance(expression, visitors.ExternallyTraversible)
                for element in visitors.iterate(expression)
                if isinstance(element, next_value)
            ]
        for one in found:
            yield CalledSequence(key, SequenceKey(*TableKey.of(one.schema, one.name, default_schema)))
        server_default: Any = getattr(column.server_default, "arg", None)
        if not found and isinstance(server_default, ClauseElement):
            # Alembic and create_all() fail on a default that can't be written.
            with suppress(CompileError):
                default_text = str(server_default.compile(**literally(None)))
                # Postgres finds the sequence later; a text without the word calls none.
                if "nextval" in default_text.lower():
                    yield CalledSequence(key, SequenceKey(*key, column.name), default_text)
