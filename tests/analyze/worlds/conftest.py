"""Two servers with the same roles."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.servers import two_cleared_servers
from tests.support.worlds import ROLES, Sides


@pytest.fixture(scope="module")
def sides() -> Iterator[Sides]:
    with two_cleared_servers(ROLES) as (before, after):
        yield Sides(before, after)
