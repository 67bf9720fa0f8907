"""The warnings of autogenerate stand in the revision, where the person who reviews it reads them."""

from __future__ import annotations

import logging

import pytest
from alembic.autogenerate import render_python_code
from alembic.operations.ops import UpgradeOps
from sqlalchemy import Column, Integer, MetaData, Table, text

from sqla_rls import Policy, authenticated
from sqla_rls.alembic.autogenerate.render import Call, Remarks
from tests.support.project import Project


def models(*policies: Policy) -> MetaData:
    metadata = MetaData()
    Table(
        "todos",
        metadata,
        Column("id", Integer, primary_key=True),
        Policy("read", "SELECT", authenticated, using="id > 0"),
        *policies,
    )
    Table("plain", metadata, Column("id", Integer, primary_key=True))
    return metadata


def comments(revision: str) -> str:
    lines = [line.strip() for line in revision.splitlines() if line.strip().startswith("# ")]
    return " ".join(line.removeprefix("# ") for line in lines)


def test_a_warning_stands_in_the_revision_whatever_the_level_of_the_log(project: Project) -> None:
    own = logging.getLogger("alembic.autogenerate.sqla_rls")
    project.migrate(models())
    with project.engine.begin() as connection:
        connection.execute(text("GRANT SELECT ON plain TO authenticated"))
    own.setLevel(logging.ERROR)
    try:
        written = project.migrate(models(Policy("all", "SELECT", authenticated, using="true")))
    finally:
        own.setLevel(logging.NOTSET)
    assert "op.create_policy('all'" in written
    assert "WARNING: " in comments(written)
    assert "plain" in comments(written)


@pytest.mark.exhaustive
def test_warnings_alone_make_no_revision(project: Project) -> None:
    project.migrate(models())
    with project.engine.begin() as connection:
        connection.execute(text("GRANT SELECT ON plain TO authenticated"))
    project.check(models())


@pytest.mark.exhaustive
def test_what_an_open_table_is_warned_of_stands_there(project: Project) -> None:
    restrictive = Policy("recent", "SELECT", authenticated, using="id > 9", permissive=False)
    project.migrate(models(restrictive))
    written = project.revision(models())
    assert "WARNING: this migration exposes table todos" in comments(written)


def test_a_remark_stays_a_comment() -> None:
    evil = 'a"\nimport os\r\nos.remove("x")\u2028raise SystemExit\x85y\x0cz'
    call = Call("drop_policy", "p", "t")
    call.remark = evil
    code = render_python_code(UpgradeOps([Remarks(evil, "second"), call]))
    statements = [line for line in code.splitlines() if line.strip() and not line.strip().startswith("#")]
    assert [line.strip() for line in statements] == ["op.drop_policy('p', 't')"]
