"""Databases that differ from the models of todos, a table of documents, and the violations of a proof."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Connection, MetaData, Table, Text

from sqla_rls import Policy, anonymous, auth_uid, authenticated
from sqla_rls.analyze.prove.mutants import access_state, run
from sqla_rls.analyze.prove.proof import Proof

SELECT = '"crud-authenticated-policy-select" ON todos'
UPDATE = '"crud-authenticated-policy-update" ON todos'

#: The policies and privileges of todos, as they were.
UNDO = (
    "ALTER TABLE todos ENABLE ROW LEVEL SECURITY",
    f"DROP POLICY IF EXISTS {SELECT}",
    f"CREATE POLICY {SELECT} FOR SELECT TO authenticated USING ((SELECT auth.user_id()) = user_id)",
    f"ALTER POLICY {UPDATE} USING ((SELECT auth.user_id()) = user_id)",
    f"ALTER POLICY {UPDATE} WITH CHECK ((SELECT auth.user_id()) = user_id)",
    "DROP POLICY IF EXISTS narrow ON todos",
    "REVOKE ALL ON todos FROM anonymous",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON todos TO authenticated",
)


@contextmanager
def changed(connection: Connection, *statements: str, undo: Sequence[str] = UNDO) -> Iterator[None]:
    """Run *statements* for the block, and *undo* after it."""
    connection.commit()
    connection.execution_options(isolation_level="AUTOCOMMIT")
    run(connection, statements)
    try:
        yield
    finally:
        run(connection, undo)


def keys(proof: Proof) -> set[tuple[str, str, str]]:
    return {(one.role, one.command, one.direction) for one in proof.violations}


def access_state_of(connection: Connection) -> Any:
    connection.rollback()
    connection.execution_options(isolation_level="READ COMMITTED")
    found = access_state(connection)
    connection.rollback()
    return found


def documents(using: Any) -> Table:
    return Table(
        "documents",
        MetaData(),
        Column("id", BigInteger, primary_key=True),
        Column("author", Text),
        Column("state", Text),
        Column("in_trash", Boolean, nullable=False),
        Policy("read", "SELECT", [authenticated, anonymous], using=using),
        Policy("delete", "DELETE", authenticated, using=auth_uid("author")),
    )
