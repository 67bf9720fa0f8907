"""The server on which the rules run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.analyze.lint.examples import Examples


@pytest.fixture(scope="module")
def examples() -> Iterator[Examples]:
    with Examples.start() as found:
        yield found
