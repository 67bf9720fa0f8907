"""The todos application in headless Chromium: what people see on the screen, and what they don't."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.browser import PHONE, Pages, axe_violations, overflow

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = pytest.mark.exhaustive

SERVE = Path(__file__).parents[2] / "examples" / "todos" / "serve.py"


def start(*arguments: str, **variables: str) -> subprocess.Popen[str]:
    """Start the application on a Postgres of its own."""
    given = ("SQLA_RLS_", "DATABASE_", "STACK_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(given)}
    return subprocess.Popen(
        [sys.executable, SERVE, "--port", "0", *arguments],
        env={**environment, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )


def address(app: subprocess.Popen[str]) -> str:
    assert app.stdout
    said = app.stdout.readline()
    found = re.search(r"http://\S+", said)
    assert found, said + app.stdout.read()
    return found[0]


@pytest.fixture(scope="module")
def url(chromium: object) -> Iterator[str]:
    """The address of the application, which the tests of this module share."""
    app = start()
    yield address(app)
    app.send_signal(signal.SIGTERM)
    said, _ = app.communicate(timeout=60)
    assert (app.returncode, said) == (0, "")


def sign_in(page: Page, name: str) -> Page:
    page.get_by_role("button", name=f"Sign in as {name}").click()
    page.get_by_text(f"You are signed in as {name}@example.com.").wait_for()
    return page


def my_todos(page: Page) -> list[str]:
    return page.get_by_role("region", name="My todos").locator("li label").all_inner_texts()


def said(page: Page, text: str) -> None:
    page.get_by_role("status").filter(has_text=text).wait_for()


def the_list(page: Page, name: str) -> Locator:
    return page.get_by_role("article", name=name)


def test_two_people_see_their_own_todos_and_the_list_that_they_share(pages: Pages, url: str) -> None:
    alice, bob = (sign_in(pages.open(url), name) for name in ("alice", "bob"))
    assert my_todos(alice) == ["Buy milk", "Call mum"]
    assert my_todos(bob) == ["Fix the bike"]

    alice.get_by_label("New todo", exact=True).fill("A secret of Alice")
    alice.get_by_label("New todo", exact=True).press("Enter")
    said(alice, "Added A secret of Alice.")
    alice.get_by_label("New todo in Household").fill("Clean the windows")
    alice.get_by_label("New todo in Household").press("Enter")
    said(alice, "Added Clean the windows to Household.")

    bob.reload()
    household = the_list(bob, "Household")
    household.get_by_text("Clean the windows").wait_for()
    assert "by alice" in household.locator("li", has_text="Clean the windows").inner_text()
    assert my_todos(bob) == ["Fix the bike"]
    assert "A secret of Alice" not in bob.locator("body").inner_text()


def test_axe(pages: Pages, url: str) -> None:
    page = pages.open(url)
    page.get_by_text("Street party").wait_for()
    page.screenshot(path="/tmp/anon.png", full_page=True)
    assert axe_violations(page) == []
    sign_in(page, "alice")
    page.get_by_role("button", name="Claim to be bob").click()
    page.get_by_role("region", name="Result").wait_for()
    page.screenshot(path="/tmp/alice2.png", full_page=True)
    assert axe_violations(page) == []
    dark = sign_in(pages.open(url, color_scheme="dark", size=PHONE), "carol")
    dark.screenshot(path="/tmp/dark.png", full_page=True)
    assert axe_violations(dark) == []
    assert overflow(dark) == 0
