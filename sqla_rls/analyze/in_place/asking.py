"""Whether the value of an expression, or what a function returns, may depend on the role that runs it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Final

from sqla_rls.analyze.vocabulary import read_expression
from sqla_rls.analyze.worlds.schema import Schema

_KEYWORDS: Final = frozenset({"session_user", "current_user", "current_role", "user", "system_user"})
#: Functions and relations that tell the role, or set it; EXECUTE and SHOW may do so by text that is computed.
_NAMES: Final = frozenset(
    {
        "pg_has_role",
        "row_security_active",
        "getpgusername",
        "set_config",
        "pg_settings",
        "pg_show_all_settings",
        "pg_stat_activity",
        "pg_stat_get_activity",
        "information_schema",
        "execute",
        "show",
    }
)
_SETTINGS: Final = frozenset({"role", "session_authorization", "is_superuser"})
_LANGUAGES: Final = ("sql", "plpgsql")


@cache
def asks_for_role(sql: str) -> bool:
    """Return whether *sql*, an expression or the body of a function, may depend on the role that runs it."""
    import pglast
    from pglast.parser import scan

    try:
        tokens = list(scan(sql))
    except pglast.parser.ParseError:
        return True
    words = [sql[token.start : token.end + 1] for token in tokens]
    for place, token in enumerate(tokens):
        if token.kind != "NO_KEYWORD" and token.name.lower() in _KEYWORDS:
            return True
        if token.name == "SCONST":
            continue
        word = words[place].lower().strip('"')
        if word in _NAMES or (word.startswith("has_") and word.endswith("_privilege")):
            return True
        if word == "current_setting" and _may_be_role(tokens[place + 1 :], words[place + 1 :]):
            return True
    return False


def function_asks_for_role(language: str, body: str) -> bool:
    """Return whether the result of a function may depend on the role that calls it."""
    return language not in _LANGUAGES or asks_for_role(body)


def access_asks_for_role(schema: Schema, names: Iterable[str]) -> bool:
    """Return whether a policy, a query, a function or a default of relations *names* may ask for the role."""
    expressions: list[str | None] = []
    called: set[str] = set()
    for name in names:
        relation = schema.relations[name]
        for policy in relation.policies:
            for sql in (policy.using, policy.check):
                if sql is not None:
                    expressions += [sql, *schema.implied.checks(read_expression(sql))]
        for column in relation.columns.values():
            expressions += [column.default, column.generated, *column.domain_checks]
        expressions += [relation.query, *relation.checks, *relation.new_checks]
        called |= schema.calls(name)
    for function in (schema.functions[one] for one in called):
        expressions += schema.implied.checks(function.vocabulary, function.types)
    return any(asks_for_role(one) for one in expressions if one is not None) or any(
        function_asks_for_role(schema.functions[one].language, schema.functions[one].body) for one in called
    )


def _may_be_role(tokens: Sequence[Any], words: Sequence[str]) -> bool:
    """Return whether the arguments of current_setting() may name the role, as all but a constant may."""
    names = [token.name for token in tokens[:5]]
    if names[:2] != ["ASCII_40", "SCONST"]:
        return True
    # Postgres prints the type after the constant.
    end = 4 if names[2:4] == ["TYPECAST", "TEXT_P"] else 2
    if names[end : end + 1] not in (["ASCII_41"], ["ASCII_44"]):
        return True
    constant = words[1]
    return not constant.startswith("'") or constant.strip("'").lower() in _SETTINGS
