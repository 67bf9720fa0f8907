"""What is made sure of when a pool is new: that row security holds, and what is bound does."""

from __future__ import annotations

import json
from collections.abc import Collection
from importlib import resources
from typing import Any, Final

from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.engine import ExceptionContext

from sqla_rls.exc import DeclarationError, SignedBindingUnavailable, SigningKeyRejected, UnsafeRole
from sqla_rls.session.options import SessionOptions

_UNSAFE: Final = text(
    (resources.files("sqla_rls.session") / "sql" / "unsafe_roles.sql").read_text(encoding="utf-8")
)


def require_safe_roles(connection: Connection, *, member_of: Collection[str] = ()) -> None:
    """Raise UnsafeRole if row security doesn't hold for the login role, or for the role that it acts as.

    docs/roles.md lists the reasons; a membership counts as the role itself.  *member_of* are roles named by
    policies that the acting role is a member of on purpose; the others would give every caller their rows.

    Emits:
        One SELECT over pg_roles, pg_policy, and who owns what.
    """
    found = connection.execute(_UNSAFE, {"member_of": json.dumps(list(member_of))}).one_or_none()
    if found is None:
        return
    if found.is_shared:
        raise UnsafeRole(
            f"every caller with role {found.name!r} has the policies of role {found.through!r}: it is a "
            f"member. Run as the migrating role or a superuser: {found.cure}; or, if it is meant, name it: "
            f"BindingOptions(member_of={{{found.name!r}: [{found.through!r}]}})"
        )
    why = found.what if found.is_itself else f"is a member of {found.through!r}, which {found.what}"
    purpose = "To make one" if found.is_bootstrap else f"To cure {found.name!r}"
    advice = f"{purpose}, run as a superuser: {found.cure}"
    if found.is_login:
        advice = f"Log in as a role that owns nothing and is a member of the callers' roles only. {advice}"
    raise UnsafeRole(
        f"row security doesn't hold for role {found.name!r}: it {why}. {advice}. "
        "check_login_role=False goes on regardless"
    )


_MADE_IN_SESSION: Final = """
SELECT name FROM pg_catalog.pg_settings
 WHERE source OPERATOR(pg_catalog.=) 'session' AND setting OPERATOR(pg_catalog.<>) coalesce(reset_val, '')
   AND name OPERATOR(pg_catalog.<>) ALL (ARRAY[
       'transaction_isolation', 'transaction_read_only', 'transaction_deferrable'])
 ORDER BY name
"""


def require_declared_settings(connection: Connection, options: SessionOptions, *, resets: bool) -> None:
    """Raise DeclarationError if the application has made settings that are going to be undone.

    All of them if the driver *resets*; else the search_path, which is bound anew.
    Emitted: one SELECT over pg_settings; if it resets, in a transaction of its own.
    """
    names = connection.exec_driver_sql(_MADE_IN_SESSION).scalars().all()
    if resets:
        connection.dialect.do_rollback(connection.connection)
    else:
        names = [name for name in names if name == "search_path"]
    if undeclared := [name for name in names if name.lower() not in options.settings]:
        raise DeclarationError(
            f"settings were made on this connection, {', '.join(undeclared)}, which would be reset before "
            f"each caller. Name them: enforce_row_security(…, settings={{{undeclared[0]!r}: '…'}}); or make "
            "them when it is opened: connect_args={'options': '-c …'}. With reset='none' they stay, as does "
            "what callers leave"
        )


_MAY_ASK: Final = text("SELECT pg_catalog.has_schema_privilege('auth', 'USAGE'), current_user")
_IS_KNOWN: Final = text("SELECT auth.session()::pg_catalog.text OPERATOR(pg_catalog.<>) 'null'")


def require_verified(connection: Connection, *, must_ask: bool) -> None:
    """Raise SigningKeyRejected if the database knows nobody, though somebody is bound.

    Emitted: two SELECTs, as the caller.  A role that may not use schema ``auth`` can't ask; where it
    *must_ask*, that raises SignedBindingUnavailable.
    """
    may_ask, role = connection.execute(_MAY_ASK).one()
    if not may_ask:
        if must_ask:
            raise SignedBindingUnavailable(
                f"role {role!r} may not use schema auth, so that nothing shows whether callers are "
                "verified: grant it USAGE; if the schema is a superuser's, a superuser must"
            )
    elif not connection.scalar(_IS_KNOWN):
        raise SigningKeyRejected(
            "the database believes signed callers only: give the application its key, as signing_key= or "
            "in SQLA_RLS_SIGNING_KEY"
        )


def explain_rejections(engine: Engine) -> None:
    """Let what the database's own functions say of a signature be a SigningKeyRejected."""
    if not event.contains(engine, "handle_error", _explained):
        event.listen(engine, "handle_error", _explained)


def _explained(context: ExceptionContext) -> Exception | None:
    error: Any = context.original_exception
    # psycopg has the constraint in .diag, asyncpg on the error that SQLAlchemy's adapter wraps.
    sources = (getattr(error, "diag", None), error.__cause__)
    if "signing_key" not in [getattr(source, "constraint_name", None) for source in sources]:
        return None
    if error.sqlstate == "02000":
        return SigningKeyRejected(
            "the database has no signing key, as after a restore: make one with `sqla-rls rotate-key`, and "
            "give it to the application"
        )
    return SigningKeyRejected(
        "the database refused the application's signature: give it the key that `sqla-rls rotate-key` made "
        "last"
    )
