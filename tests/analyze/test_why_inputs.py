"""Why, for tables and keys of every kind: the verdict of the real command, or an error with the next step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import Enum
from typing import Any

import pytest
from sqlalchemy import ARRAY, JSON, Computed, Connection, Engine, Text, func, text
from sqlalchemy import Enum as EnumType
from sqlalchemy.dialects.postgresql import INT4RANGE, Range
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sqla_rls import Caller
from sqla_rls.analyze import explain_access
from sqla_rls.analyze.why.explanation import Command
from sqla_rls.exc import AnalysisError
from sqla_rls.testing.postgres import Server
from tests.support.scripts import database_of
from tests.support.suite import table
from tests.tables.why_inputs import ALICE, BOB, CASES, ROLE, SETUP

pytestmark = pytest.mark.every_postgres


@pytest.fixture(scope="module")
def owner(server: Server, template: str) -> Iterator[Engine]:
    with database_of(server, template, SETUP, role=ROLE) as engine:
        yield engine


def really(
    connection: Connection, caller: Caller, statement: str, values: dict[str, Any] | None = None
) -> bool:
    """Whether the command itself works, and finds a row."""
    savepoint = connection.begin_nested()
    try:
        connection.execute(
            text("SELECT set_config('role', :role, true), set_config('request.jwt.claims', :claims, true)"),
            {"role": caller.role, "claims": json.dumps(dict(caller.claims))},
        )
        done = connection.execute(text(statement), values or {})
        return (len(done.all()) if done.returns_rows else done.rowcount) >= 1
    except DBAPIError:
        return False
    finally:
        savepoint.rollback()


@table(
    ("caller", "table", "command", "key", "row", "reason", "statement"),
    CASES,
    kind=lambda row: row[5],
)
@pytest.mark.exhaustive
def test_the_answer_is_that_of_the_real_command(
    connection: Connection,
    caller: Caller,
    table: str,
    command: Command,
    key: Any,
    row: dict[str, Any],
    reason: str,
    statement: str,
) -> None:
    explained = explain_access(connection, caller, table, command, key=key, row=row)
    assert (explained.reason, explained.allowed) == (reason, really(connection, caller, statement)), explained


@pytest.mark.parametrize(
    ("target", "options", "hint"),
    [
        ("no_key", {"key": 1}, r"primary key of table public.no_key \(none\).*mapping"),
        ("no_key", {"key": {"a": "bob"}}, "several rows"),
        ("no_key", {"key": {"b": "one"}}, "invalid input syntax.*Give values"),
        ("by_bytes", {"key": {}}, "mapping"),
        ("keyed", {"key": {"k": {}}}, "json = json.*compare"),
        ("keyed", {"key": {"i": "1"}}, "array.*Give values"),
        ("keyed", {"key": {"m": "angry"}}, "enum.*Give values"),
        ("people", {"key": 10**20}, "out of range.*Give values"),
        ("people", {"command": "INSERT", "row": {"id": "x"}}, "invalid input syntax.*Give values"),
        ("people", {"command": "UPDATE", "key": 1, "row": {"home": "x"}}, "Give values"),
        ("made", {"command": "INSERT", "row": {"doubled": 1}}, "'doubled'.*generates it. Leave it out"),
        ("made", {"command": "INSERT", "row": {"id": 1}}, "'id'.*generates it. Leave it out"),
        ("made", {"command": "UPDATE", "key": 1, "row": {"id": 9}}, "'id'.*generates it. Leave it out"),
        ("abroad", {"key": 1}, "foreign table.*compare its grants"),
        ("stored", {"key": 1}, r"materialized view.*public\.people.*compare its grants"),
        (
            "lent",
            {"key": 1},
            r'without security_invoker.*reads public\."Select Me: 100%", public\.people, .*role .postgres',
        ),
        (
            "invoked",
            {"key": 1},
            r"with security_invoker.*reads public\.people, with the rights of the caller",
        ),
        ("numbers", {"key": 1}, "no table"),
        ("people_pkey", {"key": 1}, "no table"),
        ("no.such.place.at_all", {"key": 1}, "can't be explained: improper relation name"),
        ('"unclosed', {"key": 1}, "can't be explained: (invalid name|the database has no such table)"),
        ("", {"key": 1}, "can't be explained: (invalid name|the database has no such table)"),
    ],
)
def test_a_question_that_has_no_answer_says_why(
    connection: Connection, target: str, options: dict[str, Any], hint: str
) -> None:
    with pytest.raises(AnalysisError, match=hint):
        explain_access(connection, ALICE, target, **options)
    # The transaction of the owner goes on.
    assert connection.scalar(text("SELECT 1")) == 1


@pytest.mark.exhaustive
def test_a_temporary_table_is_that_of_the_session(connection: Connection) -> None:
    connection.exec_driver_sql(
        "CREATE TEMPORARY TABLE mine (id int PRIMARY KEY, owner text);"
        "ALTER TABLE mine ENABLE ROW LEVEL SECURITY;"
        "CREATE POLICY p ON mine USING (owner = auth.user_id());"
        "INSERT INTO mine VALUES (1, 'alice'), (2, 'bob');"
        "GRANT SELECT ON mine TO input_reader"
    )
    for key, reason in ((1, "allowed"), (2, "permissive_false")):
        explained = explain_access(connection, ALICE, "mine", key=key)
        statement = f"SELECT FROM mine WHERE id = {key}"
        assert (explained.reason, explained.allowed) == (reason, really(connection, ALICE, statement))


@pytest.mark.exhaustive
@pytest.mark.parametrize("included", ["", "INCLUDE (note)"])
def test_the_values_of_a_key_have_the_order_of_the_primary_key(connection: Connection, included: str) -> None:
    connection.exec_driver_sql(
        f"CREATE TEMPORARY TABLE mine (org text, note text, owner text, PRIMARY KEY (owner, org) {included});"
        "ALTER TABLE mine ENABLE ROW LEVEL SECURITY;"
        "CREATE POLICY p ON mine USING (owner = auth.user_id());"
        "INSERT INTO mine VALUES ('alice', 'x', 'bob'), ('bob', 'y', 'alice');"
        "GRANT SELECT ON mine TO input_reader"
    )
    assert explain_access(connection, ALICE, "mine", key=["alice", "bob"]).reason == "allowed"
    assert explain_access(connection, ALICE, "mine", key=["bob", "alice"]).reason == "permissive_false"


@pytest.mark.exhaustive
def test_a_virtual_column_has_its_value(connection: Connection, server: Server) -> None:
    if server.version < 18:
        pytest.skip("virtual columns are new in PostgreSQL 18")
    connection.exec_driver_sql(
        "CREATE TABLE virtual (id int PRIMARY KEY, a int, doubled int GENERATED ALWAYS AS (a * 2) VIRTUAL);"
        "ALTER TABLE virtual ENABLE ROW LEVEL SECURITY;"
        "CREATE POLICY p ON virtual USING (doubled > 10);"
        "INSERT INTO virtual VALUES (1, 1), (2, 6);"
        "GRANT SELECT, INSERT ON virtual TO input_reader"
    )
    for key, reason in ((1, "permissive_false"), (2, "allowed")):
        assert explain_access(connection, ALICE, "virtual", key=key).reason == reason
    for a, reason in ((1, "check_false"), (6, "allowed")):
        assert explain_access(connection, ALICE, "virtual", "INSERT", row={"id": 9, "a": a}).reason == reason


def test_a_trigger_is_named(connection: Connection) -> None:
    connection.exec_driver_sql(
        "CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';"
        "CREATE TRIGGER stamp BEFORE INSERT ON no_key FOR EACH ROW EXECUTE FUNCTION pass()"
    )
    explained = explain_access(connection, ALICE, "no_key", "INSERT", row={"a": "alice"})
    assert explained.notes == ("Trigger 'stamp' isn't part of the answer: it may change or skip the row.",)
    assert explained.notes[0] in str(explained)
    assert not explain_access(connection, ALICE, "no_key", key={"b": None}).notes


class Mood(Enum):
    HAPPY = "glad"
    UNHAPPY = "sad"


class Base(DeclarativeBase):
    pass


class Entry(Base):
    __tablename__ = "entries"

    mood: Mapped[Mood] = mapped_column(
        EnumType(Mood, native_enum=False, values_callable=lambda kind: [one.value for one in kind]),
        primary_key=True,
    )
    said: Mapped[dict[str, Any]] = mapped_column("spoken", JSON)
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text))
    span: Mapped[Range[int]] = mapped_column(INT4RANGE)
    loud: Mapped[str] = mapped_column(Text, Computed("upper(tags[1])", persisted=True))


def test_an_instance_has_the_values_of_the_database(connection: Connection) -> None:
    Base.metadata.create_all(connection)
    connection.exec_driver_sql(
        "ALTER TABLE entries ENABLE ROW LEVEL SECURITY;"
        "CREATE POLICY p ON entries USING (spoken ->> 'by' = auth.user_id() AND loud = 'A' AND 3 <@ span);"
        "GRANT SELECT, INSERT ON entries TO input_reader"
    )
    entry = Entry(mood=Mood.UNHAPPY, said={"by": "alice"}, tags=["a"], span=Range(1, 5))
    assert explain_access(connection, ALICE, entry, "INSERT").allowed
    assert explain_access(connection, BOB, entry, "INSERT").reason == "check_false"
    with Session(connection, join_transaction_mode="create_savepoint") as session:
        session.add(entry)
        session.commit()
        session.refresh(entry)
        assert explain_access(connection, ALICE, entry).allowed
        assert explain_access(connection, BOB, entry).reason == "permissive_false"
        assert explain_access(connection, ALICE, entry, "INSERT").reason == "unique"
        unknown = Entry(mood=Mood.HAPPY, said=func.now())
        with pytest.raises(AnalysisError, match="SQL expression"):
            explain_access(connection, ALICE, unknown, "INSERT")
