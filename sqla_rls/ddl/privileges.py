"""Statements that grant and revoke privileges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import String
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql.compiler import DDLCompiler

from sqla_rls.ddl.script import dollar_quoted, dollar_tag, filled_script, qualified, role_list
from sqla_rls.exc import (
    DeclarationError,
)
from sqla_rls.snapshot import (
    BROUGHT_ALONG,
    COMMAND_PRIVILEGES,
    DEFAULT_SCHEMA,
    ROLE_KEYWORDS,
    ObjectKey,
    Privilege,
    TableKey,
)


class GrantOrRevoke(ExecutableDDLElement):
    """Grants or revokes privileges on a table or its columns, a sequence, a schema or a function.

    Args:
        privileges: the privileges.
        object_name: the object.  For a schema, None is the first one in the search path at run time.
        grantees: the roles.
        columns: the columns.  For SEQUENCE, those of table *object_name* that own the sequences.
        object_type: TABLE, SEQUENCE, SCHEMA or FUNCTION.
        schema: the schema of the object.
        option: GRANT has WITH GRANT OPTION, and REVOKE has CASCADE.
        revoke: REVOKE instead of GRANT.
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


class RevokeOfGrantors(ExecutableDDLElement):
    """Executes *revoke* for the privileges that roles *grantors* have granted.

    REVOKE itself reaches only the privileges that the owner has granted.  This statement needs the privileges
    of the owner.  The owner grants again what the script takes away from other roles.
    """

    def __init__(self, revoke: GrantOrRevoke, grantors: Sequence[str]) -> None:
        self.revoke, self.grantors = revoke, grantors


class AlterDefaultPrivileges(ExecutableDDLElement):
    """Grants or revokes default privileges of the current role.

    DEFAULT_SCHEMA stands for the first schema in the search path at run time.
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


@compiles(GrantOrRevoke, "postgresql")
def _grant_or_revoke(grant: GrantOrRevoke, compiler: DDLCompiler, **kw: Any) -> str:
    if grant.object_type == "SCHEMA":
        return _on_schema(grant, compiler)
    name = _qualified(grant, compiler)
    option = _option(grant)
    if grant.object_type == "SEQUENCE" and grant.columns:
        return _sequence_privileges(grant, name, option, compiler)
    return privilege_text(grant, f"ON {grant.object_type} {name}", compiler) + option


def _qualified(grant: GrantOrRevoke, compiler: DDLCompiler) -> str:
    if grant.object_name is None:
        raise DeclarationError(
            f"the privileges can't be changed: a {grant.object_type} needs a name. Give object_name"
        )
    if grant.object_type == "FUNCTION":
        function, parenthesis, arguments = grant.object_name.partition("(")
        return f"{qualified(TableKey(grant.schema, function), compiler)}{parenthesis}{arguments}"
    return qualified(TableKey(grant.schema, grant.object_name), compiler)


@compiles(RevokeOfGrantors, "postgresql")
def _revoke_of_grantors(statement: RevokeOfGrantors, compiler: DDLCompiler, **kw: Any) -> str:
    revoke = statement.revoke
    literal = compiler.sql_compiler.render_literal_value
    columns = _text_array((literal(one, String()) for one in revoke.columns or ()), "name")
    relation = "NULL"
    if revoke.object_type == "SCHEMA":
        name = "current_schema()" if revoke.object_name is None else literal(revoke.object_name, String())
        shown = compiler.preparer.quote(revoke.object_name) if revoke.object_name else name
        target = f"quote_ident({name})::regnamespace"
    else:
        shown = _qualified(revoke, compiler)
        kind = "regclass"
        if revoke.object_type == "FUNCTION":
            kind = "regprocedure" if "(" in shown else "regproc"
        target = f"{dollar_quoted(shown)}::{kind}"
    of_columns = revoke.object_type == "SEQUENCE" and bool(revoke.columns)
    if of_columns:
        relation, target = target, ""
    words = {
        "object_type": f"{literal(revoke.object_type, String())}::text",
        "kind": revoke.object_type,
        "relation": relation,
        "targets": f"ARRAY[{f'{target}::oid' if target else ''}]::oid[]",
        "sequence_columns": columns if of_columns else "ARRAY[]::name[]",
        "columns": columns if revoke.columns and not of_columns else "NULL::name[]",
        "privileges": _text_array(literal(one.upper(), String()) for one in revoke.privileges),
        "grantors": _text_array(literal(one, String()) for one in statement.grantors),
        "cascade": str(revoke.option).lower(),
        **_grantees(revoke, compiler),
    }
    subject = f"ON {revoke.object_type} {'of ' * of_columns}{shown}"
    by = f" -- granted by {', '.join(statement.grantors)}"
    plain = f"{privilege_text(revoke, subject, compiler)}{_option(revoke)}{by}"
    tag = dollar_tag("".join(words.values()), "sqla_rls")
    return filled_script("revoke_of_grantors.sql", compiler, plain, tag=tag, **words)


def _text_array(values: Iterable[str], kind: str = "text") -> str:
    return f"ARRAY[{', '.join(values)}]::{kind}[]"


def _grantees(grant: GrantOrRevoke, compiler: DDLCompiler) -> dict[str, str]:
    literal = compiler.sql_compiler.render_literal_value
    return {
        "grantees": _text_array(
            one if one in ROLE_KEYWORDS else literal(one, String()) for one in grant.grantees
        ),
        # The policies of the declared role call auth functions, which the role declared with it needs, too.
        "bringing": _text_array(
            literal(one, String()) for one, other in BROUGHT_ALONG.items() if other in grant.grantees
        ),
    }


def _option(grant: GrantOrRevoke) -> str:
    return f" {'CASCADE' if grant.revoke else 'WITH GRANT OPTION'}" if grant.option else ""


def _on_schema(grant: GrantOrRevoke, compiler: DDLCompiler) -> str:
    literal = compiler.sql_compiler.render_literal_value
    head, tail = privilege_text(grant, "ON SCHEMA <schema>", compiler).split("<schema>", 1)
    words = {
        "schema": "current_schema()" if grant.object_name is None else literal(grant.object_name, String()),
        "privileges": _text_array(literal(one, String()) for one in grant.privileges),
        "head": dollar_quoted(head),
        "tail": dollar_quoted(f"{tail}{_option(grant)}"),
        "revoke": str(grant.revoke).lower(),
        **_grantees(grant, compiler),
    }
    named = compiler.preparer.quote(grant.object_name) if grant.object_name else "current_schema()"
    tag = dollar_tag("".join(words.values()), "sqla_rls")
    return filled_script("on_schema.sql", compiler, f"{head}{named}{tail}{_option(grant)}", tag=tag, **words)


def _sequence_privileges(grant: GrantOrRevoke, table: str, option: str, compiler: DDLCompiler) -> str:
    verb, preposition = ("REVOKE", "FROM") if grant.revoke else ("GRANT", "TO")
    columns = (compiler.sql_compiler.render_literal_value(one, String()) for one in grant.columns or ())
    head = f"{verb} {', '.join(grant.privileges)} ON SEQUENCE "
    tail = f" {preposition} {role_list(grant.grantees, compiler)}{option}"
    owned = ", ".join(f"{table}.{compiler.preparer.quote(one)}" for one in grant.columns or ())
    words = {
        "table": dollar_quoted(table),
        "columns": f"ARRAY[{', '.join(columns)}]",
        "verb": dollar_quoted(head),
        "roles": dollar_quoted(tail),
    }
    tag = dollar_tag("".join(words.values()), "sqla_rls")
    return filled_script("sequence_privileges.sql", compiler, f"{head}of {owned}{tail}", tag=tag, **words)


@compiles(AlterDefaultPrivileges, "postgresql")
def _alter_default_privileges(alter: AlterDefaultPrivileges, compiler: DDLCompiler, **kw: Any) -> str:
    privileges = privilege_text(alter, f"ON {alter.object_type}", compiler)
    if alter.schema == DEFAULT_SCHEMA:
        head, tail = dollar_quoted("ALTER DEFAULT PRIVILEGES IN SCHEMA "), dollar_quoted(f" {privileges}")
        body = f"BEGIN EXECUTE {head} || quote_ident(current_schema()) || {tail}; END"
        tag = dollar_tag(body, "sqla_rls")
        return f"DO {tag}{body}{tag}"
    schema = f" IN SCHEMA {compiler.preparer.quote_schema(alter.schema)}" if alter.schema else ""
    return f"ALTER DEFAULT PRIVILEGES{schema} {privileges}"


def privilege_text(
    statement: GrantOrRevoke | AlterDefaultPrivileges, subject: str, compiler: DDLCompiler
) -> str:
    verb, preposition = ("REVOKE", "FROM") if statement.revoke else ("GRANT", "TO")
    columns = getattr(statement, "columns", None)
    of = f" ({', '.join(map(compiler.preparer.quote, columns))})" if columns else ""
    privileges = ", ".join(f"{privilege}{of}" for privilege in statement.privileges)
    return f"{verb} {privileges} {subject} {preposition} {role_list(statement.grantees, compiler)}"


class Grants(NamedTuple):
    """Privileges that one statement can grant, or revoke."""

    object: ObjectKey
    grantee: str
    grantable: bool
    columns: tuple[str, ...] | None
    privileges: list[str]


def granted_together(privileges: Iterable[Privilege]) -> list[Grants]:
    """Return *privileges* by statements, as few as possible: schemas first, columns last."""
    columns: dict[tuple[ObjectKey, str, bool, bool, str], list[str]] = {}
    for one in sorted(privileges, key=_order):
        key = one.object, one.grantee, one.grantable, one.column is not None, one.privilege
        columns.setdefault(key, []).extend([one.column] if one.column is not None else [])
    found: dict[tuple[ObjectKey, str, bool, tuple[str, ...] | None], list[str]] = {}
    for (on, grantee, grantable, narrow, privilege), names in columns.items():
        found.setdefault((on, grantee, grantable, tuple(names) if narrow else None), []).append(privilege)
    return [Grants(*key, listed) for key, listed in found.items()]


def _order(one: Privilege) -> tuple[object, ...]:
    kinds = ("SCHEMA", "TABLE", "SEQUENCE", "FUNCTION")
    commands = COMMAND_PRIVILEGES["ALL"]
    place = commands.index(one.privilege) if one.privilege in commands else len(commands)
    return (
        kinds.index(one.object_type),
        one.schema or "",
        one.name,
        one.grantee,
        one.grantable,
        one.column is not None,
        place,
        one.privilege,
        one.column or "",
    )
