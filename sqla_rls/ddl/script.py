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


# Names are looked up in the schema of the tables and in those of extensions; others need their schema.
_SEARCH_PATH = """concat_ws(', ', quote_ident(current_schema()),
    (SELECT string_agg(DISTINCT quote_ident(n.nspname), ', ') FROM pg_catalog.pg_extension AS e
       JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace
      WHERE n.nspname <> 'pg_catalog'), 'pg_temp')"""
_PINNED_VALUES = {**{name: f"'{value}'" for name, value in _PINS.items()}, "search_path": _SEARCH_PATH}

#: Settings, local to the transaction, on which it depends how Postgres reads and spells an expression.
PINNED = ",\n".join(f"set_config('{name}', {value}, true)" for name, value in _PINNED_VALUES.items())


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


def made_twice(
    statement: str, *, undo: str | None, subject: str, stored: str, compiler: DDLCompiler, plain: str = ""
) -> str:
    """*statement*, such that it depends neither on the session's settings nor on the time: see the script.

    It runs twice, with *undo* in between.  *stored* is the query for what was made, and *subject* what an
    error calls it.  *plain* is as in ``filled_script()``.
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
    """A dollar quote that isn't in *text*."""
    while f"${name}$" in text:
        name += "_"
    return f"${name}$"


def sql(text: str, compiler: DDLCompiler) -> str:
    """*text* as it must be handed to the driver: some take a lone ``%`` for a parameter."""
    return compiler.sql_compiler.process(literal_column(text))


def filled_script(script: str, compiler: DDLCompiler, plain: str, /, **words: str) -> str:
    """A script of sql/ with *words* in it, which are SQL already.

    *plain* stands above it as a comment, in place of the script's own: the statement that a person who
    reviews the migration must know.
    """
    return comment(plain) + sql(without_comment(sql_script(script)), compiler).format(**words)


def comment(text: str) -> str:
    """*text* as a comment, whose lines neither a line feed nor a carriage return in a name may end."""
    lines = text.strip().replace("\r", "\n").split("\n") if text else []
    return "".join(f"-- {line}\n" for line in lines)


def without_comment(script: str) -> str:
    """*script*, which may begin with a comment, without that."""
    lines = script.split("\n")
    while lines[0].startswith("--"):
        del lines[0]
    return "\n".join(lines)


@cache
def sql_script(name: str) -> str:
    """A script of sql/, with the others that stand in it."""
    text = (resources.files("sqla_rls.ddl") / "sql" / name).read_text(encoding="utf-8")
    text = text.replace("{made_by}", f"'{MADE_BY}'")
    for part in _PARTS:
        if f"{{{part}}}" in text:
            text = text.replace(f"{{{part}}}", without_comment(sql_script(f"{part}.sql")).rstrip())
    return text
