"""Says which views and functions callers may use although nothing here manages them."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection

from sqla_rls.alembic.autogenerate.filters import Filters
from sqla_rls.catalog import read as catalog
from sqla_rls.log import autogenerate_log
from sqla_rls.snapshot import PUBLIC, Snapshot, TableKey

log = autogenerate_log(__name__)

# Everybody may execute a function that nobody restricted: those are left out, and so is what extensions made.
_GRANTED = """
SELECT 'function' AS kind, n.nspname, p.proname AS name
  FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
 WHERE n.nspname = ANY (:schemas) AND n.nspname <> 'auth' AND p.prokind = 'f'
   AND EXISTS (SELECT FROM pg_catalog.aclexplode(p.proacl) AS a
                WHERE a.grantee <> p.proowner AND pg_catalog.pg_get_userbyid(a.grantee) = ANY (:roles))
   AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(p.proacl) WHERE grantee = 0)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend
                    WHERE classid = 'pg_catalog.pg_proc'::regclass AND objid = p.oid AND deptype = 'e')
UNION
SELECT 'view', n.nspname, c.relname
  FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname = ANY (:schemas) AND c.relkind = 'v'
   AND EXISTS (SELECT FROM pg_catalog.aclexplode(c.relacl) AS a
                WHERE a.grantee <> c.relowner
                  AND (a.grantee = 0 OR pg_catalog.pg_get_userbyid(a.grantee) = ANY (:roles)))
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend
                    WHERE classid = 'pg_catalog.pg_class'::regclass AND objid = c.oid AND deptype = 'e')
 ORDER BY 1, 2, 3
"""


def say_what_is_unmanaged(
    connection: Connection,
    models: Snapshot,
    filters: Filters,
    *,
    default_schema: str,
    schemas: Collection[str],
    made_roles: Collection[str],
    made: Collection[tuple[str, TableKey]],
    compared: Collection[tuple[str, TableKey]],
) -> None:
    """Warn of what stays although the models don't declare it, and roles of theirs or of revisions may use.

    *made* are the kinds and keys of what revisions made, also outside of *schemas*, and *compared* those that
    the models decide about.
    """
    roles = {
        *made_roles,
        *models.roles,
        *(role for policy in models.policies.values() for role in policy.roles),
        *(one.grantee for one in models.privileges),
    } - {PUBLIC}
    known = {
        *compared,
        *(("function", key) for key in models.functions),
        *(("view", key) for key in models.views),
        *(
            ("function", TableKey(one.schema, one.name.partition("(")[0]))
            for one in models.managed_objects
            if one.object_type == "FUNCTION"
        ),
    }
    names: dict[str, list[str]] = {}
    looked_into = {*schemas, *(key.schema or default_schema for _, key in made)}
    for row in catalog.rows(connection, _GRANTED, {"schemas": sorted(looked_into), "roles": sorted(roles)}):
        key = TableKey(None if row["nspname"] == default_schema else row["nspname"], row["name"])
        found = row["kind"], key
        if found in known or (row["nspname"] not in schemas and found not in made):
            continue
        if filters.view(key) if row["kind"] == "view" else filters.function(key, declared=False):
            names.setdefault(row["kind"], []).append(".".join(filter(None, key)))
    for kind, listed in names.items():
        log.warning(
            "callers may use %ss that are left as they are, since the models don't declare them, and no "
            "revision made them in a schema that is compared: %s. Declare them, drop them by hand, or name "
            "them in ignore(%ss=…)",
            kind,
            ", ".join(listed),
            kind,
        )
