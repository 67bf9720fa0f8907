"""A headless Chromium: pages at any width, their errors, and what axe says of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, Literal

import pytest

from tests.support.suite import missing

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request

#: The last two are on the machines of GitHub.
NAMES: Final = ("chromium", "chromium-browser", "google-chrome")

#: The viewport of a small phone, in CSS pixels.
PHONE: Final = (360, 740)


@dataclass
class Pages:
    """The pages of a test.  The fixture fails the test if one of them reported an error."""

    browser: Browser
    #: Errors of the console, exceptions, and requests that failed.
    errors: list[str] = field(default_factory=list)
    #: The URLs that the pages asked for, in their order.
    requests: list[str] = field(default_factory=list)

    def open(
        self,
        url: str,
        *,
        size: tuple[int, int] = (1280, 800),
        color_scheme: Literal["light", "dark"] = "light",
        **options: Any,
    ) -> Page:
        """Open *url* in a profile of its own: no page shares cookies with another.

        Args:
            size: width and height of the viewport, in CSS pixels.
            color_scheme: the preference that the page is told.
            options: for ``Browser.new_context()``, such as ``java_script_enabled`` or ``base_url``.
        """
        context = self.browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=color_scheme, **options
        )
        context.set_default_timeout(60_000)
        page = context.new_page()
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("requestfailed", self._failed)
        page.goto(url)
        return page

    def _failed(self, request: Request) -> None:
        # A page that is left while it loads aborts its requests.
        if request.failure != "net::ERR_ABORTED":
            self.errors.append(f"{request.url}: {request.failure}")

    def close(self) -> None:
        """Close all pages.

        Raises:
            AssertionError: a page reported an error.
        """
        for context in self.browser.contexts:
            context.close()
        assert not self.errors, f"errors of the pages: {self.errors}"


def find_chromium() -> str | None:
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The browser, shared by the tests of a module; Playwright drives it and downloads none.

    Raises:
        pytest.skip.Exception: this machine has no Chromium.
    """
    program = find_chromium()
    if program is None:
        missing("chromium", "apt install chromium")
    from playwright.sync_api import sync_playwright

    # While it runs, asyncio.run() fails in this thread: hence the scope.
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        yield browser
        browser.close()


@pytest.fixture
def pages(chromium: Browser) -> Iterator[Pages]:
    """Opens pages.  The test fails at its end if :attr:`Pages.errors` isn't empty."""
    found = Pages(chromium)
    yield found
    found.close()


@cache
def _axe() -> str:
    return (files("axe_playwright_python") / "axe.min.js").read_text("utf-8")


def axe_violations(page: Page) -> list[str]:
    """Return what axe finds wrong with *page* as it is now: rule, its help, and the element, a line each."""
    # evaluate() works under any Content-Security-Policy; a script element doesn't.
    page.evaluate(_axe())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{violation['id']}: {violation['help']}: {node['html'][:200]}"
        for violation in found["violations"]
        for node in violation["nodes"]
    ]


def overflow(page: Page) -> int:
    """Return by how many pixels *page* is wider than its viewport."""
    width: int = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return width
