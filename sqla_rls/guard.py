"""Whether row security holds for the roles that a connection runs as."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, text

from sqla_rls.exc import UnsafeRole

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
