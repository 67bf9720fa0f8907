"""The browser of the tests finds what is wrong with a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.browser import PHONE, Pages, axe_violations, overflow

pytestmark = [pytest.mark.exhaustive, pytest.mark.one_postgres]

GOOD = """<!doctype html><html lang="en"><meta name="viewport" content="width=device-width">
<title>A page</title><main><h1>A page</h1></main>"""


def saved(path: Path, html: str) -> str:
    page = path / "page.html"
    page.write_text(html, "utf-8")
    return page.as_uri()


def test_a_good_page_has_neither_errors_nor_violations(pages: Pages, tmp_path: Path) -> None:
    url = saved(tmp_path, GOOD)
    page = pages.open(url, size=PHONE, color_scheme="dark")
    assert axe_violations(page) == []
    assert overflow(page) == 0
    assert page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert pages.requests == [url]


def test_axe_names_the_rule_and_the_element(pages: Pages, tmp_path: Path) -> None:
    page = pages.open(saved(tmp_path, f"{GOOD}<main><input></main>"))
    assert any(found.startswith("label: ") and "<input" in found for found in axe_violations(page))


def test_a_page_wider_than_a_phone_overflows_it(pages: Pages, tmp_path: Path) -> None:
    assert overflow(pages.open(saved(tmp_path, f"{GOOD}<p style='width: 400px'>wide"), size=PHONE)) > 0


def test_errors_of_a_page_fail_the_test_at_its_end(pages: Pages, tmp_path: Path) -> None:
    script = "console.error('written'); throw Error('raised')"
    page = pages.open(saved(tmp_path, f"{GOOD}<img alt='' src='none.png'><script>{script}</script>"))
    page.wait_for_function("document.readyState == 'complete'")
    with pytest.raises(AssertionError, match=r"(?s)(?=.*written)(?=.*raised)(?=.*none\.png)"):
        pages.close()
    pages.errors.clear()
