"""Reads the privileges on a schema that roles lack and that only its owner can grant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql

from sqla_rls.catalog.query import fetch_rows

_quote = postgresql.dialect().identifier_preparer.quote  # type: ignore[no-untyped-call]

_MISSING_ON_SCHEMA = """
SELECT n.nspname, pg_catalog.pg_get_userbyid(n.nspowner)::text AS owner, r.rolname, p.privilege
  FROM pg_catalog.pg_namespace AS n, unnest(:privileges) AS p (privilege), pg_catalog.pg_roles AS r
 WHERE n.nspname = coalesce((SELECT * FROM unnest(:schemas)), current_schema())
   AND r.rolname = ANY (:roles)
   AND NOT pg_catalog.has_schema_privilege(r.rolname, n.oid, p.privilege)
"""


class MissingGrant(NamedTuple):
    """A privilege on a schema that *role* lacks, and that *owner* can grant."""

    privilege: str
    schema: str
    role: str
    owner: str

    def __str__(self) -> str:
        grant = f"GRANT {self.privilege} ON SCHEMA {_quote(self.schema)} TO {_quote(self.role)}"
        return (
            f"role {self.role} lacks {self.privilege} on schema {self.schema}: the migrating role may not "
            f"grant it. Have the owner {self.owner} run: {grant}"
        )


def missing_on_schema(
    connection: Connection, schema: str | None, privileges: Iterable[str], roles: Iterable[str]
) -> list[MissingGrant]:
    """Return the *privileges* on *schema* that *roles* lack; None is the current schema."""
    parameters = {
        "schemas": [] if schema is None else [schema],
        "privileges": list(privileges),
        "roles": list(roles),
    }
    return [
        MissingGrant(row["privilege"], row["nspname"], row["rolname"], row["owner"])
        for row in fetch_rows(connection, _MISSING_ON_SCHEMA, parameters)
    ]
