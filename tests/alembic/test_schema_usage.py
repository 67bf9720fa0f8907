"""USAGE of schemas comes with the roles of policies, and goes with them."""

from __future__ import annotations

import pytest
from sqlalchemy import Column, Integer, MetaData, Table

from sqla_rls import Policy, anonymous, auth_uid, authenticated, crud_policy
from tests.support.project import Project, execute, todos

pytestmark = [pytest.mark.sqlalchemy, pytest.mark.exhaustive]


def test_a_schema_loses_what_the_roles_of_a_policy_no_longer_need(project: Project) -> None:
    def models(*roles: str) -> MetaData:
        metadata = MetaData()
        for place, role in enumerate(roles):
            Table(
                f"notes_{place}",
                metadata,
                Column("id", Integer),
                Policy("it", "SELECT", role, using="auth.user_id() = 'x'"),
                schema="app",
            )
        return metadata

    def holders() -> set[str]:
        found = (line.split(" ") for kind, line in project.state() if kind == "schema")
        return {
            f"{name} {role}"
            for name, role, privilege in found
            if name in ("app", "auth", "public") and privilege == "USAGE" and role[:2] not in ("pg", "po")
        }

    execute(project, "CREATE SCHEMA app", "CREATE ROLE rls_reader")
    project.options["include_schemas"] = True
    project.migrate(models("rls_reader", "rls_reader"))
    at_first = holders()
    assert at_first == {"public -", "app rls_reader", "auth rls_reader"}
    project.migrate(models("rls_reader", "public"))
    assert holders() == at_first | {"app -", "auth -"}
    written = project.migrate(models("rls_reader", "authenticated"))
    assert holders() == at_first | {"app authenticated", "auth authenticated", "auth anonymous"}
    project.downgrade()
    assert holders() == at_first | {"app -", "auth -"}
    project.upgrade()
    project.migrate(models("rls_reader", "rls_reader"))
    assert holders() == at_first
    project.migrate(models())
    assert holders() == {"public -"}
    assert "'public'], object_type='SCHEMA'" in written
    execute(project, "DROP OWNED BY rls_reader", "DROP ROLE rls_reader")


def test_the_first_policy_of_anonymous_keeps_the_usage_that_its_role_came_with(project: Project) -> None:
    own = crud_policy(authenticated, read=auth_uid("user_id"), modify=auth_uid("user_id"))
    project.migrate(todos(own))
    before = project.state()
    own = crud_policy(authenticated, read=auth_uid("user_id"), modify=auth_uid("user_id"))
    written = project.migrate(todos(own, Policy("public", "SELECT", anonymous, using="false")))

    assert "'auth'" not in written
    project.downgrade()
    assert project.state() == before
