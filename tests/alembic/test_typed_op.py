"""``from sqla_rls.alembic import op``: Alembic's proxy at run time, and our operations for type checkers."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import op as alembics

import sqla_rls.alembic
from tests.support.project import Project, own_todos
from tests.test_exported_members import operations

ROOM = Path(sqla_rls.alembic.__file__).parent
STUB = ROOM / "op.pyi"
HEAD = '''"""What ``op`` can do in a migration: Alembic's operations and ours.

Written by SQLA_RLS_WRITE_OP_STUB=1 pytest tests/alembic/test_typed_op.py, from operations/.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from alembic.op import *  # noqa: F403
'''


def methods() -> Iterator[ast.FunctionDef]:
    """The class methods behind the operations, without the arguments that Alembic gives them."""
    names = {line[3:].partition("(")[0] for line in operations()}
    for path in sorted((ROOM / "operations").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name in names and node.args.args[0].arg == "cls":
                del node.args.args[:2]
                node.decorator_list = []
                node.body = [ast.Expr(ast.Constant(...))]
                yield node


def stub() -> str:
    functions = [ast.unparse(one).replace("(PUBLIC,)", "('public',)") for one in methods()]
    unformatted = "\n".join([HEAD, *sorted(functions)]) + "\n"
    formatted = subprocess.run(
        [Path(sys.executable).with_name("ruff"), "format", "--stdin-filename", str(STUB), "-"],
        input=unformatted,
        capture_output=True,
        text=True,
        check=True,
    )
    return formatted.stdout


def test_the_stub_has_the_operations() -> None:
    written = stub()
    if os.environ.get("SQLA_RLS_WRITE_OP_STUB"):
        STUB.write_text(written, encoding="utf-8")
    assert STUB.read_text(encoding="utf-8") == written
    in_stub = {node.name for node in ast.parse(written).body if isinstance(node, ast.FunctionDef)}
    assert in_stub == {line[3:].partition("(")[0] for line in operations()}


@pytest.mark.exhaustive
@pytest.mark.parametrize("first", ["alembic", "sqla_rls.alembic.op"])
def test_it_is_alembics_proxy(first: str) -> None:
    asked = f"import {first}, alembic.op; from sqla_rls.alembic import op; print(op is alembic.op)"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
    from sqla_rls.alembic import op

    assert op.__name__ == alembics.__name__


@pytest.mark.exhaustive
def test_a_migration_runs_with_it(project: Project) -> None:
    mako = project.folder / "script.py.mako"
    mako.write_text(mako.read_text().replace("from alembic import op", "from sqla_rls.alembic import op"))
    written = project.migrate(own_todos())
    assert "from sqla_rls.alembic import op" in written
    project.downgrade("base")
