"""The rows that the caller may change, compared with the rows that the command changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Table,
    Text,
    and_,
    column,
    create_engine,
    delete,
    exists,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.pool import NullPool

from sqla_rls import (
    Policy,
    Role,
    anonymous,
    auth_uid,
    authenticated,
    crud_policy,
    disable_row_level_security,
    grant,
    permitted,
)
from sqla_rls.exc import DeclarationError
from sqla_rls.testing.postgres import Server
from tests.support.sessions import Todo
from tests.support.suite import table

metadata = MetaData()
#: A member that inherits, and one that doesn't.
assistant, guest = (
    Role("rls_assistant", member_of=[authenticated]),
    Role("rls_guest", member_of=["rls_outer"]),
)
outer, noble = (
    Role("rls_outer", member_of=[authenticated]),
    Role("rls_noble", inherit=False, member_of=["rls_outer"]),
)
editors = Table(
    "editors",
    metadata,
    Column("user_id", Text, primary_key=True),
    Policy("own", "SELECT", authenticated, using=auth_uid("user_id")),
)
notes = Table(
    "notes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("user_id", Text),
    Column("is_locked", Boolean),
    Policy("read", "SELECT", [authenticated, anonymous], using=True),
    Policy("own", "UPDATE", authenticated, using=auth_uid("user_id")),
    Policy("editors", "UPDATE", authenticated, using=lambda: exists().where(auth_uid(editors.c.user_id))),
    Policy("remove", "DELETE", authenticated, using="user_id = (SELECT auth.user_id())"),
    Policy("unlocked", permissive=False, using=lambda: ~column("is_locked")),
)
shared = Table(
    "Shared notes",
    metadata,
    Column("id", Integer, primary_key=True),
    disable_row_level_security(),
    grant("SELECT", to=authenticated),
    grant("UPDATE", columns=["id"], to=authenticated),
)


tasks = Table(
    "tasks",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("is_locked", Boolean),
    Policy("assistants", roles=[assistant, guest, noble], using=True),
    Policy("free", "ALL", outer, using="id < 3"),
    Policy("unlocked", "UPDATE", authenticated, permissive=False, using=lambda: ~column("is_locked")),
    Policy("kept", "DELETE", ["rls_guest", "CURRENT_USER"], permissive=False, using="id = 1"),
    grant("SELECT", "UPDATE", "DELETE", to=[assistant, guest, noble, authenticated]),
)

drafts = Table(
    "drafts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("is_locked", Boolean),
    Policy("read", "SELECT", [authenticated, anonymous], using=True),
    Policy("some", "UPDATE", authenticated, using="id = 1 OR id = 2"),
    Policy("mixed", "UPDATE", authenticated, using=and_(text("id = 1 OR id = 3"), column("is_locked"))),
    Policy("strict", "UPDATE", authenticated, using="NOT is_locked OR id = 4", permissive=False),
)


@pytest.fixture(scope="module")
def owner(server: Server) -> Iterator[Engine]:
    name = server.create_database()
    engine = create_engine(server.url(name), poolclass=NullPool)
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(
            insert(notes),
            [
                {"id": 1, "user_id": "alice", "is_locked": False},
                {"id": 2, "user_id": "alice", "is_locked": True},
                {"id": 3, "user_id": "bob", "is_locked": False},
                {"id": 4, "user_id": None, "is_locked": False},
                {"id": 5, "user_id": "alice", "is_locked": None},
            ],
        )
        connection.execute(insert(editors).values(user_id="carol"))
        connection.execute(
            insert(tasks),
            [{"id": number, "is_locked": locked} for number, locked in enumerate((False, True, None, False))],
        )
        connection.execute(insert(shared).values(id=1))
        connection.execute(
            insert(drafts), [{"id": number, "is_locked": number % 2 == 0} for number in range(1, 6)]
        )
    yield engine
    server.drop_database(name)


def run_as(connection: Connection, role: str, subject: str | None) -> None:
    claims = "" if subject is None else json.dumps({"sub": subject})
    connection.execute(
        text("SELECT set_config('role', :role, true), set_config('request.jwt.claims', :claims, true)"),
        {"role": role, "claims": claims},
    )


@pytest.mark.parametrize(
    ("role", "subject"),
    [
        ("authenticated", "alice"),
        ("authenticated", "bob"),
        ("authenticated", "carol"),
        ("authenticated", None),
    ],
)
@table("command", ["update", "delete"])
def test_what_is_permitted_is_what_the_command_changes(
    owner: Engine, role: str, subject: str | None, command: str
) -> None:
    change: Any = update(notes).values(id=notes.c.id) if command == "update" else delete(notes)
    with owner.connect() as connection:
        run_as(connection, role, subject)
        asked = select(notes.c.id, permitted(notes, command))
        said = {row.id: row[1] for row in connection.execute(asked)}
        savepoint = connection.begin_nested()
        try:
            changed = set(connection.execute(change.returning(notes.c.id)).scalars())
        except Exception as error:
            assert getattr(getattr(error, "orig", None), "sqlstate", None) == "42501"  # noqa: PT017
            changed = set()
            savepoint.rollback()
    assert said == {number: number in changed for number in said}
    assert said


@pytest.mark.parametrize("role", [assistant, guest, outer, noble, authenticated], ids=str)
@pytest.mark.parametrize("by_name", [False, True], ids=["a Role", "a name"])
@pytest.mark.parametrize("command", ["update", "delete"])
def test_the_policies_of_groups_count_if_the_caller_inherits_them(
    owner: Engine, role: Role, by_name: bool, command: str
) -> None:
    change: Any = update(tasks).values(id=tasks.c.id) if command == "update" else delete(tasks)
    with owner.connect() as connection:
        run_as(connection, str(role), None)
        asked = select(tasks.c.id, permitted(tasks, command, str(role) if by_name else role))
        said = {number for number, may in connection.execute(asked) if may}
        assert said == set(connection.execute(change.returning(tasks.c.id)).scalars())


def test_callers_of_another_role_are_asked_about_by_their_role(owner: Engine) -> None:
    with owner.connect() as connection:
        run_as(connection, "anonymous", None)
        asked = select(permitted(notes, "update", anonymous), permitted(notes, "delete", anonymous))
        assert set(connection.execute(asked.select_from(notes)).all()) == {(False, False)}
        assert not connection.scalar(select(permitted(notes, "delete")).select_from(notes))


@pytest.mark.exhaustive
@pytest.mark.parametrize(("role", "ids"), [("authenticated", {1}), ("anonymous", set())])
def test_policies_of_sql_text_keep_their_own_or(owner: Engine, role: str, ids: set[int]) -> None:
    with owner.connect() as connection:
        run_as(connection, role, "alice")
        rows = connection.execute(select(drafts.c.id, permitted(drafts, "update"))).all()
        assert len(rows) == 5
        assert {number for number, may in rows if may} == ids
        if ids:
            change = update(drafts).values(id=drafts.c.id).returning(drafts.c.id)
            assert set(connection.execute(change).scalars()) == ids


def test_without_row_security_the_privilege_decides(owner: Engine) -> None:
    with owner.connect() as connection:
        run_as(connection, "authenticated", "alice")
        asked = select(permitted(shared, "update"), permitted(shared, "DELETE")).select_from(shared)
        assert connection.execute(asked).one() == (True, False)


def test_a_mapped_class_is_asked_by_its_name() -> None:
    asked = str(select(Todo.id, permitted(Todo, "update").label("may_update")))
    assert "AS may_update" in asked


def test_the_roles_are_asked_once_for_the_statement(owner: Engine) -> None:
    with owner.connect() as connection:
        run_as(connection, "authenticated", "alice")
        statement = select(notes.c.id, permitted(notes, "delete"))
        compiled = statement.compile(connection, compile_kwargs={"literal_binds": True})
        plan = connection.exec_driver_sql(f"EXPLAIN (VERBOSE, COSTS OFF) {compiled}").scalars().all()
    scan = next(number for number, line in enumerate(plan) if "InitPlan" in line)
    assert not any("pg_has_role" in line for line in plan[:scan])


@pytest.mark.parametrize("wrong", [("insert", notes), ("update", 7), ("update", "notes")])
def test_another_target_or_command_is_refused(wrong: tuple[str, Any]) -> None:
    command, target = wrong
    with pytest.raises(DeclarationError, match="Give"):
        permitted(target, command)


def test_a_policy_for_all_commands_counts() -> None:
    table = Table(
        "t", MetaData(), Column("user_id", Text), crud_policy(authenticated, read=True, modify=None)
    )
    assert "false" in str(permitted(table, "update"))
