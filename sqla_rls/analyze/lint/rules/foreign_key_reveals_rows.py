"""A foreign key reveals which hidden rows exist.

Postgres checks foreign keys without policies. A caller who inserts a reference to a hidden row succeeds,
and gets 23503 for one that doesn't exist. A caller who deletes a row gets 23503 if a hidden row refers to
it. Compare the reference in WITH CHECK with rows that the caller may read, or put the owner into both keys.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import RowMapping

from sqla_rls.analyze.lint.accesses import Access, accesses
from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Evidence, Finding, Remedy
from sqla_rls.analyze.lint.pinned import looked_up_columns, pinned_columns
from sqla_rls.analyze.lint.rule import rule
from sqla_rls.analyze.why.explanation import Command

_COMMANDS: tuple[Command, ...] = ("INSERT", "UPDATE")


@rule(
    group="notes",
    level="info",
    failing="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        CREATE TABLE notes (id int PRIMARY KEY, owner_id text NOT NULL, doc_id int REFERENCES docs);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
        CREATE POLICY read ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        CREATE POLICY own ON notes TO authenticated
          USING (owner_id = (SELECT auth.user_id())) WITH CHECK (owner_id = (SELECT auth.user_id()));
        GRANT SELECT ON docs TO authenticated;
        GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO authenticated;
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL, UNIQUE (owner_id, id));
        CREATE TABLE notes (
          id int PRIMARY KEY, owner_id text NOT NULL, doc_id int,
          FOREIGN KEY (owner_id, doc_id) REFERENCES docs (owner_id, id)
        );
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
        CREATE POLICY read ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        CREATE POLICY own ON notes TO authenticated
          USING (owner_id = (SELECT auth.user_id())) WITH CHECK (owner_id = (SELECT auth.user_id()));
        GRANT SELECT ON docs TO authenticated;
        GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    found = {(one.table.name, one.role): one for one in accesses(database)}
    for row in database.fetch("keys_between_tables"):
        for role in (one.name for one in database.callers):
            child, parent = found.get((row["child"], role)), found.get((row["parent"], role))
            if parent is None:
                continue
            if child is not None and not parent.is_open("SELECT"):
                yield from _parents_revealed(row, child)
            if child is None or not child.is_open("SELECT"):
                yield from _children_revealed(row, child, parent)


def _parents_revealed(row: RowMapping, child: Access) -> Iterator[Finding]:
    columns = set(row["columns"])
    for command in _COMMANDS:
        written = child.profile.inserts if command == "INSERT" else child.profile.updates
        if (
            child.works(command)
            and columns & set(written)
            and not columns & pinned_columns(child, command)
            and not columns <= looked_up_columns(child, command)
        ):
            yield _finding(
                row["child"],
                ", ".join(row["columns"]),
                child.role,
                command,
                f"{row['name']} reveals to {child.role} which rows of {row['parent']} exist.",
                f"{command} succeeds with the key of a hidden row, and ends with 23503 otherwise",
            )
            return


def _children_revealed(row: RowMapping, child: Access | None, parent: Access) -> Iterator[Finding]:
    is_pinned = child is not None and not pinned_columns(child, "INSERT").isdisjoint(row["columns"])
    if row["restricts"] and parent.works("DELETE") and not is_pinned:
        yield _finding(
            row["parent"],
            ", ".join(row["columns"]),
            parent.role,
            "DELETE",
            f"{row['name']} reveals to {parent.role} that a hidden row of {row['child']} refers to a row.",
            "DELETE ends with 23503 if a hidden row refers to the row",
        )


def _finding(name: str, column: str, role: str, command: str, text: str, fact: str) -> Finding:
    return Finding(
        object=name,
        kind="table",
        column=column,
        role=role,
        command=command,
        text=text,
        evidence=[Evidence(kind="catalog", text=fact, data={"sqlstate": "23503", "role": role})],
        remedy=Remedy(
            text=(
                "Add the column of the owner to both keys, or compare the reference in WITH CHECK. "
                "For DELETE: ON DELETE CASCADE or SET NULL."
            ),
            python='ForeignKeyConstraint(["owner_id", "doc_id"], ["docs.owner_id", "docs.id"])',
        ),
    )
