"""The scripts of sql/, and the quotes of names and text in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from importlib import resources

from sqlalchemy import MetaData, Table, literal_column
from sqlalchemy.sql.compiler import DDLCompiler

from sqla_rls.snapshot import MADE_BY, PUBLIC, ROLE_KEYWORDS, TableKey

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


# Postgres finds names in the schema of the tables and those of extensions; other names need their schema.
# These statements run under the search_path of an owner.  In schema public, a caller may have created a
# function that fits better than one of Postgres: each name has its schema, each argument its exact type.
_SEARCH_PATH = """pg_catalog.array_to_string(pg_catalog.array_append(pg_catalog.array_prepend(
    pg_catalog.quote_ident(CAST(pg_catalog.current_schema() AS pg_catalog.text)),
    ARRAY(SELECT pg_catalog.quote_ident(CAST(n.nspname AS pg_catalog.text)) FROM pg_catalog.pg_namespace AS n
           WHERE n.nspname <> 'pg_catalog'
             AND EXISTS (SELECT FROM pg_catalog.pg_extension AS e WHERE e.extnamespace = n.oid)
           ORDER BY CAST(n.nspname AS pg_catalog.text))), CAST('pg_temp' AS pg_catalog.text)), ', ')"""
_PINNED_VALUES = {**{name: f"'{value}'" for name, value in _PINS.items()}, "search_path": _SEARCH_PATH}

#: Transaction-local settings that change how Postgres reads and spells an expression.
PINNED = ",\n".join(
    f"pg_catalog.set_config('{name}', {value}, true)" for name, value in _PINNED_VALUES.items()
)


#: Scripts that are parts of others.
_PARTS = (
    "auth_functions",
    "auth_readers",
    "keyholder_borrowed",
    "made_auth_functions",
    "policies_call_auth",
    "secret_dropped",
    "sequences_of_column",
    "signed_functions",
)


def qualified(key: TableKey, compiler: DDLCompiler) -> str:
    return compiler.preparer.format_table(Table(key.name, MetaData(), schema=key.schema))


def role_list(roles: Iterable[str], compiler: DDLCompiler) -> str:
    return ", ".join(
        role.upper() if role == PUBLIC or role in ROLE_KEYWORDS else compiler.preparer.quote(role)
        for role in sorted(roles)
    )


def made_twice(
    statement: str, *, undo: str | None, subject: str, stored: str, compiler: DDLCompiler, plain: str
) -> str:
    """Return a script that runs *statement* twice, to make it independent of settings and the time.

    Args:
        statement: the statement.
        undo: the statement that runs in between.
        subject: the name of the object for errors.
        stored: the query that returns the object as Postgres stores it.
        compiler: the compiler of the statement.
        plain: as in ``filled_script()``.
    """
    words = {
        "names": dollar_quoted(f"{{{','.join(_PINNED_VALUES)}}}"),
        "pins": sql(f"ARRAY[{', '.join(_PINNED_VALUES.values())}]", compiler),
        "statement": dollar_quoted(statement),
        "undo": "NULL" if undo is None else dollar_quoted(undo),
        "stored": dollar_quoted(stored),
        "subject": dollar_quoted(subject),
    }
    tag = dollar_tag("".join(words.values()), "sqla_rls")
    return filled_script("policy.sql", compiler, plain, tag=tag, **words)


def dollar_quoted(text: str) -> str:
    tag = dollar_tag(text, "sql")
    return f"{tag}{text}{tag}"


def dollar_tag(text: str, name: str) -> str:
    """Return a dollar quote that *text* doesn't contain."""
    while f"${name}$" in text:
        name += "_"
    return f"${name}$"


def sql(text: str, compiler: DDLCompiler) -> str:
    """Return *text* for the driver: for some drivers, a single ``%`` starts a parameter."""
    return compiler.sql_compiler.process(literal_column(text))


def filled_script(script: str, compiler: DDLCompiler, plain: str, /, **words: str) -> str:
    """Return a script of sql/ with *words*, which are SQL, in its placeholders.

    *plain*, the statement for reviewers of the migration, replaces the comment at the top of the script.
    """
    return comment(plain) + sql(without_comment(sql_script(script)), compiler).format(**words)


def comment(text: str) -> str:
    """Return *text* as a comment; a line feed or a carriage return in a name doesn't end it."""
    lines = text.strip().replace("\r", "\n").split("\n") if text else []
    return "".join(f"-- {line}\n" for line in lines)


def without_comment(script: str) -> str:
    """Return *script* without the comment at its top."""
    lines = script.split("\n")
    while lines[0].startswith("--"):
        del lines[0]
    return "\n".join(lines)


@cache
def sql_script(name: str) -> str:
    """Return a script of sql/ with its parts."""
    text = (resources.files("sqla_rls.ddl") / "sql" / name).read_text(encoding="utf-8")
    text = text.replace("{made_by}", f"'{MADE_BY}'")
    return with_parts(text, _PARTS, lambda part: without_comment(sql_script(f"{part}.sql")))


def with_parts(text: str, parts: Iterable[str], read: Callable[[str], str]) -> str:
    """Return *text*, with each of *parts* that it names in braces as *read* returns it."""
    for part in parts:
        if f"{{{part}}}" in text:
            text = text.replace(f"{{{part}}}", read(part).rstrip())
    return text
