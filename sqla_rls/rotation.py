"""Makes and rotates the key that signed callers are verified with."""

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
    """Make a new key, and return it: 32 random bytes in base64url, for ``SQLA_RLS_SIGNING_KEY``.

    It counts once *connection* commits.  The previous key stays good for *grace* from now on, so that
    applications can be given the new one meanwhile; one before that is gone.  From the first key on, the
    functions of schema ``auth`` accept signed callers only.  The key is in no statement, parameter or log.

    Under asyncio, ``await connection.run_sync(rotate_signing_key)``.  Raises SigningUnavailable where
    ``op.create_auth_functions(signed=True)`` has yet to run, or somebody else may rotate.
    Emitted: ``SELECT sqla_rls_secret.rotate_signing_key(…)``.
    """
    if grace < timedelta(0):
        raise ValueError("grace must be 0 or more")
    may_rotate = connection.scalar(_MAY_ROTATE)
    if may_rotate is None:
        raise SigningUnavailable(
            "this database has no functions that verify callers: have a migration run "
            "op.create_auth_functions(signed=True)"
        )
    if not may_rotate:
        raise SigningUnavailable(
            "this role may not rotate the signing key: connect as the one that made the functions"
        )
    # SQLAlchemy's log shows rows with echo="debug".
    rotate = text("SELECT sqla_rls_secret.rotate_signing_key(make_interval(secs => :seconds)) AS key")
    key = connection.scalar(rotate.columns(key=UnloggedText), {"seconds": grace.total_seconds()})
    return str(key)
