"""Each code block of a document is a test: ``pytest docs``.  ``tests/support/pages.py`` runs it."""

from typing import Final

import pytest
from sybil import Sybil

from tests.support import pages

# Their blocks don't run yet.  Only ever remove a name.
UNRUN: Final = [
    "guide/migrations.md",
]

pytest_collect_file = Sybil(
    parsers=[pages.parse], patterns=["*.md", "**/*.md"], excludes=UNRUN, teardown=pages.teardown
).pytest()


# After the teardown of the last document.
@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    pages.SERVER.stop()
