"""Makes and rotates the key with which the database verifies signed callers."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Connection, text

from sqla_rls.exc import SigningUnavailable
from sqla_rls.log import UnloggedText

_MAY_ROTATE = text("""
SELECT has_schema_privilege(n.oid, 'USAGE') AND has_function_privilege(p.oid, 'EXECUTE')
  FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
 WHERE n.nspname = 'sqla_rls_secret' AND p.proname = 'rotate_signing_key'
""")


def rotate_signing_key(connection: Connection, *, grace: timedelta = timedelta(hours=1)) -> str:
    """Make a new signing key and return it, for ``SQLA_RLS_SIGNING_KEY``.

    The key counts once *connection* commits.  From the first key on, the functions of schema ``auth`` accept
    signed callers only.  No statement, parameter or log contains the key.  Under asyncio, call
    ``await connection.run_sync(rotate_signing_key)``.

    Args:
        connection: a connection as the role that made the functions.
        grace: the time for which the previous key stays valid, so that you can give your apps the new one.
            The key before the previous one becomes invalid at once.

    Returns:
        32 random bytes in base64url.

    Raises:
        SigningUnavailable: ``op.create_auth_functions(signed=True)`` hasn't run, or the role may not rotate.
        ValueError: *grace* is negative.

    Emits:
        ``SELECT sqla_rls_secret.rotate_signing_key(…)``
    """
    if grace < timedelta(0):
        raise ValueError("the key can't be rotated: grace is negative. Give 0 or more")
    may_rotate = connection.scalar(_MAY_ROTATE)
    if may_rotate is None:
        raise SigningUnavailable(
            "the key can't be rotated: this database has no functions that verify callers. Run a migration "
            "with op.create_auth_functions(signed=True)"
        )
    if not may_rotate:
        raise SigningUnavailable(
            "the key can't be rotated: this role may not call the function. "
            "Connect as the role that made the functions"
        )
    # SQLAlchemy's log shows rows with echo="debug".
    rotate = text("SELECT sqla_rls_secret.rotate_signing_key(make_interval(secs => :seconds)) AS key")
    key = connection.scalar(rotate.columns(key=UnloggedText), {"seconds": grace.total_seconds()})
    return str(key)
