"""From models to migrations, by Alembic's own commands."""

from __future__ import annotations

import gc
import logging
import re
from typing import Any

import pytest
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table, Text, Uuid, event, exists, select, text

from sqla_rls import (
    Policy,
    Role,
    auth_uid,
    authenticated,
    crud_policy,
    default_privileges,
    disable_row_level_security,
    force_row_level_security,
    grant,
)
from tests.support.project import Project, execute, notes, operations, own_todos, todos
from tests.support.suite import table

pytestmark = pytest.mark.sqlalchemy


def test_one_migration_holds_all_that_a_model_declares(project: Project) -> None:
    written = project.revision(own_todos())

    assert operations(written) == [
        "create_rls_role",
        "create_rls_role",
        "create_auth_functions",
        *["grant"] * 2,  # USAGE on schema auth
        "create_table",
        "create_index",
        "enable_row_level_security",
        *["create_policy"] * 4,
        *["grant"] * 2,
    ]
    assert "sqla_rls" not in written
    assert "(SELECT auth.user_id()) = todos.user_id" in written


@pytest.mark.every_postgres
def test_upgrade_check_downgrade_and_up_again(project: Project) -> None:
    before = project.state()
    metadata = own_todos()
    project.migrate(metadata)
    after = project.state()

    project.downgrade("base")
    assert project.state() == before

    project.upgrade()
    assert project.state() == after
    project.check(metadata)


@pytest.mark.exhaustive
def test_a_changed_read_is_one_alter_policy_and_back_again(project: Project) -> None:
    project.migrate(own_todos())
    before = project.state()

    written = project.migrate(todos(crud_policy(authenticated, read=True, modify=auth_uid("user_id"))))
    assert operations(written) == operations(written, "downgrade") == ["alter_policy"]

    project.downgrade()
    assert project.state() == before


@pytest.mark.exhaustive
def test_a_renamed_policy_is_renamed(project: Project) -> None:
    project.migrate(todos(Policy("old", "SELECT", authenticated, using=auth_uid("user_id"))))
    before = project.state()

    renamed = project.migrate(todos(Policy("new", "SELECT", authenticated, using=auth_uid("user_id"))))
    assert operations(renamed) == ["alter_policy"]
    assert "new_policy_name='new'" in renamed

    project.downgrade()
    assert project.state() == before


@pytest.mark.every_postgres
@pytest.mark.exhaustive
@table(
    "changed",
    [
        {"using": "true", "with_check": "task <> ''"},
        {"with_check": None},
        {"command": "DELETE", "with_check": None},
        {"permissive": False},
        {"roles": "PUBLIC"},
        {"roles": "CURRENT_USER"},
    ],
    ids=["expressions", "expression taken away", "command", "kind", "public", "current_user"],
)
def test_every_change_of_a_policy_is_seen_and_undone(project: Project, changed: dict[str, Any]) -> None:
    policy: dict[str, Any] = {
        "command": "UPDATE",
        "roles": authenticated,
        "using": "task = ''",
        "with_check": "task = ''",
    }
    project.migrate(todos(Policy("it", **policy)))
    before = project.state()

    written = project.migrate(todos(Policy("it", **{**policy, **changed})))
    assert {"alter_policy", "create_policy"} & set(operations(written))

    project.downgrade()
    assert project.state() == before


@pytest.mark.exhaustive
@table(
    "expression",
    [
        "task IN ('a', 'b')",
        "task LIKE '%x:y%' -- as they write it",
        "(SELECT auth.user_id()) = user_id OR task::varchar = 'x'",
        "EXISTS (SELECT FROM todos AS other WHERE other.user_id = todos.task)",
        "current_setting('app.limit', true)::int > length(task)",
        "CASE WHEN task = $$it's$$ THEN true ELSE user_id IS DISTINCT FROM 'x' END",
    ],
)
def test_postgres_own_spelling_of_an_expression_is_no_change(project: Project, expression: str) -> None:
    project.migrate(todos(Policy("it", roles=authenticated, using=expression)))


@pytest.mark.exhaustive
def test_a_policy_over_another_table_correlates_with_it(project: Project) -> None:
    metadata = MetaData()
    orgs = Table("orgs", metadata, Column("id", Integer, primary_key=True))
    Table(
        "members",
        metadata,
        Column("org_id", ForeignKey("orgs.id"), primary_key=True),
        Column("user_id", Uuid, primary_key=True),
        crud_policy(authenticated, read=auth_uid("user_id"), modify=False),
    )
    members = metadata.tables["members"]
    Policy(
        "members_read",
        "SELECT",
        authenticated,
        using=lambda: exists(
            select(members).where(members.c.org_id == orgs.c.id, auth_uid(members.c.user_id))
        ),
    )._set_parent_with_dispatch(orgs)

    written = project.migrate(metadata)

    assert "(SELECT auth.uid()) = members.user_id" in written
    with project.engine.connect() as connection:
        using = connection.scalar(text("SELECT qual FROM pg_policies WHERE policyname = 'members_read'"))
    assert "FROM orgs" not in using
    assert "members.org_id = orgs.id" in using
    # DROP TABLE members would fail under the policy of orgs.
    project.downgrade("base")


@pytest.mark.exhaustive
def test_a_dropped_table_comes_back_with_its_protection(project: Project) -> None:
    project.migrate(
        todos(
            crud_policy(authenticated, read=auth_uid("user_id"), modify=auth_uid("user_id")),
            grant("SELECT", to=Role("reporting")),
            force_row_level_security(),
        )
    )
    execute(project, "GRANT UPDATE (task) ON todos TO authenticated", "GRANT DELETE ON todos TO reporting")
    before = project.state()

    written = project.migrate(MetaData())
    assert "disable_row_level_security" not in operations(written)
    assert not [line for line in project.state() if "todos" in line[1]]

    project.downgrade()
    assert project.state() == before


@pytest.mark.exhaustive
def test_what_goes_with_a_dropped_table_is_not_revoked_first(project: Project) -> None:
    metadata = notes(crud_policy(authenticated, read=auth_uid("user_id"), modify=auth_uid("user_id")))
    project.migrate(metadata)
    before = project.state()

    written = project.migrate(MetaData())
    assert "SEQUENCE" not in written.split("def downgrade")[0]
    assert written.count("op.grant(['USAGE'], 'notes', ['authenticated'], columns=['id']") == 1

    project.downgrade()
    assert project.state() == before


@pytest.mark.exhaustive
def test_a_column_that_a_policy_named_can_be_dropped_with_the_change(project: Project) -> None:
    project.migrate(todos(Policy("it", roles=authenticated, using="owner = 'x'"), owner=Text))
    before = project.state()
    project.migrate(todos(Policy("it", roles=authenticated, using="user_id = 'x'")))
    project.downgrade()
    assert project.state() == before


@pytest.mark.exhaustive
def test_a_new_column_can_be_named_at_once(project: Project) -> None:
    project.migrate(own_todos())
    project.migrate(todos(Policy("it", roles=authenticated, using="owner = 'x'"), owner=Text))


@pytest.mark.exhaustive
def test_the_sequence_of_a_serial_column_is_granted_and_taken_back(project: Project) -> None:
    metadata = notes(crud_policy(authenticated, read=auth_uid("user_id"), modify=auth_uid("user_id")))
    assert "object_type='SEQUENCE'" in project.migrate(metadata)

    without = notes(
        Policy("crud-authenticated-policy-select", "SELECT", authenticated, using=auth_uid("user_id"))
    )
    before = project.state()
    written = project.migrate(without)
    assert "['USAGE'], 'notes', ['authenticated'], columns=['id'], object_type='SEQUENCE')" in written
    assert "op.revoke(['INSERT', 'UPDATE', 'DELETE'], 'notes', ['authenticated'])" in written
    project.downgrade()
    assert project.state() == before


@pytest.mark.exhaustive
def test_a_table_that_declares_nothing_any_more_is_left_alone_with_a_warning(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    project.migrate(own_todos())
    project.check(todos())
    assert "autogenerate leaves table todos as it is: the table has policies in the database" in caplog.text


@pytest.mark.exhaustive
def test_a_table_is_opened_by_an_explicit_word(project: Project) -> None:
    project.migrate(own_todos())
    before = project.state()

    written = project.migrate(todos(disable_row_level_security()))
    assert operations(written) == [
        "revoke",
        "revoke",
        *["drop_policy"] * 4,
        "disable_row_level_security",
        "revoke",  # USAGE on schema auth of anonymous
        "revoke",  # … of authenticated
    ]

    project.downgrade()
    assert project.state() == before


@pytest.mark.exhaustive
def test_default_privileges_are_granted_once(project: Project) -> None:
    metadata = own_todos()
    default_privileges(metadata, "SELECT", to=authenticated, schema="public")
    before = project.state()
    assert "grant_default_privileges" in operations(project.migrate(metadata))
    project.downgrade()
    assert project.state() == before


@pytest.mark.every_postgres
def test_offline_scripts_do_the_same(project: Project) -> None:
    before = project.state()
    metadata = own_todos()
    written = project.revision(metadata)
    revision = re.search(r"revision = '(\w+)'", written)
    assert revision is not None

    up, down = project.script("upgrade", "head"), project.script("downgrade", f"{revision[1]}:base")
    assert "auth.%I()" in up
    execute(project, "DROP TABLE alembic_version")
    with project.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        raw: Any = connection.connection.driver_connection
        raw.execute(up)
        project.check(metadata)
        raw.execute(down)
    assert project.state() == before


@pytest.mark.exhaustive
def test_a_table_that_is_filtered_out_is_left_alone(project: Project) -> None:
    metadata = own_todos()
    project.migrate(metadata)
    execute(project, "ALTER TABLE todos DISABLE ROW LEVEL SECURITY")
    project.options["include_object"] = lambda item, name, kind, *_: not (kind == "table" and name == "todos")
    project.check(metadata)


@pytest.mark.exhaustive
def test_a_table_in_another_schema_with_names_that_need_quotes(project: Project) -> None:
    execute(project, 'CREATE SCHEMA "Other one"')
    before = project.state()
    project.options["include_schemas"] = True
    metadata = MetaData(schema="Other one")
    table = Table("select", metadata, Column("id", Integer, primary_key=True), Column("User", Text))
    Policy("it's 100%", roles=Role('say "hi"'), using=auth_uid(table.c.User))._set_parent_with_dispatch(table)

    project.migrate(metadata)
    project.downgrade()
    assert project.state() == before


@pytest.mark.exhaustive
def test_leaving_the_plugin_out_is_warned_of(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    metadata = own_todos()
    project.migrate(metadata)
    execute(project, "ALTER TABLE todos DISABLE ROW LEVEL SECURITY")
    project.options["autogenerate_plugins"] = ["alembic.autogenerate.schemas", "alembic.autogenerate.tables"]
    with caplog.at_level(logging.WARNING):
        project.check(metadata)
    assert "row security wasn't compared" in caplog.text


@pytest.mark.exhaustive
def test_the_number_of_statements_does_not_grow_with_the_tables(project: Project) -> None:
    def statements(tables: int) -> int:
        metadata = MetaData()
        for number in range(tables):
            Table(
                f"table_{number}",
                metadata,
                Column("id", Integer, primary_key=True),
                Column("user_id", Text),
                crud_policy(authenticated, read=auth_uid("user_id"), modify=auth_uid("user_id")),
            )
        project.migrate(metadata)
        with project.engine.connect() as connection:
            _compare(connection, metadata, ["alembic.autogenerate.*"])  # SQLAlchemy remembers some answers
        counts = []
        for plugins in (
            ["alembic.autogenerate.*"],
            ["alembic.autogenerate.*", "~alembic.autogenerate.sqla_rls"],
        ):
            project.options["autogenerate_plugins"] = plugins
            seen: list[str] = []
            with project.engine.connect() as connection:
                event.listen(
                    connection, "before_cursor_execute", lambda *args, seen=seen: seen.append(args[2])
                )
                _compare(connection, metadata, plugins)
            counts.append(len(seen))
        project.options.clear()
        return counts[0] - counts[1]

    # The portable functions are looked at, those of the extension are not.
    assert statements(2) == statements(40) in (18, 22)


@pytest.mark.exhaustive
def test_a_comparison_without_changes_makes_no_options_of_the_models_tables(project: Project) -> None:
    project.migrate(own_todos())
    made = []
    for more in ([], ["~alembic.autogenerate.sqla_rls"]):
        metadata = own_todos()
        with project.engine.connect() as connection:
            _compare(connection, metadata, ["alembic.autogenerate.*", *more])
        made.append(["dialect_options" in vars(one) for one in metadata.tables.values()])
    assert made[0] == made[1]


@pytest.mark.exhaustive
def test_garbage_collection_is_rare_and_leaves_the_models_alone_only_while_tables_are_compared(
    project: Project,
) -> None:
    metadata = own_todos()
    project.migrate(metadata)
    seen: list[tuple[int, int]] = []
    fails = False

    def reflected(*_: object) -> None:
        seen.append((gc.get_freeze_count(), gc.get_threshold()[0]))
        if fails:
            raise ZeroDivisionError

    event.listen(Table, "column_reflect", reflected)
    thresholds = gc.get_threshold()
    gc.unfreeze()  # conftest.py has frozen some
    gc.set_threshold(700, 10, 11)
    try:
        with project.engine.connect() as connection:
            _compare(connection, metadata, ["alembic.autogenerate.*"])
            assert seen
            assert all(frozen and threshold == 100_000 for frozen, threshold in seen)
            assert (gc.get_freeze_count(), gc.get_threshold()) == (0, (700, 10, 11))
            fails = True
            with pytest.raises(ZeroDivisionError):
                _compare(connection, metadata, ["alembic.autogenerate.*"])
            gc.collect()
            assert (gc.get_freeze_count(), gc.get_threshold()) == (0, (700, 10, 11))
            # The application may have frozen objects itself, and collect less often.
            fails = False
            gc.freeze()
            gc.set_threshold(200_000)
            _compare(connection, metadata, ["alembic.autogenerate.*"])
            assert gc.get_freeze_count() > 0
            assert gc.get_threshold()[0] == seen[-1][1] == 200_000
    finally:
        gc.freeze()
        gc.set_threshold(*thresholds)
        event.remove(Table, "column_reflect", reflected)


def _compare(connection: Any, metadata: MetaData, plugins: list[str]) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    context = MigrationContext.configure(connection, opts={"autogenerate_plugins": plugins})
    assert compare_metadata(context, metadata) == []
