"""A policy that is constantly false shows no row, and implies no privilege."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, and_, false

from sqla_rls import Policy, authenticated, crud_policy
from tests.support.project import Project, execute, operations


def models(*declarations: Any) -> MetaData:
    """With a serial column, whose sequence a policy for INSERT would imply USAGE on."""
    metadata = MetaData()
    Table("todos", metadata, Column("id", Integer, primary_key=True), *declarations)
    return metadata


def privileges(project: Project) -> set[str]:
    lines = [line for kind, line in project.state() if kind == "privilege" and "authenticated" in line]
    return {" ".join(line.split()[:1] + line.split()[2:]) for line in lines}


@pytest.mark.exhaustive
def test_modify_false_makes_the_policies_and_no_privileges(project: Project) -> None:
    written = project.migrate(models(crud_policy(authenticated, read=True, modify=False)))
    assert operations(written).count("create_policy") == 4
    assert privileges(project) == {"todos SELECT"}


@pytest.mark.exhaustive
def test_modify_none_makes_no_policies(project: Project) -> None:
    written = project.migrate(models(crud_policy(authenticated, read=True, modify=None)))
    assert operations(written).count("create_policy") == 1
    assert privileges(project) == {"todos SELECT"}


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("policy", "implied"),
    [
        (Policy("p", "SELECT", authenticated, using=false()), set()),
        (Policy("p", "SELECT", authenticated, using=lambda: False), set()),
        (Policy("p", "UPDATE", authenticated, using=False, with_check=False), set()),
        (Policy("p", "ALL", authenticated, using=False), set()),
        # INSERT has WITH CHECK alone.
        (Policy("p", "ALL", authenticated, using=False, with_check=True), {"INSERT"}),
        # Nothing else is looked into, text least of all.
        (Policy("p", "SELECT", authenticated, using=and_(false(), Column("id") > 0)), {"SELECT"}),
        (Policy("p", "SELECT", authenticated, using="false"), {"SELECT"}),
    ],
    ids=["false()", "function", "update", "all", "all that inserts", "and_", "text"],
)
def test_constantly_false_is_what_the_declaration_says(
    project: Project, policy: Policy, implied: set[str]
) -> None:
    project.migrate(models(policy))
    held = {line.split()[1] for line in privileges(project) if line.startswith("todos ")}
    assert held >= implied
    assert bool(held) is bool(implied)


@pytest.mark.exhaustive
def test_a_revision_takes_away_what_an_older_one_granted(project: Project) -> None:
    declared = models(crud_policy(authenticated, read=True, modify=False))
    project.migrate(declared)
    closed = project.state()
    execute(
        project,
        "GRANT INSERT, UPDATE, DELETE ON todos TO authenticated",
        "GRANT USAGE ON SEQUENCE todos_id_seq TO authenticated",
    )
    opened = project.state()
    written = project.migrate(declared)
    assert set(operations(written)) == {"revoke"}
    assert project.state() == closed
    project.downgrade()
    assert project.state() == opened


def test_create_all_grants_no_more(project: Project) -> None:
    models(crud_policy(authenticated, read=True, modify=False)).create_all(project.engine)
    assert privileges(project) == {"todos SELECT"}
