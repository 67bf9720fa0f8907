"""Statements for comments on policies, views and functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql.compiler import DDLCompiler

from sqla_rls.ddl.conditional import IfExists
from sqla_rls.ddl.script import dollar_quoted, qualified, sql
from sqla_rls.snapshot import PolicyKey, TableKey


class Comment(ExecutableDDLElement):
    """Comments on a FUNCTION or VIEW *key*, or on a POLICY or COLUMN *name* of the table or view *key*."""

    def __init__(self, object_type: str, key: TableKey, comment: str, *, name: str = "") -> None:
        self.object_type, self.key, self.comment, self.name = object_type, key, comment, name


def policy_comment(key: PolicyKey, comment: str | None) -> Iterator[ExecutableDDLElement]:
    if comment is not None:
        yield Comment("POLICY", key.table, comment, name=key.name)


def function_comment(key: TableKey, comment: str | None) -> Iterator[ExecutableDDLElement]:
    if comment is not None:
        yield Comment("FUNCTION", key, comment)


def view_comments(
    key: TableKey, comment: str | None, columns: Mapping[str, str] | None
) -> Iterator[ExecutableDDLElement]:
    """Yield the comments; one on a missing column does nothing, with a notice."""
    if comment is not None:
        yield Comment("VIEW", key, comment)
    for name, text in (columns or {}).items():
        yield IfExists(Comment("COLUMN", key, text, name=name))


@compiles(Comment, "postgresql")
def _comment(comment: Comment, compiler: DDLCompiler, **kw: Any) -> str:
    on, name = qualified(comment.key, compiler), compiler.preparer.quote(comment.name or "_")
    subject = {"POLICY": f"{name} ON {on}", "COLUMN": f"{on}.{name}"}.get(comment.object_type, on)
    return f"COMMENT ON {comment.object_type} {subject} IS {dollar_quoted(sql(comment.comment, compiler))}"
