"""Autogenerate warns of what a migration exposes, but not of what the models declare."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from sqlalchemy import MetaData

from sqla_rls import Policy, Role, authenticated, disable_row_level_security, force_row_level_security, grant
from sqla_rls.exc import ExposureNotConfirmed
from tests.support.project import Project, execute, operations, todos
from tests.support.suite import table

pytestmark = pytest.mark.exhaustive

READER = Role("reporting")


def narrow(using: str = "task <> ''", *, permissive: bool = False) -> Policy:
    return Policy("narrow", "SELECT", authenticated, using=using, permissive=permissive)


def read() -> Policy:
    return Policy("read", "SELECT", authenticated, using=True)


def exposures(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno == logging.WARNING and "exposes" in record.getMessage()
    ]


def test_exposing_a_table_says_to_whom(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    project.migrate(todos(read(), grant("SELECT", to=READER)))
    project.revision(todos(disable_row_level_security(), grant("SELECT", to=READER)))
    assert exposures(caplog) == [
        "this migration exposes table todos: without row security reporting can reach every row"
    ]


def test_to_whom_not_is_said_too(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    project.migrate(todos(read()))
    project.revision(todos(disable_row_level_security()))
    (said,) = exposures(caplog)
    assert said.endswith("only its owner can reach every row")


def test_an_owner_who_is_no_longer_bound_is_named(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    project.migrate(todos(read(), force_row_level_security()))
    project.revision(todos(read()))
    (said,) = exposures(caplog)
    assert (
        said == "this migration exposes table todos: row security is no longer forced on its owner postgres"
    )


def test_a_restrictive_policy_that_goes_is_said_to_expose(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    project.migrate(todos(read(), narrow()))
    project.revision(todos(read()))
    (said,) = exposures(caplog)
    assert said.endswith("restrictive policy 'narrow' no longer limits authenticated")


def test_one_that_was_made_by_hand_as_well(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    project.migrate(todos(read()))
    execute(project, "CREATE POLICY by_hand ON todos AS RESTRICTIVE USING (false)")
    project.revision(todos(read()))
    (said,) = exposures(caplog)
    assert "restrictive policy 'by_hand' no longer limits public" in said


@pytest.mark.parametrize(
    "before",
    [lambda: todos(read(), narrow()), lambda: todos(read(), force_row_level_security())],
    ids=["a restrictive policy goes", "no longer forced"],
)
def test_what_opens_by_omission_is_done_when_it_is_confirmed(
    project: Project, before: Callable[[], MetaData]
) -> None:
    closed = project.migrate(before())
    assert "confirm_exposure" not in closed
    before_it = project.state()
    assert operations(project.revision(todos(read())))[0] == "confirm_exposure"

    with pytest.raises(ExposureNotConfirmed, match=r"it exposes table todos, since .* confirmed=True"):
        project.upgrade()
    with pytest.raises(ExposureNotConfirmed):
        project.script("upgrade", "head")
    assert project.state() == before_it

    project.confirm()
    project.upgrade()
    project.check(todos(read()))
    project.downgrade()
    assert project.state() == before_it


def test_what_the_models_say_in_so_many_words_needs_no_other(project: Project) -> None:
    project.migrate(todos(read(), force_row_level_security()))
    assert "confirm_exposure" not in project.migrate(todos(disable_row_level_security()))


def test_the_way_back_is_not_asked_about(project: Project) -> None:
    project.migrate(todos(read()))
    opened = project.state()
    project.migrate(todos(read(), narrow(), force_row_level_security()))
    project.downgrade()
    assert project.state() == opened


@pytest.mark.parametrize(
    "after",
    [
        lambda: todos(narrow("task <> ''")),
        lambda: todos(read(), narrow("task = ''")),
        lambda: todos(read(), narrow(permissive=True)),
        lambda: todos(read(), narrow(), force_row_level_security()),
        lambda: todos(),
        MetaData,
    ],
    ids=["permissive gone", "altered", "made permissive", "forced", "nothing declared", "table dropped"],
)
def test_nothing_is_said_of_what_closes_or_is_explicit(
    project: Project, after: Callable[[], MetaData], caplog: pytest.LogCaptureFixture
) -> None:
    project.migrate(todos(read(), narrow()))
    project.revision(after())
    assert exposures(caplog) == []


EDITOR = Role("rls_test_editor", member_of=[authenticated])


@table(
    ("restricted", "permitted", "command", "is_warned_of"),
    [
        ([authenticated], ["PUBLIC"], "SELECT", True),
        ([authenticated, READER], ["PUBLIC"], "ALL", True),
        ([EDITOR], [authenticated], "SELECT", True),
        ([authenticated], [EDITOR], "SELECT", True),
        (["PUBLIC"], ["PUBLIC"], "SELECT", False),
        ([authenticated], [authenticated, READER], "SELECT", False),
        ([authenticated], ["PUBLIC"], "DELETE", False),
    ],
)
def test_a_restrictive_policy_that_a_caller_can_drop_is_warned_of(
    project: Project,
    caplog: pytest.LogCaptureFixture,
    restricted: list[Role | str],
    permitted: list[Role | str],
    command: str,
    is_warned_of: bool,
) -> None:
    project.revision(
        todos(
            Policy("restrictive", "SELECT", restricted, using=True, permissive=False),
            Policy("permissive", command, permitted, using=True),
        )
    )
    assert [
        record.name.startswith("alembic.autogenerate.")
        for record in caplog.records
        if "permissive policy permissive stays" in record.getMessage()
    ] == [True] * is_warned_of


def test_what_callers_hold_past_row_security_is_warned_of(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    project.migrate(todos(read()))
    caplog.clear()
    project.check(todos(read()))
    assert "row security doesn't reach" not in caplog.text
    execute(
        project,
        "DO 'BEGIN CREATE ROLE anonymous; EXCEPTION WHEN duplicate_object THEN END'",
        "DO 'BEGIN CREATE ROLE reporting; EXCEPTION WHEN duplicate_object THEN END'",
        "CREATE TABLE other (id int)",
        "CREATE TABLE another (id int PRIMARY KEY)",
        "CREATE TABLE opened (id int)",
        "ALTER TABLE other ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE another ENABLE ROW LEVEL SECURITY",
        "GRANT TRUNCATE, SELECT ON todos, other, another, opened TO anonymous, reporting",
        "GRANT TRIGGER ON todos TO PUBLIC",
        "GRANT REFERENCES (id) ON another TO authenticated",
    )
    project.options["include_name"] = lambda name, kind, parents: kind != "table" or name == "todos"
    caplog.clear()
    written = project.revision(todos(read()))
    assert "op.revoke(['SELECT', 'TRUNCATE'], 'todos', ['anonymous'])" in written
    revoked = "This migration revokes that"
    left = "Declare the row security of the table, or revoke the privilege by hand"
    assert [
        record.getMessage()
        for record in caplog.records
        if "can bypass row security" in record.getMessage() and record.levelno == logging.WARNING
    ] == [
        f"anonymous can bypass row security: it holds TRUNCATE on another, other. {left}",
        f"authenticated can bypass row security: it holds REFERENCES on another. {left}",
        f"anonymous can bypass row security: it holds TRUNCATE on todos. {revoked}",
        f"public can bypass row security: it holds TRIGGER on todos. {revoked}",
    ]
