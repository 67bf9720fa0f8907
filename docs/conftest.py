"""Each code block of a document is a test: ``pytest docs``.  ``tests/support/pages.py`` runs it."""

from typing import Any

import pytest
from sybil import Sybil
from xdist.scheduler import LoadFileScheduling

from tests.support import pages

pytest_collect_file = Sybil(
    parsers=[pages.parse], patterns=["*.md", "**/*.md"], teardown=pages.teardown
).pytest()


# After the teardown of the last document.
@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    pages.PAGES.close()
    pages.SERVER.stop()


class _Scheduler(LoadFileScheduling):
    """One worker runs the tutorial, since each of its pages continues the one before."""

    def _split_scope(self, nodeid: str) -> str:
        scope = str(super()._split_scope(nodeid))
        folder, _, _ = scope.rpartition("/")
        return folder if folder.endswith("tutorial") else scope


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    return _Scheduler(config, log) if config.getvalue("dist") == "loadfile" else None
