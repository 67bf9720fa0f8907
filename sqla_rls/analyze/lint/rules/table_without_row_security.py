"""A table without row security can be reached by callers.

Each role with a privilege on the table reaches all of its rows. Enable row security, and state which rows
are whose. For a list that all callers may read, enable it with a policy `USING (true)`, so that the intent
is in the schema.

A view without security_invoker reaches the table with the rights of its owner. Callers then need no privilege
on the table. The finding is an info if signed-in callers only read through the view: it may be what they are
meant to see. A view that asks for the caller isn't found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from sqlalchemy import text

from sqla_rls.analyze.lint.callers import view_asks
from sqla_rls.analyze.lint.database import Database, listed
from sqla_rls.analyze.lint.finding import Evidence, Finding, Remedy
from sqla_rls.analyze.lint.rule import rule
from sqla_rls.analyze.worlds.acting import CALLER, reach_of
from sqla_rls.analyze.worlds.objects import PUBLIC, Relation

_IS_UPDATABLE: Final = text(
    "SELECT pg_catalog.pg_relation_is_updatable(CAST(:oid AS pg_catalog.oid), false) <> 0"
)


@rule(
    group="openings",
    level="error",
    failing="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        GRANT SELECT, INSERT ON docs TO authenticated;
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        CREATE TABLE countries (code text PRIMARY KEY);
        ALTER TABLE countries ENABLE ROW LEVEL SECURITY;
        CREATE POLICY read ON countries FOR SELECT TO authenticated USING (true);
        GRANT SELECT ON countries TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    below = {child for one in database.schema.relations.values() if one.policies for child in one.children}
    views = _views_by_table(database)
    for table in database.tables:
        if table.row_security or table.policies or table.name in below:
            continue
        roles = database.roles_with_privileges(table.name)
        if not roles:
            yield from _through_views(database, table, views.get(table.name, []))
            continue
        writers = database.roles_with_privileges(table.name, "INSERT", "UPDATE", "DELETE")
        readers = database.roles_with_privileges(table.name, "SELECT")
        is_open = bool(writers) or _have_anonymous(database, readers)
        verb = "change" if writers else "read"
        yield Finding(
            object=table.name,
            kind="table",
            # Alembic's table has one row, the number of a revision.
            level="info"
            if table.relname == "alembic_version" and not writers
            else "error"
            if is_open
            else "warning",
            text=f"Table {table.name} has no row security, and callers may {verb} all of its rows.",
            evidence=[
                Evidence(
                    kind="catalog",
                    text=f"pg_class.relrowsecurity is false, and {listed(roles)} may {verb} the table",
                    data={"relrowsecurity": False, "readers": readers, "writers": writers},
                )
            ],
            remedy=Remedy(
                sql=f"ALTER TABLE {table.name} ENABLE ROW LEVEL SECURITY;",
                python="a policy in __table_args__: own_rows(…), crud_policy(…) or Policy(…)",
                text="Add the policies, too: without one, callers reach no row.",
            ),
        )


def _have_anonymous(database: Database, roles: Sequence[str]) -> bool:
    # PUBLIC is the role of callers without a token, too.
    return PUBLIC in roles or any(map(database.is_anonymous, roles))


def _views_by_table(database: Database) -> Mapping[str, list[Relation]]:
    """Return the views that read a table with the rights of their owner, and don't ask for the caller."""
    schema = database.schema
    found: dict[str, list[Relation]] = {}
    for view in database.relations:
        if view.kind != "v" or not database.roles_with_privileges(view.name):
            continue
        read = reach_of(schema, view.name).relations
        views = [view, *(one for name, _ in read if (one := schema.relations[name]).is_view)]
        if any(view_asks(schema, one) for one in views):
            continue
        for name in sorted(
            {name for name, role in read if role != CALLER and _may_read(database, role, name)}
        ):
            found.setdefault(name, []).append(view)
    return found


def _may_read(database: Database, role: str, name: str) -> bool:
    attributes = database.schema.roles.get(role)
    return (
        (attributes is not None and attributes.is_superuser)
        or database.schema.relations[name].owner in database.rights_of(role)
        or database.holds(role, "relation", name, "SELECT")
    )


def _through_views(database: Database, table: Relation, views: Sequence[Relation]) -> Iterator[Finding]:
    for view in views:
        readers = database.roles_with_privileges(view.name, "SELECT")
        writers = database.roles_with_privileges(view.name, "INSERT", "UPDATE", "DELETE")
        if writers and not database.connection.scalar(_IS_UPDATABLE, {"oid": str(view.oid)}):
            writers = []
        if not (readers or writers):
            continue
        verb = "change" if writers else "read"
        is_open = bool(writers) or _have_anonymous(database, readers)
        yield Finding(
            object=table.name,
            kind="table",
            level="warning" if is_open else "info",
            text=(
                f"Table {table.name} has no row security, and callers may {verb} it through view {view.name}."
            ),
            evidence=[
                Evidence(
                    kind="catalog",
                    text=(
                        f"pg_class.relrowsecurity is false; {listed(writers or readers)} may {verb} the "
                        f"view, which has no security_invoker; its owner is {view.owner}"
                    ),
                    data={
                        "relrowsecurity": False,
                        "view": view.name,
                        "owner": view.owner,
                        "readers": readers,
                        "writers": writers,
                    },
                )
            ],
            remedy=Remedy(
                sql=(
                    f"ALTER TABLE {table.name} ENABLE ROW LEVEL SECURITY; "
                    f"ALTER VIEW {view.name} SET (security_invoker = true);"
                ),
                python="a policy in __table_args__, and view(…, security_invoker=True)",
                text="The policies then hold for the caller, who needs a privilege on the table.",
            ),
        )
