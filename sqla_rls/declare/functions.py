"""The policies' own SQL functions: ``sql_function("is_member", Base.metadata, …)``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import MetaData, Table
from sqlalchemy.dialects import postgresql

from sqla_rls.declare.base import Roles, as_roles, keep_on, kept_on
from sqla_rls.exc import DeclarationError
from sqla_rls.snapshot import Role, SQLFunction, TableKey

_VOLATILITIES = ("STABLE", "IMMUTABLE", "VOLATILE")
_PARALLEL = ("UNSAFE", "RESTRICTED", "SAFE")
_PREPARER = postgresql.dialect().identifier_preparer  # type: ignore[no-untyped-call]


class DeclaredFunction(NamedTuple):
    """What one call of ``sql_function()``, or of ``memberships()``, says.

    *value* makes the function for a schema_translate_map; *name* stands for it in expressions.
    """

    key: TableKey
    roles: list[Role | str]
    value: Callable[[Mapping[str | None, str | None] | None], SQLFunction]
    name: Table | None = None


def keep(metadata: MetaData, declared: DeclaredFunction) -> None:
    """Raises DeclarationError for a name that another function has."""
    if any(other.key == declared.key for other in kept_on([metadata], DeclaredFunction)):
        raise DeclarationError(f"function {declared.key.name!r} is declared twice: it is known by its name")
    keep_on(metadata, declared)


def sql_function(
    name: str,
    metadata: MetaData,
    *,
    returns: str,
    body: str,
    to: Roles,
    arguments: str = "",
    schema: str | None = None,
    volatility: str = "STABLE",
    security_definer: bool = False,
    search_path: Sequence[str] | None = ("pg_catalog",),
    settings: Mapping[str, str] | None = None,
    language: str = "sql",
    parallel: str = "UNSAFE",
    strict: bool = False,
    leakproof: bool = False,
) -> None:
    """A function that policies call, which the roles in *to* may execute and nobody else.

    *arguments*, *returns* and *body* are SQL: ``"org uuid"``, ``"boolean"`` and a query.  While it runs,
    the schemas of *search_path* are searched and temporary objects last, whatever the caller's path is:
    qualify other names in *body*.  With *security_definer* it runs as its owner.  A function is known by
    its name, which no other in its schema may have.  Declare those that it calls before it.
    Column defaults may call it, also where its body reads a table of the same migration; its arguments and
    result may name no such table then.
    With ``search_path=None`` names are looked up as *settings* say, or on the caller's path, where the caller
    can put a table or function of its own in front; there only names with their schema are safe.
    Emitted: ``CREATE OR REPLACE FUNCTION … SET search_path``, ``REVOKE EXECUTE … FROM PUBLIC``, ``GRANT``.
    """
    value = made_function(
        name,
        schema=schema,
        arguments=arguments,
        returns=returns,
        body=body,
        volatility=volatility,
        security_definer=security_definer,
        search_path=search_path,
        settings=settings,
        language=language,
        parallel=parallel,
        strict=strict,
        leakproof=leakproof,
    )
    keep(metadata, DeclaredFunction(value.key, as_roles(to), lambda _: value))


def made_function(
    name: str,
    *,
    returns: str,
    body: str,
    schema: str | None,
    arguments: str = "",
    volatility: str = "STABLE",
    security_definer: bool = False,
    search_path: Sequence[str] | None = ("pg_catalog",),
    settings: Mapping[str, str] | None = None,
    language: str = "sql",
    parallel: str = "UNSAFE",
    strict: bool = False,
    leakproof: bool = False,
) -> SQLFunction:
    """The value of a function; arguments are those of ``sql_function()``."""
    if volatility.upper() not in _VOLATILITIES:
        raise DeclarationError(f"function {name!r}: volatility is one of {', '.join(_VOLATILITIES)}")
    if parallel.upper() not in _PARALLEL:
        raise DeclarationError(f"function {name!r}: parallel is one of {', '.join(_PARALLEL)}")
    said = dict(settings or {})
    if search_path is not None:
        path = (*(one for one in search_path if one != "pg_temp"), "pg_temp")
        if "search_path" in said:
            raise DeclarationError(
                f"function {name!r}: settings has a search_path: say search_path=None beside it"
            )
        said = {"search_path": ", ".join(map(_quoted, path)), **said}
    return SQLFunction(
        schema=schema,
        name=name,
        arguments=arguments,
        returns=returns,
        body=body,
        volatility=volatility.upper(),
        security_definer=security_definer,
        settings=tuple(f"{key}={value}" for key, value in said.items()),
        language=language,
        parallel=parallel.upper(),
        strict=strict,
        leakproof=leakproof,
    )


def _quoted(schema: str) -> str:
    # SQLAlchemy 2.0 quotes no empty name; in a search_path it is one of no schema.
    return _PREPARER.quote(schema) if schema else '""'
