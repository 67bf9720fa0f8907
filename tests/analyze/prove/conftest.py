"""The database of the models of todos."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sqla_rls.analyze.sides import Built, Side
from todos.models import Base as Todos


@pytest.fixture(scope="module")
def built() -> Iterator[Built]:
    with Side.parse("models", models=Todos.metadata).build() as built:
        yield built
