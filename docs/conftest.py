"""Each code block of a document is a test: ``pytest docs``.  ``tests/support/pages.py`` runs it."""

import pytest
from sybil import Sybil

from tests.support import pages

pytest_collect_file = Sybil(
    parsers=[pages.parse], patterns=["*.md", "**/*.md"], teardown=pages.teardown
).pytest()


# After the teardown of the last document.
@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    pages.SERVER.stop()
