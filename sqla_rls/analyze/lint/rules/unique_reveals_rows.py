"""A unique key spans the rows of all owners: a conflict reveals a hidden row.

Postgres checks constraints without policies. A caller who inserts a name that a hidden row has gets
"duplicate key" (23505), and so learns that it exists. `INSERT … ON CONFLICT DO NOTHING` tells the same. Put
the owner into the key, or accept it, as for a user name that is meant to be unique.

The rule is silent about keys that callers can't write, and about primary keys of one number or uuid. It is
also silent about a key with a column that the policies take from the caller.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import RowMapping

from sqla_rls.analyze.lint.accesses import Access, accesses
from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Evidence, Finding, Remedy
from sqla_rls.analyze.lint.pinned import pinned_columns
from sqla_rls.analyze.lint.rule import rule
from sqla_rls.analyze.why.explanation import Command

_SURROGATES = ("smallint", "integer", "bigint", "uuid")
_COMMANDS: tuple[Command, ...] = ("INSERT", "UPDATE")


@rule(
    group="notes",
    level="info",
    failing="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL, slug text UNIQUE);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY read ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        CREATE POLICY add ON docs FOR INSERT TO authenticated WITH CHECK (owner_id = (SELECT auth.user_id()));
        GRANT SELECT, INSERT ON docs TO authenticated;
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL, slug text, UNIQUE (owner_id, slug));
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY read ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        CREATE POLICY add ON docs FOR INSERT TO authenticated WITH CHECK (owner_id = (SELECT auth.user_id()));
        GRANT SELECT, INSERT ON docs TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    by_table: dict[str, list[RowMapping]] = {}
    for row in database.fetch("unique_keys"):
        by_table.setdefault(row["relation"], []).append(row)
    reported = set()
    for access in accesses(database):
        if access.is_open("SELECT"):
            continue
        for row in by_table.get(access.table.name, ()):
            key: list[str] = row["columns"] or []
            columns: set[str] = {*key, *(row["mentioned"] or [])}
            command = _command(access, columns)
            if command is None or _is_surrogate(access, key, row["is_primary"]):
                continue
            if (access.table.name, row["name"]) in reported:
                continue
            reported.add((access.table.name, row["name"]))
            state = "23P01" if row["is_exclusion"] else "23505"
            yield Finding(
                object=access.table.name,
                kind="table",
                column=", ".join(sorted(columns)),
                role=access.role,
                command=command,
                text=(
                    f"{row['name']} reveals to {access.role} whether a hidden row of {access.table.name} "
                    "exists."
                ),
                evidence=[
                    Evidence(
                        kind="catalog",
                        text=(
                            f"{command} of a value that a hidden row has ends with {state}: "
                            f"{row['definition']}"
                        ),
                        data={"index": row["name"], "sqlstate": state},
                    )
                ],
                remedy=Remedy(
                    text="Add the column of the owner to the key, or accept that existence is visible.",
                    python='UniqueConstraint("owner_id", …)',
                ),
            )


def _command(access: Access, columns: set[str]) -> Command | None:
    """Return the command by which callers write a key with values of their choice."""
    for command in _COMMANDS:
        written = access.profile.inserts if command == "INSERT" else access.profile.updates
        chosen = columns & {name for name in written if access.table.columns[name].identity != "a"}
        if access.works(command) and chosen and not columns & pinned_columns(access, command):
            return command
    return None


def _is_surrogate(access: Access, columns: list[str], is_primary: bool) -> bool:
    return is_primary and len(columns) == 1 and access.table.columns[columns[0]].base in _SURROGATES
