"""Runs statements as a caller, as a session of the library does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from sqla_rls.analyze.why.target import first_line, is_of_server
from sqla_rls.exc import AnalysisError, BindingError
from sqla_rls.session.binding import bind
from sqla_rls.session.checks import IS_KNOWN
from sqla_rls.session.options import BindingOptions, SessionOptions
from sqla_rls.session.plan import ConnectionPlan
from sqla_rls.tokens.caller import Caller
from sqla_rls.tokens.signing import HS256Signer, SigningKey

#: The function that returns the verified claims.  to_regprocedure() raises without USAGE on the schema.
_SESSION: Final = text(
    "SELECT p.oid FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace "
    "WHERE n.nspname = 'auth' AND p.proname = 'session' AND p.pronargs = 0"
)
_MAY_ASK: Final = text(
    "SELECT pg_catalog.has_function_privilege(CAST(:oid AS pg_catalog.oid), 'EXECUTE') "
    "AND pg_catalog.has_schema_privilege(pg_catalog.to_regnamespace('auth'), 'USAGE')"
)
#: insufficient_privilege
_MAY_NOT: Final = "42501"
_USER: Final = text(
    "SELECT session_user, pg_catalog.current_setting('server_version_num')::pg_catalog.int4 >= 160000"
)


@contextmanager
def as_caller(connection: Connection, caller: Caller, signing_key: SigningKey | None) -> Iterator[None]:
    """Inside, the transaction is the caller's."""
    plan = ConnectionPlan(
        options=SessionOptions(binding=BindingOptions(transport="statement", reset="none")),
        server=None,
        signer=None if signing_key is None else HS256Signer(signing_key, None),
        settings={},
        modes=None,
    )
    savepoint = connection.begin_nested()
    try:
        try:
            bind(connection, caller, plan, joined=True)
        except BindingError as error:
            if getattr(error.__cause__, "sqlstate", None) == _MAY_NOT:
                savepoint.rollback()
                raise BindingError(_who_grants(connection, caller.role)) from error.__cause__
            raise
        yield
    finally:
        if savepoint.is_active:
            savepoint.rollback()


def _who_grants(connection: Connection, role: str) -> str:
    """Return the error of a connection that can't become *role*."""
    quote = connection.dialect.identifier_preparer.quote
    user, has_options = connection.execute(_USER).one()
    options = " WITH INHERIT FALSE" if has_options else ""
    return (
        f"role {role!r} can't be bound: role {user!r} of the connection may not SET ROLE to it. Run GRANT "
        f"{quote(role)} TO {quote(user)}{options}, or connect as a superuser"
    )


def require_known_caller(connection: Connection, caller: Caller, signing_key: SigningKey | None) -> None:
    """Raise AnalysisError if the database doesn't believe who the caller is.

    A role without USAGE on schema ``auth`` may still call functions that ask there, so that the check
    falls to the role of the connection.
    """
    session = connection.scalar(_SESSION) if caller.claims else None
    if session is None:
        return
    with as_caller(connection, caller, signing_key):
        if not connection.scalar(_MAY_ASK, {"oid": session}):
            connection.exec_driver_sql("SET LOCAL ROLE NONE")
            if not connection.scalar(_MAY_ASK, {"oid": session}):
                raise AnalysisError(
                    "the caller can't be bound: neither its role nor that of the connection may use "
                    "schema auth, so that sqla_rls can't check whether the database believes the claims. "
                    "Grant USAGE on schema auth to one of them"
                )
        try:
            is_known = connection.scalar(IS_KNOWN)
        except DBAPIError as error:
            if is_of_server(error):
                raise
            raise AnalysisError(
                f"the caller can't be bound: the database refuses the claims: {first_line(error)}. "
                "Give the latest signing key, as signing_key= or in SQLA_RLS_SIGNING_KEY"
            ) from None
        if not is_known:
            raise AnalysisError(
                "the caller can't be bound: the database verifies callers. Give the application's "
                "signing key, as signing_key= or in SQLA_RLS_SIGNING_KEY"
            )
