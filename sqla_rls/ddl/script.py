"""The scripts of sql/, and how names and text are quoted in them."""

from __future__ import annotations

from collections.abc import Iterable
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


def qualified(key: TableKey, compiler: DDLCompiler) -> str:
    return compiler.preparer.format_table(Table(key.name, MetaData(), schema=key.schema))


def role_list(roles: Iterable[str], compiler: DDLCompiler) -> str:
    return ", ".join(
        role.upper() if role == PUBLIC or role in ROLE_KEYWORDS else compiler.preparer.quote(role)
        for role in sorted(roles)
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
    tag = dollar_tag("".join(words.values()), "sqla_rls")
    return filled_script("policy.sql", compiler, tag=tag, **words)


def dollar_quoted(text: str) -> str:
    tag = dollar_tag(text, "sql")
    return f"{tag}{text}{tag}"


def dollar_tag(text: str, name: str) -> str:
    """A dollar quote that isn't in *text*."""
    while f"${name}$" in text:
        name += "_"
    return f"${name}$"


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
    text = text.replace("{made_by}", f"'{MADE_BY}'")
    for part in _PARTS:
        if f"{{{part}}}" in text:
            text = text.replace(f"{{{part}}}", sql_script(f"{part}.sql").rstrip())
    return text
