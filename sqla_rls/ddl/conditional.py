"""Statements that do nothing, with a notice, if an object or a role is missing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import String
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql.compiler import DDLCompiler

from sqla_rls.ddl.script import dollar_quoted, dollar_tag, filled_script, without_comment
from sqla_rls.snapshot import PUBLIC, ROLE_KEYWORDS


class IfExists(ExecutableDDLElement):
    """Executes *statement*; if its object is missing, it does nothing, with a notice."""

    def __init__(self, statement: ExecutableDDLElement) -> None:
        self.statement = statement


class IfRolesExist(ExecutableDDLElement):
    """Executes *statement*; if one of *roles* is missing, it does nothing, with a notice."""

    def __init__(self, statement: ExecutableDDLElement, roles: Iterable[str]) -> None:
        self.statement, self.roles = statement, sorted({*roles} - {PUBLIC} - ROLE_KEYWORDS)


@compiles(IfExists, "postgresql")
def _if_exists(conditional: IfExists, compiler: DDLCompiler, **kw: Any) -> str:
    return _conditional("if_exists.sql", conditional.statement, compiler)


@compiles(IfRolesExist, "postgresql")
def _if_roles_exist(conditional: IfRolesExist, compiler: DDLCompiler, **kw: Any) -> str:
    literals = (compiler.sql_compiler.render_literal_value(one, String()) for one in conditional.roles)
    roles = f"ARRAY[{', '.join(literals)}]::text[]"
    return _conditional("if_roles_exist.sql", conditional.statement, compiler, roles=roles)


def _conditional(script: str, statement: ExecutableDDLElement, compiler: DDLCompiler, **words: str) -> str:
    text = compiler.process(statement)
    body = without_comment(text)
    # A script has its plain statement as a comment already.
    plain = "\n".join(line.removeprefix("-- ") for line in text.removesuffix(body).split("\n"))
    words["statement"] = dollar_quoted(body)
    return filled_script(
        script, compiler, plain or text, tag=dollar_tag("".join(words.values()), "sqla_rls"), **words
    )
