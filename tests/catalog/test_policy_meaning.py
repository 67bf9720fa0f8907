"""What the text of a policy means doesn't depend on when it is made, nor on the session that makes it."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import (
    URL,
    Column,
    Date,
    DateTime,
    Engine,
    Interval,
    MetaData,
    Table,
    Text,
    Time,
    create_engine,
    func,
    select,
    text,
)
from sqlalchemy.pool import NullPool

from sqla_rls import Policy
from sqla_rls.ddl.policies import AlterPolicy
from sqla_rls.exc import DeclarationError
from sqla_rls.snapshot import PolicyKey, TableKey
from tests.support.project import Project
from tests.support.suite import first_and_rest

#: A session in which next to nothing is read or spelled as usual.
ODD_SETTINGS = {
    "TimeZone": "Asia/Tokyo",
    "DateStyle": "German",
    "IntervalStyle": "sql_standard",
    "search_path": "public,elsewhere",
    "transform_null_equals": "on",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
}


def events(*expressions: str) -> MetaData:
    metadata = MetaData()
    Table(
        "events",
        metadata,
        Column("at", DateTime(timezone=True)),
        Column("local", DateTime),
        Column("day", Date),
        Column("hour", Time),
        Column("zoned", Time(timezone=True)),
        Column("lasts", Interval),
        Column("name", Text),
        *[Policy(f"policy {number}", using=using) for number, using in enumerate(expressions)],
    )
    return metadata


@pytest.fixture
def odd(database: URL) -> URL:
    options = " ".join(f"-c {name}={value}" for name, value in ODD_SETTINGS.items())
    return database.update_query_dict({"options": options})


MOMENTS = [
    "at > 'now'",
    "at > 'now'::timestamptz(0)",
    "at >= 'today'",
    "at < 'tomorrow'",
    "at = ANY ('{now,infinity}')",
    "'[now,)'::tstzrange @> at",
    "local < 'now'",
    "local > 'yesterday'",
    "day IN ('2020-01-01', 'today')",
    "day = 'now'",
    "hour < 'now'",
    "zoned < 'now'",
    "name = '' AND EXISTS (SELECT FROM events AS e WHERE e.day < date 'today')",
]


@first_and_rest("expressions", MOMENTS)
def test_the_moment_of_the_migration_is_refused(
    engine: Engine, expressions: list[str], subtests: pytest.Subtests
) -> None:
    refusal = r"policy 0 on events would keep the time of its creation: .* Write now\(\)"
    for using in expressions:
        with subtests.test(using), engine.connect() as connection, engine.connect() as other:
            with pytest.raises(DeclarationError, match=refusal):
                events(using).create_all(connection)
            assert other.scalar(text("SELECT count(*) FROM pg_policy")) == 0


LASTING = [
    "at > now() AND day = CURRENT_DATE",
    "at > '2020-01-01'",
    "at BETWEEN '2020-01-01 00:00+01' AND 'infinity'",
    "local BETWEEN '03.04.2020 10:00' AND 'epoch'",
    "day = '01/02/2020'",
    "hour = 'allballs' OR zoned = '10:00+02'",
    "lasts > '-1 2:03:04'",
    "name = NULL OR name IS NULL",
    "convert_to(name, 'UTF8') = '\\x00ff'::bytea",
    "length(name) > 0.1::float8 + 0.2::float8",
    "zone.known(name)",
    "known(name) AND name::regclass = 'events'::regclass",
]


@pytest.mark.exhaustive
def test_the_session_settings_change_neither_meaning_nor_verdict(
    tmp_path: Path, database: URL, engine: Engine, odd: URL
) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA zone"))
        connection.execute(text("CREATE SCHEMA elsewhere"))
        for schema in ("zone", "elsewhere", "public"):
            function = f"{schema}.known(text) RETURNS boolean LANGUAGE sql IMMUTABLE RETURN true"
            connection.execute(text(f"CREATE FUNCTION {function}"))
    project = Project(tmp_path / "migrations", database)
    project.migrate(events(*LASTING))
    made = project.state()
    project.url = odd
    project.check(events(*LASTING))
    project.downgrade()

    project.upgrade()
    assert project.state() == made
    project.url = database
    project.check(events(*LASTING))


def test_what_was_set_before_is_set_afterwards(engine: Engine, odd: URL) -> None:
    events("at > '2020-01-01'").create_all(engine)
    with create_engine(odd, poolclass=NullPool).begin() as connection:
        connection.execute(text("SET LOCAL TimeZone = 'Europe/Rome'"))
        connection.execute(
            AlterPolicy(PolicyKey(TableKey(None, "events"), "policy 0"), using="day > '1/2/2020'")
        )
        for name, value in {**ODD_SETTINGS, "TimeZone": "Europe/Rome"}.items():
            setting = connection.execute(select(func.current_setting(name))).scalar_one()
            assert setting.replace(" ", "").startswith(value), name
