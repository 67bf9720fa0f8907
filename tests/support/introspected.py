"""The declarations that ``sqla-rls import`` writes, and the databases that they build."""

from __future__ import annotations

from typing import Any

from click.testing import CliRunner
from sqlalchemy import MetaData

from sqla_rls import revoke_public_privileges
from sqla_rls.cli import main
from sqla_rls.testing.postgres import Server
from tests.support.project import Project


def closed() -> MetaData:
    metadata = MetaData()
    revoke_public_privileges(metadata)
    return metadata


def introspected(project: Project, *schemas: str) -> tuple[str, MetaData]:
    """What is written, and the reflected tables with it."""
    arguments = [argument for schema in schemas for argument in ("--schema", schema)]
    url = project.url.set(drivername="postgresql").render_as_string(hide_password=False)
    written = CliRunner().invoke(main, ["import", url, *arguments], catch_exceptions=False).output
    metadata = MetaData()
    for schema in schemas or (None,):
        metadata.reflect(project.engine, schema=None if schema == "public" else schema)
    found: dict[str, Any] = {}
    exec(compile(written, "row_security.py", "exec"), found)
    found["declare_row_security"](metadata)
    return written, metadata


def introspected_without_drift(project: Project, *schemas: str) -> tuple[str, MetaData]:
    """``introspected()``, after which nothing is left to do and nothing has been done."""
    before = project.state()
    written, metadata = introspected(project, *schemas)
    project.check(metadata)
    assert project.state() == before
    return written, metadata


def execute_raw(project: Project, *statements: str) -> None:
    """Without SQLAlchemy's notion of parameters."""
    with project.engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement.replace("%", "%%"))


def rebuilt(project: Project, server: Server, metadata: MetaData, *run_first: str) -> list[tuple[str, str]]:
    """What a new database is, that migrations make after *run_first*."""
    name = server.create_database()
    elsewhere = Project(project.folder.parent / "elsewhere", server.url(name))
    execute_raw(elsewhere, *run_first)
    elsewhere.migrate(metadata)
    found = [(kind, line) for kind, line in elsewhere.state() if line != "alembic_version"]
    server.drop_database(name)
    return found
