"""Statements for functions."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import String
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql.compiler import DDLCompiler

from sqla_rls.ddl.script import dollar_quoted, filled_script, qualified, sql
from sqla_rls.snapshot import CURRENT_SCHEMA, SQLFunction, TableKey

#: The setting whose value is a list of names; the values of others are literals.
_SEARCH_PATH = "search_path"
_IF_POSSIBLE = """\
  REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC;
EXCEPTION WHEN OTHERS THEN
  NULL;
"""
_IS_NOT_THERE = "undefined_object OR undefined_table OR undefined_column OR invalid_schema_name"
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


class CreateFunction(ExecutableDDLElement):
    """Creates or replaces a function.

    Args:
        function: the function.
        if_possible: do nothing if Postgres refuses it; otherwise revoke EXECUTE from PUBLIC.
        check_body: whether Postgres checks the body.  False accepts a body that reads missing tables.
    """

    def __init__(self, function: SQLFunction, *, if_possible: bool = False, check_body: bool = True) -> None:
        self.function, self.if_possible, self.check_body = function, if_possible, check_body


class CheckFunction(ExecutableDDLElement):
    """Checks the body of a function that was created without a check."""

    def __init__(self, key: TableKey) -> None:
        self.key = key


class CreateTemporaryFunctions(ExecutableDDLElement):
    """Creates functions in pg_temp without checks of their bodies, to read how Postgres spells them.

    The statement skips a function whose arguments or result name a missing type.
    """

    def __init__(self, *functions: SQLFunction) -> None:
        self.functions = functions

    @staticmethod
    def name(place: int) -> str:
        """Return a unique name for the function at *place*: functions of two schemas may share a name."""
        return f"sqla_rls_{place}"


class DropFunction(ExecutableDDLElement):
    """Drops a function; *if_possible* does nothing if an object depends on it."""

    def __init__(self, key: TableKey, *, if_exists: bool = False, if_possible: bool = False) -> None:
        self.key, self.if_exists, self.if_possible = key, if_exists, if_possible


class HideFunction(ExecutableDDLElement):
    """Renames a function, for a test."""

    def __init__(self, key: TableKey) -> None:
        self.key = key


@compiles(CreateFunction, "postgresql")
def _create_function(create: CreateFunction, compiler: DDLCompiler, **kw: Any) -> str:
    name = qualified(create.function.key, compiler)
    statement = _statement(create.function, name, compiler)
    return filled_script(
        "create_function.sql",
        compiler,
        statement,
        name=compiler.sql_compiler.render_literal_value(create.function.name, String()),
        statement=_in_current_schema(statement),
        check_body="on" if create.check_body else "off",
        if_possible=_IF_POSSIBLE.format(function=name) if create.if_possible else "",
    )


@compiles(CheckFunction, "postgresql")
def _check_function(check: CheckFunction, compiler: DDLCompiler, **kw: Any) -> str:
    name = compiler.sql_compiler.render_literal_value(qualified(check.key, compiler), String())
    plain = f"CREATE OR REPLACE FUNCTION {qualified(check.key, compiler)}, as it is, to check its body"
    return filled_script("check_function.sql", compiler, plain, name=name)


@compiles(CreateTemporaryFunctions, "postgresql")
def _create_temporary(create: CreateTemporaryFunctions, compiler: DDLCompiler, **kw: Any) -> str:
    statements = [
        _statement(one, f"pg_temp.{CreateTemporaryFunctions.name(place)}", compiler)
        for place, one in enumerate(create.functions)
    ]
    body = "".join(
        f"BEGIN EXECUTE {_in_current_schema(statement)}; EXCEPTION WHEN {_IS_NOT_THERE} THEN NULL; END;\n"
        for statement in statements
    )
    return f"DO {dollar_quoted(f'BEGIN SET LOCAL check_function_bodies = off; {body} END')}"


@compiles(DropFunction, "postgresql")
def _drop_function(drop: DropFunction, compiler: DDLCompiler, **kw: Any) -> str:
    statement = f"DROP FUNCTION {'IF EXISTS ' if drop.if_exists else ''}{qualified(drop.key, compiler)}"
    if drop.if_possible:
        body = f"BEGIN {statement}; EXCEPTION WHEN dependent_objects_still_exist THEN NULL; END"
        return f"DO {dollar_quoted(body)}"
    return statement


@compiles(HideFunction, "postgresql")
def _hide_function(hide: HideFunction, compiler: DDLCompiler, **kw: Any) -> str:
    return f"ALTER FUNCTION {qualified(hide.key, compiler)} RENAME TO sqla_rls_hidden"


def _statement(function: SQLFunction, name: str, compiler: DDLCompiler) -> str:
    options = [
        f"CREATE OR REPLACE FUNCTION {name}({sql(function.arguments, compiler)})",
        f"RETURNS {sql(function.returns, compiler)}",
        f"LANGUAGE {compiler.preparer.quote(function.language)} {function.volatility}",
        f"PARALLEL {function.parallel}",
    ]
    options += ["STRICT"] * function.strict + ["LEAKPROOF"] * function.leakproof
    options += ["SECURITY DEFINER"] * function.security_definer
    for setting in function.settings:
        key, _, value = setting.partition("=")
        literal = compiler.sql_compiler.render_literal_value(value, String())
        options.append(f"SET {key} = {sql(_schemas(value), compiler) if key == _SEARCH_PATH else literal}")
    return " ".join([*options, f"AS {dollar_quoted(sql(function.body, compiler))}"])


def _in_current_schema(statement: str) -> str:
    """Return SQL for the text of *statement*, with the current schema in place of CURRENT_SCHEMA."""
    quoted = dollar_quoted(statement)
    if CURRENT_SCHEMA not in statement:
        return quoted
    name = "pg_catalog.quote_ident(pg_catalog.current_schema())"
    return f"pg_catalog.replace({quoted}, '{CURRENT_SCHEMA}', {name})"


def _schemas(search_path: str) -> str:
    """Return *search_path* for a statement: Postgres stores an empty name as ``""``, but reads ``''``."""
    return _QUOTED.sub(lambda found: "''" if found[0] == '""' else found[0], search_path)
