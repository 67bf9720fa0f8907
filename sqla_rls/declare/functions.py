"""SQL functions for policies: ``sql_function("is_member", Base.metadata, …)``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
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
    """The arguments of one call of ``sql_function()`` or ``memberships()``.

    *value* returns the function for a schema_translate_map.  *name* is its name in expressions.
    """

    key: TableKey
    roles: Sequence[Role | str]
    value: Callable[[Mapping[str | None, str | None] | None], SQLFunction]
    name: Table | None = None


def keep(metadata: MetaData, declared: DeclaredFunction) -> None:
    """Add *declared* to *metadata*.

    Raises:
        DeclarationError: another function has the same name.
    """
    if any(other.key == declared.key for other in kept_on([metadata], DeclaredFunction)):
        raise DeclarationError(
            f"function {declared.key.name!r} is declared twice: a name is unique. Give one another name"
        )
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
    """Declare a function that policies call.

    Only the roles in *to* can execute it.  Declare the functions that it calls first.  Column defaults may
    call it, even if its body reads a table of the same migration.  Its arguments and its result must not name
    such a table.

    Args:
        name: the name, which must be unique in the schema.
        metadata: the MetaData of the models.
        returns: the type of the result, as SQL: ``"boolean"``.
        body: the body, as SQL.
        to: the roles that may execute it; ``[]`` is its owner alone, as for a function of a trigger.
        arguments: the arguments, as SQL: ``"org uuid"``.
        schema: the schema.
        volatility: STABLE, IMMUTABLE or VOLATILE.
        security_definer: whether it runs as its owner.
        search_path: the schemas in which Postgres finds names without a schema; temporary objects come last.
            None leaves it to *settings* or to the caller, who can then hide a table or function with another
            one.  Name the schema of every object in that case.
        settings: other settings of the function.
        language: the language.
        parallel: UNSAFE, RESTRICTED or SAFE.
        strict: as in ``CREATE FUNCTION``.
        leakproof: as in ``CREATE FUNCTION``.

    Raises:
        DeclarationError: an argument is wrong, or the name is taken.

    Emits:
        ``CREATE OR REPLACE FUNCTION … SET search_path``, ``REVOKE EXECUTE … FROM PUBLIC`` and ``GRANT``
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
    is_empty = isinstance(to, Collection) and not isinstance(to, str) and not to
    roles = () if is_empty else as_roles(to)
    keep(metadata, DeclaredFunction(value.key, roles, lambda _: value))


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
    """Return the value of a function; the arguments are those of ``sql_function()``."""
    if volatility.upper() not in _VOLATILITIES:
        raise DeclarationError(
            f"function {name!r} can't be declared: there is no volatility {volatility!r}. "
            f"Give one of {', '.join(_VOLATILITIES)}"
        )
    if parallel.upper() not in _PARALLEL:
        raise DeclarationError(
            f"function {name!r} can't be declared: there is no parallel={parallel!r}. "
            f"Give one of {', '.join(_PARALLEL)}"
        )
    said = dict(settings or {})
    if search_path is not None:
        path = (*(one for one in search_path if one != "pg_temp"), "pg_temp")
        if "search_path" in said:
            raise DeclarationError(
                f"function {name!r} can't be declared: settings has a search_path, too. Add search_path=None"
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
    # SQLAlchemy 2.0 doesn't quote an empty name; in a search_path it is a name without a schema.
    return _PREPARER.quote(schema) if schema else '""'
