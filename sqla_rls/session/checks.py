"""Checks on the first connections of a pool: its roles, its settings, and its signatures."""

from __future__ import annotations

import json
from collections.abc import Collection
from importlib import resources
from typing import Any, Final

from sqlalchemy import Connection, Engine, text
from sqlalchemy.engine import ExceptionContext

from sqla_rls.driver.unprepared import unprepared
from sqla_rls.exc import DeclarationError, SignedBindingUnavailable, SigningKeyRejected, UnsafeRole
from sqla_rls.session.denials import listen_once
from sqla_rls.session.options import SessionOptions

_SQL: Final = resources.files("sqla_rls.session") / "sql"


def _query(name: str) -> str:
    return (_SQL / f"{name}.sql").read_text(encoding="utf-8").rstrip()


# The rule login-role of lint finds the same objects and predefined roles.
_UNSAFE: Final = text(
    _query("unsafe_roles")
    .replace("{used_objects}", _query("used_objects"))
    .replace("{predefined_roles}", _query("predefined_roles"))
)


def require_safe_roles(connection: Connection, *, member_of: Collection[str]) -> None:
    """Check that row security holds for the login role, and for the role that it acts as.

    docs/security/roles.md lists the reasons.  A role is as unsafe as each role that it is a member of.

    Args:
        connection: a connection in a bound transaction.
        member_of: the roles of policies that the acting role is a member of on purpose.  Any other such
            membership would give every caller the rows of those policies.

    Raises:
        UnsafeRole: row security doesn't hold for one of the roles.

    Emits:
        One SELECT over pg_roles, pg_policy, and what depends on objects of these roles.
    """
    with unprepared(connection):
        found = connection.execute(_UNSAFE, {"member_of": json.dumps(list(member_of))}).one_or_none()
    if found is None:
        return
    if found.is_shared:
        raise UnsafeRole(
            f"every caller with role {found.name!r} has the policies of role {found.through!r}: the first is "
            f"a member of the second. Run as the migrating role or a superuser: {found.hint}; or, if you "
            f"want this, declare it: BindingOptions(member_of={{{found.name!r}: [{found.through!r}]}})"
        )
    why = found.what if found.is_itself else f"is a member of {found.through!r}, which {found.what}"
    purpose = "To create one" if found.is_bootstrap else f"To fix {found.name!r}"
    advice = f"{purpose}, run as a superuser: {found.hint}"
    if found.is_login:
        advice = f"Log in as a role that owns nothing and is a member of the callers' roles only. {advice}"
    raise UnsafeRole(
        f"row security doesn't hold for role {found.name!r}: it {why}. {advice}. "
        "Set check_login_role=False to skip this check"
    )


_MADE_IN_SESSION: Final = """
SELECT name FROM pg_catalog.pg_settings
 WHERE source OPERATOR(pg_catalog.=) 'session' AND setting OPERATOR(pg_catalog.<>) coalesce(reset_val, '')
   AND name OPERATOR(pg_catalog.<>) ALL (ARRAY[
       'transaction_isolation', 'transaction_read_only', 'transaction_deferrable'])
 ORDER BY name
"""


def require_declared_settings(connection: Connection, options: SessionOptions, *, resets: bool) -> None:
    """Check that the application has made no settings on the connection that the next binding resets.

    Args:
        connection: a direct connection, before its first binding.
        options: the options of the session.
        resets: the driver sends RESET ALL or DISCARD ALL.  Without it, only the search_path is reset.

    Raises:
        DeclarationError: there is such a setting.

    Emits:
        One SELECT over pg_settings; with *resets*, in a transaction of its own.
    """
    with unprepared(connection):
        names = connection.exec_driver_sql(_MADE_IN_SESSION).scalars().all()
    if resets:
        connection.dialect.do_rollback(connection.connection)
    else:
        names = [name for name in names if name == "search_path"]
    if undeclared := [name for name in names if name.lower() not in options.settings]:
        raise DeclarationError(
            f"settings would be lost: your app made settings on this connection, {', '.join(undeclared)}, "
            "and each transaction resets them. Declare them: "
            f"enforce_row_security(…, settings={{{undeclared[0]!r}: '…'}}); or make them in "
            "connect_args={'options': '-c …'}; or choose reset='none', which also keeps the settings that "
            "callers leave"
        )


_UNSIGNED: Final = (
    "the caller isn't verified: the database accepts signed callers only. Give your app the key, as "
    "signing_key= or in SQLA_RLS_SIGNING_KEY"
)
_MAY_ASK: Final = text("SELECT pg_catalog.has_schema_privilege('auth', 'USAGE'), current_user")
IS_KNOWN: Final = text("SELECT auth.session()::pg_catalog.text OPERATOR(pg_catalog.<>) 'null'")


def require_verified(connection: Connection, *, must_ask: bool) -> None:
    """Check that the database has verified the caller of the transaction.

    Args:
        connection: a connection whose transaction is bound to a caller with claims.
        must_ask: the check is required.  Otherwise a role without USAGE on schema ``auth`` skips it.

    Raises:
        SigningKeyRejected: the database has verified no caller.
        SignedBindingUnavailable: the check is required, and the role may not use schema ``auth``.

    Emits:
        Two SELECTs, as the caller.
    """
    with unprepared(connection):
        may_ask, role = connection.execute(_MAY_ASK).one()
        is_known = bool(may_ask) and connection.scalar(IS_KNOWN)
    if not may_ask:
        if must_ask:
            raise SignedBindingUnavailable(
                f"callers can't be signed: role {role!r} may not use schema auth, so that sqla_rls can't "
                "check the signature. Grant it USAGE; if a superuser owns the schema, a superuser must"
            )
    elif not is_known:
        raise SigningKeyRejected(_UNSIGNED)


def explain_rejections(engine: Engine) -> None:
    """Turn errors of the database's own functions about a signature into SigningKeyRejected."""
    listen_once(engine, _explained)


def _explained(context: ExceptionContext) -> Exception | None:
    error: Any = context.original_exception
    # psycopg has the constraint in .diag, asyncpg on the error that SQLAlchemy's adapter wraps.
    sources = (getattr(error, "diag", None), error.__cause__)
    if "signing_key" not in [getattr(source, "constraint_name", None) for source in sources]:
        return None
    if error.sqlstate == "28000":
        return SigningKeyRejected(_UNSIGNED)
    if error.sqlstate == "02000":
        return SigningKeyRejected(
            "the caller can't be verified: the database has no signing key, as after a restore. Make a key "
            "with `sqla-rls rotate-key`, and give it to your app"
        )
    return SigningKeyRejected(
        "the caller can't be verified: the database refused the application's signature. Give your app the "
        "latest key of `sqla-rls rotate-key`"
    )
