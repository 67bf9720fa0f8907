"""Calls and literals as source code."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import indent
from typing import Any

from sqla_rls.snapshot import (
    Role,
    TableKey,
)

INDENT = "    "


def table_name(table: TableKey) -> str:
    """As the key of a table in ``MetaData.tables``."""
    return f"{table.schema}.{table.name}" if table.schema else table.name


def role_call(role: Role) -> str:
    arguments = {
        "login": role.login,
        "inherit": role.inherit,
        "bypassrls": role.bypassrls,
        "member_of": list(map(str, role.member_of)) if role.member_of else None,
    }
    return f"Role({', '.join([repr(role.name), *keywords(arguments)])})"


def keywords(arguments: dict[str, Any]) -> list[str]:
    return [f"{name}={literal(value)}" for name, value in arguments.items() if value is not None]


def literal(value: Any) -> str:
    """As a literal, line by line."""
    lines = value.splitlines(keepends=True) if isinstance(value, str) else []
    if len(lines) < 2:
        return repr(value)
    listed = "\n".join(map(repr, lines))
    return f"(\n{indent(listed, INDENT)}\n)"


def in_docstring(value: object) -> str:
    """Return the repr of *value* as a part of a docstring, of which it is no end."""
    return repr(value).replace("\\", r"\\").replace('"', r"\"")


def comment(words: str) -> str:
    """Return *words* as one comment: a name may have line breaks, and characters that reorder the text."""
    return f"# {''.join(one if one.isprintable() else ' ' for one in words)}"


def call(function: str, *arguments: str) -> Iterator[str]:
    yield f"{function}("
    yield from (indent(f"{argument},", INDENT) for argument in arguments)
    yield ")"


HEAD = '''"""The row security of database {database}.

Call declare_row_security(Base.metadata) after all models are defined, and before Alembic's env.py uses the
MetaData.
"""

from sqlalchemy import MetaData

import sqla_rls
from sqla_rls import Policy, Role, declare_on, grant{more}
from sqla_rls.exc import DeclarationError


{run_first}def declare_row_security(metadata: MetaData) -> None:
'''


RUN_FIRST_HEAD = """#: SQL that models can't declare.  Run it first in the first migration:
#: for statement in RUN_FIRST: op.execute(text(statement.replace(":", r"\\:")))
"""


#: The module raises an error if the MetaData lacks its tables.
REQUIRE_TABLES = """tables = {tables}
if missing := sorted(set(tables) - metadata.tables.keys()):
    raise DeclarationError(
        f"declare_row_security() failed: the models lack these tables: {{', '.join(missing)}}. "
        "Add them to the models, or delete their declarations from this module"
    )"""
