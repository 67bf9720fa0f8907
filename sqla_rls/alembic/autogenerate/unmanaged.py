"""Says which views and functions callers may use although nothing here manages them."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection

from sqla_rls.alembic.autogenerate.filters import Filters
from sqla_rls.catalog.query import fetch_rows, sql_file
from sqla_rls.log import autogenerate_log
from sqla_rls.snapshot import PUBLIC, Snapshot, TableKey

log = autogenerate_log(__name__)


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
    for row in fetch_rows(
        connection,
        sql_file("granted_functions_and_views"),
        {"schemas": sorted(looked_into), "roles": sorted(roles)},
    ):
        key = TableKey.of(row["nspname"], row["name"], default_schema)
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
