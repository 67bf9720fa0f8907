"""How each statement is spelled.

Values come in, Postgres SQL goes out.  Nothing here reads a database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import resources
from typing import Any

from sqlalchemy import Column, ColumnElement, MetaData, String, Table, delete, literal_column
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import CompileError, DBAPIError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.compiler import DDLCompiler
from sqlalchemy.sql.elements import BindParameter, ColumnClause, UnaryExpression
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import Exists, ReturnsRows, Select

from sqla_rls.exc import (
    AuthSchemaUnusable,
    DeclarationError,
    PrivilegeNotPermitted,
    RoleNotPermitted,
    SigningUnavailable,
)
from sqla_rls.snapshot import (
    BROUGHT_ALONG,
    DEFAULT_SCHEMA,
    PUBLIC,
    ROLE_KEYWORDS,
    Policy,
    PolicyKey,
    TableKey,
)

_PINS = {
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "array_nulls": "on",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "lc_monetary": "C",
    "quote_all_identifiers": "off",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    "xmloption": "content",
}
#: Settings, local to the transaction, on which it depends how Postgres reads and spells an expression.  Names
#: are looked up in the schema of the tables and in those of extensions; elsewhere they need their schema.
PINNED = ",\n".join(
    [
        *(f"set_config('{name}', '{value}', true)" for name, value in _PINS.items()),
        """set_config('search_path', concat_ws(', ', quote_ident(current_schema()),
            (SELECT string_agg(DISTINCT quote_ident(n.nspname), ', ')
               FROM pg_catalog.pg_extension AS e
               JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace
              WHERE n.nspname <> 'pg_catalog'), 'pg_temp'), true)""",
    ]
)

#: Scripts that stand in others.
_PARTS = (
    "auth_functions",
    "auth_readers",
    "keyholder_borrowed",
    "made_auth_functions",
    "secret_dropped",
    "signed_functions",
)


# "%" stands for itself, as in a migration or a script; a driver's own escaping is added when it runs.
_NEUTRAL = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]
# Before 2.1, SQLAlchemy doubles backslashes until a connection has told that strings are standard.
_NEUTRAL._backslash_escapes = False


class _Literally(_NEUTRAL.statement_compiler):  # type: ignore[name-defined, misc]
    """For text that Postgres keeps.

    SQLAlchemy makes NULL, and a warning, of a parameter without a value.  Postgres expands the ``*`` of
    ``exists()``: a policy would depend on every column that the table has at that moment.
    *copied* says for each table which one to name instead; *reads* collects those in FROM.  *of_policy* says
    that the expression stands in a policy, where Postgres takes subqueries, and not in a column default.
    """

    def __init__(
        self,
        *args: Any,
        copied: Callable[[Table], Table] | None = None,
        reads: set[Table] | None = None,
        of_policy: bool = False,
        **kw: Any,
    ) -> None:
        # Before SQLAlchemy's own, which compiles at once.
        self.copied, self.reads, self.of_policy = copied, reads, of_policy
        super().__init__(*args, **kw)

    def visit_table(self, table: Any, *args: Any, **kw: Any) -> str:
        copy = self._copied(table)
        if self.reads is not None and not kw.get("iscrud"):
            self.reads.add(copy)
        named: str = super().visit_table(copy, *args, **kw)
        return named

    def visit_column(self, column: Any, *args: Any, **kw: Any) -> str:
        if isinstance(table := column.table, Table) and (copy := self._copied(table)) is not table:
            column = copy.c[column.key]
        named: str = super().visit_column(column, *args, **kw)
        return named

    def _copied(self, table: Any) -> Any:
        return self.copied(table) if self.copied and isinstance(table, Table) else table

    def visit_unary(self, unary: UnaryExpression[Any], *args: Any, **kw: Any) -> str:
        query = getattr(unary.element, "element", None)
        if unary.operator is operators.exists and isinstance(query, Select) and _selects_columns(query):
            unary = Exists(query.with_only_columns(literal_column("1"), maintain_column_froms=True))
        text: str = super().visit_unary(unary, *args, **kw)
        return text

    def render_literal_bindparam(self, bindparam: BindParameter[Any], *args: Any, **kw: Any) -> str:
        if bindparam.required and bindparam.callable is None:
            raise CompileError(f"its parameter :{bindparam.key} has no value, and nobody would give it one")
        literal: str = super().render_literal_bindparam(bindparam, *args, **kw)
        return literal


def _selects_columns(query: Select[Any]) -> bool:
    """Whether *query* has as many rows whatever it selects, unlike with an aggregate or a set."""
    return not query._distinct and all(
        isinstance(column, ColumnClause) and (column.name == "*" or not column.is_literal)
        for column in query._all_selected_columns
    )


_NEUTRAL.statement_compiler = _Literally


def literally(
    schema_translate_map: Mapping[str | None, str | None] | None,
    copied: Callable[[Table], Table] | None = None,
) -> dict[str, Any]:
    """How to compile what shall stand in a migration; schemas are named as *schema_translate_map* has it.

    *copied* returns the table to name instead of each.
    """
    options: dict[str, Any] = {"dialect": _NEUTRAL, "compile_kwargs": {"literal_binds": True}}
    if copied:
        options.update(copied=copied)
    if schema_translate_map:
        options.update(schema_translate_map=schema_translate_map, render_schema_translate=True)
    return options


def expression_text(
    expression: ColumnElement[bool],
    table: Table,
    schema_translate_map: Mapping[str | None, str | None] | None = None,
    copied: Callable[[Table], Table] | None = None,
    reads: set[Table] | None = None,
) -> str:
    """*expression* as SQL text, for a policy on *table*; schemas are named as *schema_translate_map* has it.

    *copied* is as in ``literally()``; the tables that subqueries read are added to *reads*.
    With a subquery it is compiled as the WHERE of a DELETE: only then does one over another table
    correlate with this one.  Raises DeclarationError for what can't stand in a policy.
    """
    options = literally(schema_translate_map, copied)
    statement, head = delete(table), ""
    try:
        if _names_only(table, expression):
            sql = str(expression.compile(**options, of_policy=True))
        else:
            head = f"{statement.compile(**options)} WHERE "
            sql = str(statement.where(expression).compile(**options, reads=reads))
    except CompileError as error:
        raise DeclarationError(
            f"an expression on {table.fullname} can't be written as SQL text: {error}"
        ) from error
    if sql.startswith("WITH "):
        raise DeclarationError(
            f"a CTE in an expression on {table.fullname} would stand before the statement, where a policy "
            "has no room: make it with .cte(nesting=True)"
        )
    if not sql.startswith(head):
        raise DeclarationError(
            f"an expression on {table.fullname} names another table outside a subquery, where a policy "
            "has no room for it: put it into exists() or a scalar_subquery()"
        )
    return sql.removeprefix(head)


def _names_only(table: Table, expression: ColumnElement[bool]) -> bool:
    """Whether there are columns of *table* in *expression*, but neither others nor subqueries."""
    return all(
        element.table is table
        if isinstance(element, Column)
        else isinstance(element, FunctionElement) or not isinstance(element, ReturnsRows)
        for element in visitors.iterate(expression)
    )


@contextmanager
def explained() -> Iterator[None]:
    """Turns what the server refuses into errors of this package, where it can say what to do."""
    try:
        yield
    except DBAPIError as error:
        sqlstate = getattr(error.orig, "sqlstate", None)
        message = str(error.orig).splitlines()[0]
        if sqlstate == "RLS03":
            raise DeclarationError(message) from error
        if sqlstate == "RLS01":
            raise AuthSchemaUnusable(message, message.partition("in this database: ")[2]) from error
        if sqlstate == "RLS04":
            raise RoleNotPermitted(message) from error
        if sqlstate == "RLS05":
            raise SigningUnavailable(message) from error
        if sqlstate == "RLS06":
            raise PrivilegeNotPermitted(message) from error
        raise


class CreatePolicy(ExecutableDDLElement):
    """Or nothing, with a notice, where an equal policy of that name exists."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy


class AlterPolicy(ExecutableDDLElement):
    """Sets what is given; ALTER POLICY can change neither command nor kind, nor take an expression away."""

    def __init__(
        self,
        key: PolicyKey,
        *,
        roles: Iterable[str] | None = None,
        using: str | None = None,
        with_check: str | None = None,
    ) -> None:
        self.key, self.roles, self.using, self.with_check = key, roles, using, with_check


class RenamePolicy(ExecutableDDLElement):
    def __init__(self, key: PolicyKey, new_name: str) -> None:
        self.key, self.new_name = key, new_name


class DropPolicy(ExecutableDDLElement):
    def __init__(self, key: PolicyKey, *, if_exists: bool = False) -> None:
        self.key, self.if_exists = key, if_exists


class AlterRowSecurity(ExecutableDDLElement):
    """*action* is ENABLE, DISABLE, FORCE or NO FORCE."""

    def __init__(self, table: TableKey, action: str) -> None:
        self.table, self.action = table, action


class LiftForce(ExecutableDDLElement):
    """NO FORCE where it is FORCE; with *restore*, FORCE again, where that was lifted."""

    def __init__(self, table: TableKey, *, restore: bool = False) -> None:
        self.table, self.restore = table, restore


class GrantOrRevoke(ExecutableDDLElement):
    """GRANT, or REVOKE, privileges on a table or columns of it, a sequence, a schema or a function.

    With *columns*, those on sequences are on the sequences of these columns of the table *object_name*.
    Without *object_name* it is on the schema that comes first in the search path when it runs.
    With *option*, GRANT lets the grantees pass them on, and REVOKE takes away what they passed on, too.
    """

    def __init__(
        self,
        privileges: Sequence[str],
        object_name: str | None,
        grantees: Sequence[str],
        *,
        columns: Sequence[str] | None = None,
        object_type: str = "TABLE",
        schema: str | None = None,
        option: bool = False,
        revoke: bool = False,
    ) -> None:
        self.privileges, self.object_name, self.grantees = privileges, object_name, grantees
        self.columns, self.object_type, self.schema = columns, object_type, schema
        self.option, self.revoke = option, revoke


class IfExists(ExecutableDDLElement):
    """Executes *statement*, or nothing, with a notice, where what it names doesn't exist."""

    def __init__(self, statement: ExecutableDDLElement) -> None:
        self.statement = statement


class IfRolesExist(ExecutableDDLElement):
    """Executes *statement*, or nothing, with a notice, where one of *roles* doesn't exist."""

    def __init__(self, statement: ExecutableDDLElement, roles: Iterable[str]) -> None:
        self.statement, self.roles = statement, sorted({*roles} - {PUBLIC} - ROLE_KEYWORDS)


class AlterDefaultPrivileges(ExecutableDDLElement):
    """Privileges on what the current role will make from now on.

    With DEFAULT_SCHEMA, in the schema that comes first in the search path when it runs.
    """

    def __init__(
        self,
        privileges: Sequence[str],
        object_type: str,
        grantees: Sequence[str],
        *,
        schema: str | None = None,
        revoke: bool = False,
    ) -> None:
        self.privileges, self.object_type, self.grantees = privileges, object_type, grantees
        self.schema, self.revoke = schema, revoke


class CreateAuthFunctions(ExecutableDDLElement):
    """The extension pg_session_jwt, or the portable functions, *signed* or as they are: see the SQL files."""

    def __init__(self, *, signed: bool = False) -> None:
        self.signed = signed


class ExpectedAuthFunctions(ExecutableDDLElement):
    """The portable functions in pg_temp, to compare those of schema ``auth`` with."""

    def __init__(self, *, signed: bool) -> None:
        self.signed = signed


class DropSigning(ExecutableDDLElement):
    """The functions that verify are left for CreateAuthFunctions to replace, and fail until then."""


class DropAuthFunctions(ExecutableDDLElement):
    """Undoes CreateAuthFunctions, where that made anything; *keep_signed*: unless they verify callers."""

    def __init__(self, *, keep_signed: bool = False) -> None:
        self.keep_signed = keep_signed


@compiles(CreatePolicy, "postgresql")
def _create_policy(create: CreatePolicy, compiler: DDLCompiler, **kw: Any) -> str:
    policy = create.policy
    parts = [f"CREATE POLICY {_policy(policy.key, compiler)}"]
    if not policy.permissive:
        parts.append("AS RESTRICTIVE")
    parts.append(f"FOR {policy.command}")
    parts.append(f"TO {_roles(policy.roles, compiler)}")
    expressions = _expressions(policy.using, policy.with_check, compiler)
    again = " ".join([f"ALTER POLICY {_policy(policy.key, compiler)}", *expressions])
    name = _policy(policy.key, compiler)
    words = {
        "table": dollar_quoted(qualified(policy.table, compiler)),
        "name": dollar_quoted(sql(policy.name, compiler)),
        "drop": dollar_quoted(f"DROP POLICY {name}"),
        "statement": dollar_quoted(
            _policy_made_twice(policy.key, " ".join(parts + expressions), again, compiler)
        ),
        "subject": dollar_quoted(_subject(policy.key, compiler)),
    }
    return filled_script(
        "create_policy.sql", compiler, tag=_tag("".join(words.values()), "sqla_rls"), **words
    )


@compiles(AlterPolicy, "postgresql")
def _alter_policy(alter: AlterPolicy, compiler: DDLCompiler, **kw: Any) -> str:
    parts = [f"ALTER POLICY {_policy(alter.key, compiler)}"]
    if alter.roles is not None:
        parts.append(f"TO {_roles(alter.roles, compiler)}")
    expressions = _expressions(alter.using, alter.with_check, compiler)
    statement = " ".join(parts + expressions)
    return _policy_made_twice(alter.key, statement, statement, compiler) if expressions else statement


@compiles(RenamePolicy, "postgresql")
def _rename_policy(rename: RenamePolicy, compiler: DDLCompiler, **kw: Any) -> str:
    new = compiler.preparer.quote(rename.new_name)
    words = {
        "table": dollar_quoted(qualified(rename.key.table, compiler)),
        "old": dollar_quoted(sql(rename.key.name, compiler)),
        "new": dollar_quoted(sql(rename.new_name, compiler)),
        "statement": dollar_quoted(f"ALTER POLICY {_policy(rename.key, compiler)} RENAME TO {new}"),
    }
    return filled_script(
        "rename_policy.sql", compiler, tag=_tag("".join(words.values()), "sqla_rls"), **words
    )


@compiles(DropPolicy, "postgresql")
def _drop_policy(drop: DropPolicy, compiler: DDLCompiler, **kw: Any) -> str:
    return f"DROP POLICY {'IF EXISTS ' if drop.if_exists else ''}{_policy(drop.key, compiler)}"


@compiles(AlterRowSecurity, "postgresql")
def _alter_row_security(alter: AlterRowSecurity, compiler: DDLCompiler, **kw: Any) -> str:
    return f"ALTER TABLE {qualified(alter.table, compiler)} {alter.action} ROW LEVEL SECURITY"


@compiles(LiftForce, "postgresql")
def _lift_force(lift: LiftForce, compiler: DDLCompiler, **kw: Any) -> str:
    table = qualified(lift.table, compiler)
    name = dollar_quoted(table)
    script = "restore_force.sql" if lift.restore else "lift_force.sql"
    return filled_script(script, compiler, tag=_tag(name, "sqla_rls"), table=table, name=name)


@compiles(GrantOrRevoke, "postgresql")
def _grant_or_revoke(grant: GrantOrRevoke, compiler: DDLCompiler, **kw: Any) -> str:
    if grant.object_type == "SCHEMA":
        return _on_schema(grant, compiler)
    if grant.object_name is None:
        raise DeclarationError(f"privileges on a {grant.object_type} need its name: give object_name")
    if grant.object_type == "FUNCTION":
        function, parenthesis, arguments = grant.object_name.partition("(")
        name = f"{qualified(TableKey(grant.schema, function), compiler)}{parenthesis}{arguments}"
    else:
        name = qualified(TableKey(grant.schema, grant.object_name), compiler)
    option = _option(grant)
    if grant.object_type == "SEQUENCE" and grant.columns:
        return _sequence_privileges(grant, name, option, compiler)
    return _privileges(grant, f"ON {grant.object_type} {name}", compiler) + option


def _option(grant: GrantOrRevoke) -> str:
    return f" {'CASCADE' if grant.revoke else 'WITH GRANT OPTION'}" if grant.option else ""


def _on_schema(grant: GrantOrRevoke, compiler: DDLCompiler) -> str:
    def array(values: Iterable[str]) -> str:
        return f"ARRAY[{', '.join(values)}]::text[]"

    literal = compiler.sql_compiler.render_literal_value
    head, tail = _privileges(grant, "ON SCHEMA <schema>", compiler).split("<schema>", 1)
    words = {
        "schema": "current_schema()" if grant.object_name is None else literal(grant.object_name, String()),
        "privileges": array(literal(one, String()) for one in grant.privileges),
        "head": dollar_quoted(head),
        "tail": dollar_quoted(f"{tail}{_option(grant)}"),
        "revoke": str(grant.revoke).lower(),
        "grantees": array(one if one in ROLE_KEYWORDS else literal(one, String()) for one in grant.grantees),
        # A role that comes with another needs what the policies of that one call.
        "bringing": array(
            literal(one, String()) for one, other in BROUGHT_ALONG.items() if other in grant.grantees
        ),
    }
    return filled_script("on_schema.sql", compiler, tag=_tag("".join(words.values()), "sqla_rls"), **words)


@compiles(IfExists, "postgresql")
def _if_exists(conditional: IfExists, compiler: DDLCompiler, **kw: Any) -> str:
    return _conditional("if_exists.sql", conditional.statement, compiler)


@compiles(IfRolesExist, "postgresql")
def _if_roles_exist(conditional: IfRolesExist, compiler: DDLCompiler, **kw: Any) -> str:
    literals = (compiler.sql_compiler.render_literal_value(one, String()) for one in conditional.roles)
    roles = f"ARRAY[{', '.join(literals)}]::text[]"
    return _conditional("if_roles_exist.sql", conditional.statement, compiler, roles=roles)


def _conditional(script: str, statement: ExecutableDDLElement, compiler: DDLCompiler, **words: str) -> str:
    words["statement"] = dollar_quoted(compiler.process(statement))
    return filled_script(script, compiler, tag=_tag("".join(words.values()), "sqla_rls"), **words)


def _sequence_privileges(grant: GrantOrRevoke, table: str, option: str, compiler: DDLCompiler) -> str:
    verb, preposition = ("REVOKE", "FROM") if grant.revoke else ("GRANT", "TO")
    columns = (compiler.sql_compiler.render_literal_value(one, String()) for one in grant.columns or ())
    words = {
        "table": dollar_quoted(table),
        "columns": f"ARRAY[{', '.join(columns)}]",
        "verb": dollar_quoted(f"{verb} {', '.join(grant.privileges)} ON SEQUENCE "),
        "roles": dollar_quoted(f" {preposition} {_roles(grant.grantees, compiler)}{option}"),
    }
    tag = _tag("".join(words.values()), "sqla_rls")
    return filled_script("sequence_privileges.sql", compiler, tag=tag, **words)


@compiles(AlterDefaultPrivileges, "postgresql")
def _alter_default_privileges(alter: AlterDefaultPrivileges, compiler: DDLCompiler, **kw: Any) -> str:
    privileges = _privileges(alter, f"ON {alter.object_type}", compiler)
    if alter.schema == DEFAULT_SCHEMA:
        head, tail = dollar_quoted("ALTER DEFAULT PRIVILEGES IN SCHEMA "), dollar_quoted(f" {privileges}")
        body = f"BEGIN EXECUTE {head} || quote_ident(current_schema()) || {tail}; END"
        tag = _tag(body, "sqla_rls")
        return f"DO {tag}{body}{tag}"
    schema = f" IN SCHEMA {compiler.preparer.quote_schema(alter.schema)}" if alter.schema else ""
    return f"ALTER DEFAULT PRIVILEGES{schema} {privileges}"


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


def qualified(key: TableKey, compiler: DDLCompiler) -> str:
    return compiler.preparer.format_table(Table(key.name, MetaData(), schema=key.schema))


def _policy(key: PolicyKey, compiler: DDLCompiler) -> str:
    return f"{compiler.preparer.quote(key.name)} ON {qualified(key.table, compiler)}"


def _roles(roles: Iterable[str], compiler: DDLCompiler) -> str:
    return ", ".join(
        role.upper() if role == PUBLIC or role in ROLE_KEYWORDS else compiler.preparer.quote(role)
        for role in sorted(roles)
    )


def _privileges(
    statement: GrantOrRevoke | AlterDefaultPrivileges, subject: str, compiler: DDLCompiler
) -> str:
    verb, preposition = ("REVOKE", "FROM") if statement.revoke else ("GRANT", "TO")
    columns = getattr(statement, "columns", None)
    of = f" ({', '.join(map(compiler.preparer.quote, columns))})" if columns else ""
    privileges = ", ".join(f"{privilege}{of}" for privilege in statement.privileges)
    return f"{verb} {privileges} {subject} {preposition} {_roles(statement.grantees, compiler)}"


def _subject(key: PolicyKey, compiler: DDLCompiler) -> str:
    """What an error calls it."""
    return f"policy {sql(key.name, compiler)} on {qualified(key.table, compiler)}"


def _policy_made_twice(key: PolicyKey, statement: str, again: str, compiler: DDLCompiler) -> str:
    table = qualified(key.table, compiler)
    name = compiler.sql_compiler.render_literal_value(key.name, String())
    return made_twice(
        statement,
        again,
        subject=_subject(key, compiler),
        stored="SELECT concat(pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))"  # noqa: S608
        f" FROM pg_catalog.pg_policy WHERE polrelid = {dollar_quoted(table)}::regclass AND polname = {name}",
        compiler=compiler,
    )


def made_twice(statement: str, again: str, *, subject: str, stored: str, compiler: DDLCompiler) -> str:
    """*statement*, such that it depends neither on the session's settings nor on the time: see the script.

    *stored* is the query for what was made, and *subject* what an error calls it.
    """
    words = {
        "names": dollar_quoted(f"{{{','.join((*_PINS, 'search_path'))}}}"),
        "statement": dollar_quoted(statement),
        "again": dollar_quoted(again),
        "stored": dollar_quoted(stored),
        "subject": dollar_quoted(subject),
        "pins": sql(PINNED, compiler),
    }
    tag = _tag("".join(words.values()), "sqla_rls")
    return filled_script("policy.sql", compiler, tag=tag, **words)


def dollar_quoted(text: str) -> str:
    tag = _tag(text, "sql")
    return f"{tag}{text}{tag}"


def _tag(text: str, name: str) -> str:
    """A dollar quote that isn't in *text*."""
    while f"${name}$" in text:
        name += "_"
    return f"${name}$"


def _expressions(using: str | None, with_check: str | None, compiler: DDLCompiler) -> list[str]:
    # The line break ends a comment that the expression may end with.
    return [
        f"{clause} ({sql(expression, compiler)}{chr(10) if '--' in expression else ''})"
        for clause, expression in (("USING", using), ("WITH CHECK", with_check))
        if expression is not None
    ]


def sql(text: str, compiler: DDLCompiler) -> str:
    """*text* as it must be handed to the driver: some take a lone ``%`` for a parameter."""
    return compiler.sql_compiler.process(literal_column(text))


def filled_script(script: str, compiler: DDLCompiler, /, **words: str) -> str:
    """A script of sql/ with *words* in it, which are SQL already."""
    return sql(sql_script(script), compiler).format(**words)


@cache
def sql_script(name: str) -> str:
    """A script of sql/, with the others that stand in it."""
    text = (resources.files("sqla_rls.ddl") / "sql" / name).read_text(encoding="utf-8")
    for part in _PARTS:
        if f"{{{part}}}" in text:
            text = text.replace(f"{{{part}}}", sql_script(f"{part}.sql").rstrip())
    return text
