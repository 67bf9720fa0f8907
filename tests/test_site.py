"""The built site: its first page and a guide, on a wide and a narrow screen."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Final, Literal

import pytest

from tests.support.browser import Pages, axe_violations, overflow
from tests.support.suite import missing

SITE: Final = Path(__file__).parents[1] / "docs" / "_build"
#: The theme breaks them: its icons are in no landmark, and its two sidebars have no names.
OF_THE_THEME: Final = ("region:", "landmark-unique:")

pytestmark = [pytest.mark.exhaustive, pytest.mark.one_postgres]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The address of the site."""
    if not (SITE / "index.html").is_file():
        missing("site", "make docs")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(SITE))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("path", ["/", "/guide/matrix/", "/tutorial/5_two_people/"])
def test_a_page_fits_its_screen_and_is_accessible(
    site: str, pages: Pages, path: str, width: int, color_scheme: Literal["light", "dark"]
) -> None:
    page = pages.open(site + path, size=(width, 844), color_scheme=color_scheme)
    assert overflow(page) == 0
    assert [found for found in axe_violations(page) if not found.startswith(OF_THE_THEME)] == []
