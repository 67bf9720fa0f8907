"""Operations of other packages beside ours: Alembic keeps one operation for each name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from alembic import command
from alembic.operations import MigrateOperation, Operations
from sqlalchemy import MetaData, text

from sqla_rls import Role, authenticated, declare_roles, grant, sql_function, view
from sqla_rls.exc import MigrationError
from tests.support.project import Project, execute, own_todos
from tests.support.suite import table

#: "Replaceable Objects" of Alembic's cookbook: https://alembic.sqlalchemy.org/en/latest/cookbook.html
COOKBOOK = """
from typing import Any, Optional

from alembic.operations import MigrateOperation, Operations


class ReplaceableObject:
    def __init__(self, name: str, sqltext: str) -> None:
        self.name = name
        self.sqltext = sqltext


class ReversibleOp(MigrateOperation):
    def __init__(self, target: ReplaceableObject) -> None:
        self.target = target

    @classmethod
    def invoke_for_target(cls, operations: Operations, target: ReplaceableObject) -> None:
        op = cls(target)
        return operations.invoke(op)

    def reverse(self) -> MigrateOperation:
        raise NotImplementedError()

    @classmethod
    def _get_object_from_version(cls, operations: Operations, ident: str) -> Any:
        version, objname = ident.split(".")
        module = operations.get_context().script.get_revision(version).module
        obj = getattr(module, objname)
        return obj

    @classmethod
    def replace(cls, operations: Operations, target: ReplaceableObject,
                replaces: Optional[str] = None, replace_with: Optional[str] = None) -> None:
        if replaces:
            old_obj = cls._get_object_from_version(operations, replaces)
            drop_old = cls(old_obj).reverse()
            create_new = cls(target)
        elif replace_with:
            old_obj = cls._get_object_from_version(operations, replace_with)
            drop_old = cls(target).reverse()
            create_new = cls(old_obj)
        else:
            raise TypeError("replaces or replace_with is required")
        operations.invoke(drop_old)
        operations.invoke(create_new)


@Operations.register_operation("create_view", "invoke_for_target")
@Operations.register_operation("replace_view", "replace")
class CreateViewOp(ReversibleOp):
    def reverse(self) -> MigrateOperation:
        return DropViewOp(self.target)


@Operations.register_operation("drop_view", "invoke_for_target")
class DropViewOp(ReversibleOp):
    def reverse(self) -> MigrateOperation:
        return CreateViewOp(self.target)


@Operations.implementation_for(CreateViewOp)
def create_view(operations: Operations, operation: CreateViewOp) -> None:
    operations.execute("CREATE VIEW %s AS %s" % (operation.target.name, operation.target.sqltext))


@Operations.implementation_for(DropViewOp)
def drop_view(operations: Operations, operation: DropViewOp) -> None:
    operations.execute("DROP VIEW %s" % operation.target.name)
"""

_THEIR_VIEW = """
from alembic import op
from cookbook import ReplaceableObject

revision = "theirs"
down_revision = None
counted = ReplaceableObject("counted", "SELECT 1 AS one")

def upgrade():
    op.create_view(counted)

def downgrade():
    op.drop_view(counted)
"""

_EXTENSIONS = """
from sqlalchemy_declarative_extensions import Roles, register_alembic_events

register_alembic_events(roles=True)
context.config.attributes["metadata"].info["roles"] = Roles(ignore_unspecified=True).are("rls_test_theirs")
"""


@pytest.fixture(autouse=True)
def _operations_as_before() -> Iterator[None]:
    """Other tests find the operations as they were."""
    before = {name: value for name, value in vars(Operations).items() if not name.startswith("__")}
    yield
    for name, value in vars(Operations).copy().items():
        if not name.startswith("__") and before.get(name) is not value:
            if name in before:
                setattr(Operations, name, before[name])
            else:
                delattr(Operations, name)


def models(query: str = "SELECT id, task FROM todos") -> MetaData:
    metadata = own_todos()
    declare_roles(metadata, Role("rls_test_app", login=True))
    sql_function("one", metadata, returns="int", body="SELECT 1", to=authenticated)
    view("my_todos", metadata, query, grant("SELECT", to=authenticated))
    return metadata


@pytest.fixture
def cookbook(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project whose env.py imports the recipe, after this library has registered its operations."""
    (project.folder / "cookbook.py").write_text(COOKBOOK)
    monkeypatch.syspath_prepend(project.folder)
    env = project.folder / "env.py"
    env.write_text("import cookbook\n" + env.read_text())
    yield project
    sys.modules.pop("cookbook", None)


@pytest.mark.exhaustive
def test_the_cookbooks_views_live_beside_ours(cookbook: Project) -> None:
    (cookbook.folder / "versions" / "theirs.py").write_text(_THEIR_VIEW)
    cookbook.upgrade()
    written = cookbook.migrate(models())
    assert "op.create_rls_view(" in written
    cookbook.migrate(models("SELECT id, task FROM todos WHERE task <> ''"))
    with cookbook.engine.connect() as connection:
        assert connection.scalar(text("SELECT one FROM counted")) == 1
    cookbook.downgrade("base")
    execute(cookbook, "CREATE VIEW counted AS SELECT 1", "CREATE VIEW my_todos AS SELECT 1")


@pytest.mark.exhaustive
@table("first", ["cookbook", "sqla_rls.alembic"])
def test_in_either_order_of_imports_each_has_its_operations(cookbook: Project, first: str) -> None:
    """In a process of its own, where nothing is imported yet."""
    asked = (
        f"import {first}, cookbook, sqla_rls.alembic; from alembic.operations import Operations; "
        "of = lambda name: getattr(Operations, name).__globals__['op_cls'].__module__; "
        "print(*map(of, ['create_view', 'replace_view', 'drop_view']), "
        "*map(of, ['create_rls_view', 'replace_rls_view', 'drop_rls_view']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", asked], cwd=cookbook.folder, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["cookbook"] * 3 + ["sqla_rls.alembic.operations.views"] * 3


@pytest.mark.exhaustive
def test_the_roles_of_declarative_extensions_live_beside_ours(project: Project) -> None:
    env = project.folder / "env.py"
    env.write_text(env.read_text().replace("attributes = ", f"{_EXTENSIONS}\nattributes = ", 1))
    try:
        written = project.revision(models())
        assert "CREATE ROLE" in written
        assert "op.create_rls_role('rls_test_app', login=True)" in written
        project.upgrade()
        project.check(models())
        project.downgrade("base")
        with project.engine.connect() as connection:
            found = connection.scalars(
                text("SELECT rolname::text FROM pg_roles WHERE rolname LIKE 'rls_test%'")
            ).all()
        assert found == []
    finally:
        execute(project, "DROP ROLE IF EXISTS rls_test_theirs", "DROP ROLE IF EXISTS rls_test_app")


@table("name", ["create_rls_view", "create_policy", "grant"])
@table("what", ["revision", "check"])
def test_autogenerate_writes_no_call_that_another_module_would_answer(
    project: Project, name: str, what: str
) -> None:
    class Other(MigrateOperation):
        @classmethod
        def invoke_for_target(cls, operations: Operations, target: Any) -> None: ...

    Other.__module__ = "somebody.views"
    Operations.register_operation(name, "invoke_for_target")(Other)
    options: dict[str, Any] = {"autogenerate": True} if what == "revision" else {}
    with pytest.raises(MigrationError, match=rf"op\.{name}\(\).*somebody\.views"):
        getattr(command, what)(project.config(models()), **options)
