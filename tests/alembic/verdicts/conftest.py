"""Revisions are compared with the database, which no other test shares."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sqla_rls.server.installation import Installation
from sqla_rls.server.postgres import Server
from tests.support.project import Project
from tests.support.servers import cleared_server


@pytest.fixture(scope="module")
def server(installation: Installation | None) -> Iterator[Server]:
    """A server without the roles of other tests: a verdict names each role that it concerns."""
    with cleared_server(installation) as found:
        yield found


@pytest.fixture(autouse=True)
def compared(project: Project) -> None:
    project.options = {}
