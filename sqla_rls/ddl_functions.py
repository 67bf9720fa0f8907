"""How statements about functions are spelled."""

from __future__ import annotations

from typing import Any

from sqlalchemy import String
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql.compiler import DDLCompiler

from sqla_rls.ddl import dollar_quoted, filled_script, qualified, sql
from sqla_rls.objects import SQLFunction, TableKey

#: A setting whose value is a list of names, as Postgres keeps it; others are literals.
_SEARCH_PATH = "search_path"


class CreateFunction(ExecutableDDLElement):
    """Or replaces it.  A new one is marked, so that it can be told from what others made."""

    def __init__(self, function: SQLFunction) -> None:
        self.function = function


class CreateTemporaryFunctions(ExecutableDDLElement):
    """The functions in pg_temp, with bodies unchecked: for Postgres to spell them."""

    def __init__(self, *functions: SQLFunction) -> None:
        self.functions = functions


class DropFunction(ExecutableDDLElement):
    def __init__(self, key: TableKey, *, if_exists: bool = False) -> None:
        self.key, self.if_exists = key, if_exists


@compiles(CreateFunction, "postgresql")
def _create_function(create: CreateFunction, compiler: DDLCompiler, **kw: Any) -> str:
    name = qualified(create.function.key, compiler)
    return filled_script(
        "create_function.sql",
        compiler,
        function=name,
        name=compiler.sql_compiler.render_literal_value(name, String()),
        statement=dollar_quoted(_statement(create.function, name, compiler)),
    )


@compiles(CreateTemporaryFunctions, "postgresql")
def _create_temporary(create: CreateTemporaryFunctions, compiler: DDLCompiler, **kw: Any) -> str:
    statements = [
        _statement(one, qualified(TableKey("pg_temp", one.name), compiler), compiler)
        for one in create.functions
    ]
    body = "".join(f"EXECUTE {dollar_quoted(statement)};\n" for statement in statements)
    return f"DO {dollar_quoted(f'BEGIN SET LOCAL check_function_bodies = off; {body} END')}"


@compiles(DropFunction, "postgresql")
def _drop_function(drop: DropFunction, compiler: DDLCompiler, **kw: Any) -> str:
    return f"DROP FUNCTION {'IF EXISTS ' if drop.if_exists else ''}{qualified(drop.key, compiler)}"


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
        options.append(f"SET {key} = {sql(value, compiler) if key == _SEARCH_PATH else literal}")
    return " ".join([*options, f"AS {dollar_quoted(sql(function.body, compiler))}"])
