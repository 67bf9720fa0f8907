"""ON DELETE and ON UPDATE of foreign keys, and FOREIGN KEY … PERIOD: compared with the real command."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from sqla_rls.analyze import explain_access
from sqla_rls.analyze.why.explanation import Command
from sqla_rls.exc import AnalysisError
from sqla_rls.testing.postgres import Server
from tests.analyze.test_why import ALICE, really
from tests.support.scripts import database_of

SETUP = """
CREATE TABLE teams (id int PRIMARY KEY, code int UNIQUE);
CREATE TABLE rooms (id int PRIMARY KEY, team_id int NOT NULL REFERENCES teams ON DELETE SET NULL);
CREATE TABLE notes (id int PRIMARY KEY, team_id int REFERENCES teams ON DELETE SET NULL);
CREATE TABLE tasks (id int PRIMARY KEY, team_id int REFERENCES teams ON DELETE CASCADE,
  parent_id int REFERENCES tasks ON DELETE CASCADE);
CREATE TABLE files (id int PRIMARY KEY, task_id int REFERENCES tasks);
CREATE TABLE links (id int PRIMARY KEY, team_id int REFERENCES teams ON DELETE SET NULL,
  CHECK (team_id IS NOT NULL));
CREATE TABLE codes (id int PRIMARY KEY, code int REFERENCES teams (code) ON UPDATE CASCADE);
CREATE TABLE pinned (id int PRIMARY KEY, code int NOT NULL REFERENCES teams (code) ON UPDATE SET NULL);
INSERT INTO teams SELECT n, n FROM generate_series(1, 9) AS n;
INSERT INTO rooms VALUES (1, 1);
INSERT INTO notes VALUES (1, 2);
INSERT INTO tasks VALUES (1, 3, NULL), (2, NULL, 1), (3, 4, NULL), (4, NULL, 3), (5, NULL, 4);
INSERT INTO files VALUES (1, 5);
INSERT INTO links VALUES (1, 5);
INSERT INTO codes VALUES (1, 6);
INSERT INTO pinned VALUES (1, 7);
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO why_reader;
GRANT USAGE ON SCHEMA auth TO why_reader;
"""
PERIODS = """
CREATE TABLE stays (room int4range, during int4range, id int, PRIMARY KEY (room, during WITHOUT OVERLAPS));
CREATE TABLE bills (id int PRIMARY KEY, room int4range, during int4range,
  FOREIGN KEY (room, PERIOD during) REFERENCES stays (room, PERIOD during));
INSERT INTO stays VALUES ('[1,2)', '[1,5)', 1), ('[1,2)', '[5,9)', 2), ('[2,3)', '[1,5)', 3);
INSERT INTO bills VALUES (1, '[1,2)', '[4,6)');
GRANT SELECT, INSERT, UPDATE, DELETE ON stays, bills TO why_reader;
"""

#: The table, the command, the key, the new values, and the reason.
CASES: dict[str, tuple[str, Command, int, dict[str, Any], str]] = {
    "SET NULL of a column that is NOT NULL": ("teams", "DELETE", 1, {}, "constraint"),
    "SET NULL": ("teams", "DELETE", 2, {}, "row_security_off"),
    "CASCADE, and on": ("teams", "DELETE", 3, {}, "row_security_off"),
    "CASCADE to a row that is referred to": ("teams", "DELETE", 4, {}, "foreign_key"),
    "no row refers to it": ("teams", "DELETE", 8, {}, "row_security_off"),
    "ON UPDATE CASCADE": ("teams", "UPDATE", 6, {"code": 60}, "row_security_off"),
    "ON UPDATE SET NULL of a column that is NOT NULL": ("teams", "UPDATE", 7, {"code": 70}, "constraint"),
    "an UPDATE of another column": ("teams", "UPDATE", 7, {"code": 7}, "row_security_off"),
}


@pytest.fixture(scope="module")
def owner(server: Server, template: str) -> Iterator[Engine]:
    """The superuser of a database with foreign keys of each action."""
    with database_of(server, template, SETUP, role="why_reader") as engine:
        yield engine


def test_the_actions_of_foreign_keys_are_followed(connection: Connection, subtests: pytest.Subtests) -> None:
    for name, (table, command, key, row, reason) in CASES.items():
        with subtests.test(name):
            found = explain_access(connection, ALICE, table, command, key=key, row=row)
            connection.rollback()
            assert found.reason == reason
            assert found.allowed is really(connection, ALICE, table, command, key, row)


def test_an_action_that_may_break_another_constraint_has_no_answer(connection: Connection) -> None:
    with pytest.raises(
        AnalysisError, match=r"'links_team_id_fkey' of links with SET NULL .* links_team_id_check"
    ):
        explain_access(connection, ALICE, "teams", "DELETE", key=5)


def test_a_key_with_a_period_is_held_by_several_rows(connection: Connection) -> None:
    if int(connection.scalar(text("SHOW server_version_num")) or 0) < 180000:
        pytest.skip("FOREIGN KEY … PERIOD is of PostgreSQL 18")
    connection.exec_driver_sql(PERIODS)
    connection.commit()
    for number, (room, during) in enumerate(
        [("[1,2)", "[2,3)"), ("[1,2)", "[2,8)"), ("[1,2)", "[2,10)"), ("[2,3)", "[3,6)"), ("[7,8)", "[1,2)")],
        2,
    ):
        row = {"id": number, "room": room, "during": during}
        found = explain_access(connection, ALICE, "bills", "INSERT", row=row)
        connection.rollback()
        assert found.allowed is really(connection, ALICE, "bills", "INSERT", None, row)
    assert explain_access(connection, ALICE, "stays", "DELETE", key={"id": 3}).allowed
    with pytest.raises(AnalysisError, match="PERIOD"):
        explain_access(connection, ALICE, "stays", "DELETE", key={"id": 1})
