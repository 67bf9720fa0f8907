"""What is made sure of when a pool is new: that row security holds, and what is bound does."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.engine import ExceptionContext

from sqla_rls.exc import DeclarationError, SignedBindingUnavailable, SigningKeyRejected, UnsafeRole
from sqla_rls.rules import Rules

# Membership counts whether it is inherited or not: SET ROLE is all that a caller's own SQL would need.
_UNSAFE: Final = text("""
SELECT acting.name, r.rolname AS through, r.rolsuper, r.rolbypassrls, owned.name AS table_name
  FROM (SELECT session_user::text UNION SELECT current_user::text) AS acting (name)
  JOIN pg_catalog.pg_roles r ON pg_catalog.pg_has_role(acting.name, r.oid, 'MEMBER')
  LEFT JOIN LATERAL (
       SELECT c.oid::regclass::text FROM pg_catalog.pg_class c
        WHERE c.relowner = r.oid AND c.relrowsecurity AND NOT c.relforcerowsecurity LIMIT 1
  ) AS owned (name) ON true
 WHERE r.rolsuper OR r.rolbypassrls OR owned.name IS NOT NULL
 ORDER BY r.rolname <> acting.name, r.rolname
 LIMIT 1
""")


def require_safe_roles(connection: Connection) -> None:
    """Raise UnsafeRole if the login role, or the role that it runs as now, is above row security.

    That is a superuser, a role with BYPASSRLS, the owner of a table with row security that isn't forced,
    and every member of one.  Emitted: one SELECT over pg_roles and pg_class.
    """
    row = connection.execute(_UNSAFE).one_or_none()
    if row is None:
        return
    who = f"role {row.name!r}" if row.name == row.through else f"role {row.name!r}, by {row.through!r},"
    if row.rolsuper:
        what = "is a superuser"
    elif row.rolbypassrls:
        what = "has BYPASSRLS"
    else:
        what = f"owns table {row.table_name}, whose row security isn't forced"
    raise UnsafeRole(
        f"{who} {what}: row security wouldn't hold. Log in as a role that owns nothing and is a member of "
        "the callers' roles only; check_login_role=False goes on regardless"
    )


_MADE_IN_SESSION: Final = """
SELECT name FROM pg_catalog.pg_settings
 WHERE source OPERATOR(pg_catalog.=) 'session' AND setting OPERATOR(pg_catalog.<>) coalesce(reset_val, '')
   AND name OPERATOR(pg_catalog.<>) ALL (ARRAY[
       'transaction_isolation', 'transaction_read_only', 'transaction_deferrable'])
 ORDER BY name
"""


def require_declared_settings(connection: Connection, rules: Rules, *, resets: bool) -> None:
    """Raise DeclarationError if the application has made settings that are going to be undone.

    All of them if the driver *resets*; else the search_path, which is bound anew.
    Emitted: one SELECT over pg_settings; if it resets, in a transaction of its own.
    """
    names = connection.exec_driver_sql(_MADE_IN_SESSION).scalars().all()
    if resets:
        connection.dialect.do_rollback(connection.connection)
    else:
        names = [name for name in names if name == "search_path"]
    if undeclared := [name for name in names if name.lower() not in rules.settings]:
        raise DeclarationError(
            f"settings were made on this connection, {', '.join(undeclared)}, which would be reset before "
            f"each caller. Name them: enforce_row_security(…, settings={{{undeclared[0]!r}: '…'}}); or make "
            "them when it is opened: connect_args={'options': '-c …'}. With clean=False they stay, as does "
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
                f"role {role!r} may not use schema auth, so that nothing shows whether identities are "
                "verified: grant it USAGE; if the schema is a superuser's, a superuser must"
            )
    elif not connection.scalar(_IS_KNOWN):
        raise SigningKeyRejected(
            "the database believes signed identities only: give the application its key, as signing_key= or "
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
