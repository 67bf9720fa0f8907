"""Statements that create, compare and drop the functions of schema ``auth``."""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql.compiler import DDLCompiler

from sqla_rls.ddl.script import sql, sql_script


class CreateAuthFunctions(ExecutableDDLElement):
    """Creates the extension pg_session_jwt, or else the portable functions; *signed* ones verify callers."""

    def __init__(self, *, signed: bool = False) -> None:
        self.signed = signed


class ExpectedAuthFunctions(ExecutableDDLElement):
    """Creates the portable functions in pg_temp, for a comparison with those of schema ``auth``."""

    def __init__(self, *, signed: bool) -> None:
        self.signed = signed


class DropSigning(ExecutableDDLElement):
    """Drops the signing key; the functions of schema ``auth`` fail until CreateAuthFunctions runs."""


class DropAuthFunctions(ExecutableDDLElement):
    """Drops the objects of CreateAuthFunctions; *keep_signed* keeps functions that verify callers."""

    def __init__(self, *, keep_signed: bool = False) -> None:
        self.keep_signed = keep_signed


@compiles(CreateAuthFunctions, "postgresql")
def _create_auth_functions(create: CreateAuthFunctions, compiler: DDLCompiler, **kw: Any) -> str:
    return sql(sql_script(f"create{'_signed' * create.signed}_auth_functions.sql"), compiler)


@compiles(ExpectedAuthFunctions, "postgresql")
def _expected_auth_functions(expected: ExpectedAuthFunctions, compiler: DDLCompiler, **kw: Any) -> str:
    return sql(sql_script(f"expected_{'signed' if expected.signed else 'auth'}_functions.sql"), compiler)


@compiles(DropSigning, "postgresql")
def _drop_signing(drop: DropSigning, compiler: DDLCompiler, **kw: Any) -> str:
    return sql(sql_script("drop_signing.sql"), compiler)


@compiles(DropAuthFunctions, "postgresql")
def _drop_auth_functions(drop: DropAuthFunctions, compiler: DDLCompiler, **kw: Any) -> str:
    script = sql_script("drop_auth_functions.sql").replace("{keep_signed}", str(drop.keep_signed).lower())
    return sql(script, compiler)
