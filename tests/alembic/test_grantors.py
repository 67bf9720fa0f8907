"""Privileges that a role with the grant option has granted: the owner's REVOKE alone doesn't reach them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, text

from sqla_rls import Policy, Role, declare_on, declare_roles, grant, grant_on, ignore, view
from sqla_rls.ddl.privileges import GrantOrRevoke, RevokeOfGrantors
from tests.support.project import Project, execute, operations

pytestmark = pytest.mark.every_postgres

REP, DEPUTY, EVIL, DBA = (f"rls_grantor_{name}" for name in ("rep", "deputy", 'e"vil', "dba"))

#: What the first role may grant: the privilege, and the object.
HELD = [
    ("SELECT", "TABLE notes"),
    ("UPDATE (body)", "TABLE notes"),
    ("SELECT (body)", "TABLE notes"),
    ("SELECT", "TABLE seen"),
    ("USAGE", "SEQUENCE numbers"),
    ("USAGE", "SEQUENCE notes_id_seq"),
    ("EXECUTE", "FUNCTION by_hand(integer)"),
    ("USAGE", 'SCHEMA "An app"'),
]
_HELD = """
SELECT concat_ws(' ', a.privilege_type, p.attname, 'ON', p.subject, 'TO',
                 CASE WHEN a.grantee = 0 THEN 'public' ELSE pg_get_userbyid(a.grantee) END,
                 CASE WHEN a.is_grantable THEN 'with grant option' END, 'by', pg_get_userbyid(a.grantor))
  FROM (SELECT relname::text, NULL::name, relowner, relacl FROM pg_class
        UNION ALL SELECT relname, attname, relowner, attacl
                    FROM pg_attribute JOIN pg_class AS c ON c.oid = attrelid
        UNION ALL SELECT proname, NULL, proowner, proacl FROM pg_proc
        UNION ALL SELECT nspname, NULL, nspowner, nspacl FROM pg_namespace
       ) AS p (subject, attname, owner, acl), aclexplode(p.acl) AS a
 WHERE p.subject IN ('notes', 'seen', 'numbers', 'notes_id_seq', 'by_hand', 'An app') AND a.grantee <> p.owner
 ORDER BY 1
"""


@pytest.fixture
def project(project: Project) -> Iterator[Project]:
    roles = [f"""rls_grantor_{name}""" for name in ("dba", 'e"vil')]
    quoted = [name.replace('"', '""') for name in roles]
    execute(project, *(f'CREATE ROLE "{name}"' for name in quoted))
    execute(
        project,
        'CREATE SCHEMA "An app"',
        "CREATE SEQUENCE numbers",
        "CREATE FUNCTION by_hand(int) RETURNS int LANGUAGE sql RETURN 1",
    )
    yield project
    project.downgrade("base")
    execute(project, 'DROP SCHEMA "An app"', "DROP SEQUENCE numbers", "DROP FUNCTION by_hand(int)")
    for name in (*quoted, REP, DEPUTY):
        execute(
            project,
            f"""DO $$BEGIN IF to_regrole('"{name}"') IS NOT NULL THEN
                EXECUTE 'DROP OWNED BY "{name}"'; EXECUTE 'DROP ROLE "{name}"'; END IF; END$$""",
        )


def models() -> MetaData:
    metadata = MetaData()
    declare_roles(metadata, Role(REP), Role(DEPUTY))
    ignore(metadata, roles=DBA)
    notes = Table(
        "notes",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("body", Text),
        Policy("all", "SELECT", REP, using="true", imply_privileges=False),
        grant("SELECT", to=REP, grant_option=True),
        grant("UPDATE", columns=["body"], to=REP, grant_option=True),
    )
    view("seen", metadata, "SELECT id FROM notes", grant("SELECT", to=REP, grant_option=True))
    grant_on(metadata, "EXECUTE", function="by_hand(int)", to=REP, grant_option=True)
    grant_on(metadata, "USAGE", sequence="numbers", to=REP, grant_option=True)
    grant_on(metadata, "USAGE", sequence=notes.c.id, to=REP, grant_option=True)
    grant_on(metadata, to=[EVIL, DEPUTY], schema="An app")
    return metadata


def held(project: Project) -> list[str]:
    with project.engine.connect() as connection:
        return [*connection.scalars(text(_HELD))]


def grant_by_hand(project: Project) -> None:
    evil = EVIL.replace('"', '""')
    execute(project, f'GRANT USAGE ON SCHEMA "An app" TO {REP} WITH GRANT OPTION')
    for privilege, on in HELD:
        public = "" if on.startswith("SCHEMA") else ", PUBLIC"
        execute(
            project, f"SET ROLE {REP}", f'GRANT {privilege} ON {on} TO "{evil}", {DBA}{public}', "RESET ROLE"
        )
        # Postgres refuses the option on a column to those who hold it on the table.
        if privilege != "SELECT (body)":
            execute(
                project,
                f"SET ROLE {REP}",
                f"GRANT {privilege} ON {on} TO {DEPUTY} WITH GRANT OPTION",
                f"SET ROLE {DEPUTY}",
                f'GRANT {privilege} ON {on} TO "{evil}"',
                "RESET ROLE",
            )


@pytest.mark.parametrize(
    "offline", [False, pytest.param(True, marks=pytest.mark.exhaustive)], ids=["online", "offline"]
)
def test_what_others_have_granted_is_revoked_from_every_object(project: Project, offline: bool) -> None:
    project.migrate(models())
    declared = held(project)
    grant_by_hand(project)
    before = {*project.state()}
    written = project.revision(models())
    assert {*operations(written)} <= {"revoke", "grant"}
    if offline:
        after = re.search(r"down_revision = '(\w+)'", written)
        script = project.script("upgrade", f"{after[1] if after else None}:head")
        with project.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            raw: Any = connection.connection.driver_connection
            raw.execute(script)
    else:
        project.upgrade()
    project.check(models())
    schema = f"USAGE ON An app TO {REP} with grant option by postgres"
    left = [line for line in held(project) if f"TO {DBA} " not in line and line != schema]
    assert left == declared
    assert sum(f"TO {DBA} by postgres" in line for line in held(project)) == len(HELD)
    project.downgrade()
    assert {*project.state()} == before
    project.upgrade()
    project.check(models())


@pytest.mark.exhaustive
def test_a_declared_privilege_that_another_role_has_granted_too_stays(project: Project) -> None:
    def with_deputy() -> MetaData:
        metadata = models()
        declare_on(metadata.tables["notes"], grant("SELECT", to=DEPUTY))
        return metadata

    project.migrate(with_deputy())
    declared = held(project)
    grant_by_hand(project)
    execute(project, f'REVOKE ALL ON SCHEMA "An app" FROM {REP} CASCADE')
    project.migrate(with_deputy())
    assert [line for line in held(project) if f"TO {DBA} " not in line] == declared
    project.downgrade()
    assert f"SELECT ON notes TO {DEPUTY} with grant option by postgres" in held(project)
    project.upgrade()
    project.check(with_deputy())


@pytest.mark.exhaustive
def test_another_role_than_the_owner_is_warned(project: Project) -> None:
    project.migrate(models())
    grant_by_hand(project)
    before = held(project)
    notices: list[str] = []
    with project.engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
        raw.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        connection.execute(text(f"SET LOCAL ROLE {DEPUTY}"))
        revoke = GrantOrRevoke(["select"], "notes", [EVIL], option=True, revoke=True)
        connection.execute(RevokeOfGrantors(revoke, [REP]))
        connection.commit()
    assert held(project) == before
    assert f"role {DEPUTY} may not change what {REP} granted. Have the owner postgres" in notices[0]


@pytest.mark.exhaustive
def test_cascade_revokes_what_the_grantees_have_granted(project: Project) -> None:
    project.migrate(models())
    grant_by_hand(project)
    for cascade in (False, True):
        with project.engine.begin() as connection:
            revoke = GrantOrRevoke(["ALL"], "notes", [DEPUTY], option=cascade, revoke=True)
            connection.execute(RevokeOfGrantors(revoke, [REP]))
        on_notes = [line for line in held(project) if line.startswith("SELECT ON notes")]
        assert not any(f"TO {DEPUTY}" in line for line in on_notes)
        # The owner has granted to the third role what the second one had granted to it.
        assert any(f"TO {EVIL} by postgres" in line for line in on_notes)
        grant_by_hand(project)
