"""Policies that read each other's tables: Postgres refuses the query, so they are named before."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    URL,
    BigInteger,
    Column,
    Engine,
    MetaData,
    Table,
    Text,
    exists,
    select,
    text,
)
from sqlalchemy.exc import ProgrammingError

from sqla_rls import Policy, Role, auth_uid, declare_on, view
from tests.support.project import Project
from tests.support.suite import table

pytestmark = pytest.mark.sqlalchemy

READER = Role("circle_reader")
OTHER = Role("circle_other")


def tables() -> tuple[MetaData, Table, Table]:
    metadata = MetaData()
    teams = Table("teams", metadata, Column("id", BigInteger, primary_key=True), Column("owner", Text))
    members = Table("members", metadata, Column("team_id", BigInteger), Column("user_id", Text))
    return metadata, teams, members


def each_other(role: Role = READER, command: str = "SELECT") -> MetaData:
    metadata, teams, members = tables()
    declare_on(
        teams,
        Policy("of members", "SELECT", READER, using=exists().where(members.c.team_id == teams.c.id)),
    )
    shown = exists().where(teams.c.id == members.c.team_id, auth_uid(teams.c.owner))
    clause: dict[str, Any] = {"with_check": shown} if command == "INSERT" else {"using": shown}
    declare_on(members, Policy("of owners", command, role, **clause))
    return metadata


def own_alias(command: str = "SELECT", using: Any = None) -> MetaData:
    metadata, _, members = tables()
    other = members.alias("other")
    shown = exists().where(other.c.team_id == members.c.team_id, auth_uid(other.c.user_id))
    clause: dict[str, Any] = {"with_check": shown} if command == "INSERT" else {"using": shown}
    declare_on(members, Policy("colleagues", command, READER, **clause))
    if using is not None:
        declare_on(members, Policy("own", "SELECT", READER, using=using))
    return metadata


def through_a_view(*, security_invoker: bool) -> MetaData:
    metadata, teams, members = tables()
    ids = view("ids", metadata, select(members.c.team_id), security_invoker=security_invoker)
    declare_on(
        teams, Policy("of members", "SELECT", READER, using=exists().where(ids.c.team_id == teams.c.id))
    )
    owned = exists().where(teams.c.id == members.c.team_id)
    declare_on(members, Policy("of owners", "SELECT", READER, using=owned))
    return metadata


def as_text(own: bool) -> MetaData:
    metadata, teams, members = tables()
    if own:
        others = "EXISTS (SELECT FROM members AS other WHERE other.team_id = members.team_id)"
        declare_on(members, Policy("colleagues", "SELECT", READER, using=others))
    else:
        declare_on(teams, Policy("of members", "SELECT", READER, using="id IN (SELECT team_id FROM members)"))
        owned = exists().where(teams.c.id == members.c.team_id)
        declare_on(members, Policy("of owners", "SELECT", READER, using=owned))
    return metadata


#: The models, a statement, and whether Postgres refuses it to ``circle_reader``.
CASES: dict[str, tuple[Callable[[], MetaData], str, bool]] = {
    "each other": (each_other, "SELECT FROM teams", True),
    "its own": (own_alias, "SELECT FROM members", True),
    "for all commands": (lambda: each_other(command="ALL"), "SELECT FROM members", True),
    "other roles": (lambda: each_other(OTHER), "SELECT FROM teams", False),
    "writing, and reading by a subquery": (
        lambda: own_alias("INSERT", auth_uid("user_id")),
        "INSERT INTO members VALUES (1, 'alice')",
        True,
    ),
    "writing, and reading without one": (
        lambda: own_alias("INSERT", "team_id > 0"),
        "INSERT INTO members SELECT 1, 'alice' WHERE false",
        False,
    ),
    "writing only": (lambda: each_other(command="INSERT"), "SELECT FROM teams", False),
    "a view read as its reader": (lambda: through_a_view(security_invoker=True), "SELECT FROM teams", True),
    "a view read as its owner": (lambda: through_a_view(security_invoker=False), "SELECT FROM teams", False),
    "text": (lambda: as_text(own=False), "SELECT FROM teams", True),
    "its own by text": (lambda: as_text(own=True), "SELECT FROM members", True),
}


def statement_is_refused(engine: Engine, statement: str) -> bool:
    with engine.connect() as connection:
        for relation in ("teams", "members"):
            connection.execute(text(f"GRANT ALL ON {relation} TO circle_reader"))
        if connection.scalar(text("SELECT to_regclass('ids') IS NOT NULL")):
            connection.execute(text("GRANT SELECT ON ids TO circle_reader"))
        connection.execute(text("SET LOCAL ROLE circle_reader"))
        try:
            connection.execute(text(statement))
        except ProgrammingError as error:
            return "infinite recursion detected in policy" in str(error)
        return False


@pytest.mark.exhaustive
@table("case", CASES)
def test_autogenerate_names_what_postgres_will_refuse(
    tmp_path: Path, database: URL, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    models, statement, refused = CASES[case]
    project = Project(tmp_path / "migrations", database)
    with caplog.at_level(logging.WARNING, logger="alembic.autogenerate.sqla_rls"):
        written = project.revision(models())
        known = "in a circle" in caplog.text
        project.upgrade()
        caplog.clear()
        project.check(models())
    assert statement_is_refused(project.engine, statement) is refused
    assert ("in a circle" in caplog.text) is refused
    # Tables that are yet to be made can't be looked for in SQL text.
    assert known is (refused and "text" not in case)
    assert ("# queries will fail with 42P17, infinite recursion: " in written) is known


@pytest.mark.parametrize("text", [False, True])
def test_create_all_names_them(engine: Engine, text: bool, caplog: pytest.LogCaptureFixture) -> None:
    (as_text(own=False) if text else each_other()).create_all(engine)
    assert (
        "circle, members (policy of owners) → teams (policy of members) → members" in caplog.text
        or "circle, teams (policy of members) → members (policy of owners) → teams" in caplog.text
    )
