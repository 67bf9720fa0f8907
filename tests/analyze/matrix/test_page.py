"""The page of a matrix in a browser: names as text, filters, keyboard, phone, dark mode, paper."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sqla_rls.analyze.matrix import Entry, Matrix, WayAround, matrix_of
from sqla_rls.analyze.matrix.difference import EntryChange, MatrixDiff, WayChange
from sqla_rls.analyze.matrix.formats import html_
from sqla_rls.analyze.verdict import Counterexample
from sqla_rls.analyze.why.explanation import COMMANDS
from tests.analyze.matrix.organizations import scratch_database
from tests.support.browser import PHONE, Pages, axe_violations, overflow

pytestmark = [pytest.mark.exhaustive, pytest.mark.one_postgres]

SHOWN = "#entries tbody tr:not([hidden])"
ATTACK = "<img src=x onerror=\"document.title='attacked'\">"


@pytest.fixture(scope="module")
def organizations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the page of a real database."""
    with scratch_database() as connection:
        yield saved(tmp_path_factory.mktemp("page"), matrix_of(connection, name=f"app {ATTACK}"))


def saved(folder: Path, found: Matrix | MatrixDiff) -> str:
    page = folder / "access.html"
    page.write_text(html_(found), encoding="utf-8")
    return page.as_uri()


def large(tables: int = 200, roles: int = 6) -> Matrix:
    names = tuple(f"role_{number}" for number in range(roles))
    words = ("never", "always", "own rows", "rows of my organizations or published rows")
    entries = []
    for table in range(tables):
        for number, role in enumerate(names):
            for place, command in enumerate(COMMANDS):
                shown = words[(table + number + place) % len(words)]
                verdict = shown if shown in ("never", "always") else "condition"
                entries.append(
                    Entry(
                        object=f"public.table_{table}",
                        kind="table",
                        role=role,
                        command=command,
                        verdict=verdict,  # type: ignore[arg-type] # one of the verdicts
                        condition=shown if verdict == "condition" else "",
                        sql="policy own FOR ALL USING ((user_id = ( SELECT auth.user_id() AS user_id)))",
                    )
                )
    return Matrix(name="large", roles=names, all_roles=names, entries=tuple(entries), ways=())


def changed() -> MatrixDiff:
    def entry(command: str, words: str) -> Entry:
        verdict = words if words in ("never", "always") else "condition"
        return Entry(
            object="public.docs",
            kind="table",
            role="app",
            command=command,  # type: ignore[arg-type] # one of the commands
            verdict=verdict,  # type: ignore[arg-type] # one of the verdicts
            condition=words if verdict == "condition" else "",
            sql=f"policy p FOR {command} USING ({words})",
        )

    before = [entry(command, "own rows") for command in COMMANDS]
    after = [entry("SELECT", "always"), entry("INSERT", "never"), *before[2:]]
    way = WayAround(
        kind="view", object="public.titles", role="app", commands=("SELECT",), reaches=("public.docs",),
        text="reads with the rights of owner", sql=ATTACK,
    )  # fmt: skip
    example = Counterexample(
        claims={"sub": "alice"},
        rows={"public.docs": [{"id": 1, "user_id": ATTACK}]},
        statement='SELECT "id" FROM public.docs',
        before="0 rows",
        after="1 row",
        text=f"alice as app can read public.docs(id=1, user_id={ATTACK})",
    )
    roles = ("app",)
    first = Matrix(name="before.json", roles=roles, all_roles=roles, entries=tuple(before), ways=())
    second = Matrix(name="after.json", roles=roles, all_roles=roles, entries=tuple(after), ways=(way,))
    return MatrixDiff(
        before=first,
        after=second,
        entries=(
            EntryChange(before=before[0], after=after[0], direction="opens", counterexamples=(example,)),
            EntryChange(before=before[1], after=after[1], direction="closes"),
        ),
        ways=(WayChange(before=None, after=way),),
        left_out=(f"public.{ATTACK}: not tried",),
    )


def test_names_and_expressions_are_text(pages: Pages, organizations: str) -> None:
    page = pages.open(organizations)
    page.get_by_role("button", name="Show all SQL").click()
    assert page.get_by_text('public."<script>alert(1)</script>"').count() >= 2
    assert page.get_by_text('rows with a|b "</td><img src=x onerror=alert(2)>"').count() == 1
    assert ATTACK in page.title()
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 1
    # A script that gets in nevertheless doesn't run.
    injected = (
        "document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran = 1'}))"
    )
    page.evaluate(injected)
    assert page.evaluate("window.ran") is None
    assert any("Content Security Policy" in error for error in pages.errors)
    pages.errors.clear()
    assert pages.requests == [organizations]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 800), PHONE], ids=["desktop", "phone"])
def test_axe_finds_no_violation(
    pages: Pages, organizations: str, tmp_path: Path, size: tuple[int, int], scheme: str
) -> None:
    for url in (organizations, saved(tmp_path, changed())):
        page = pages.open(url, size=size, color_scheme=scheme)  # type: ignore[arg-type] # one of two
        page.get_by_role("button", name="Show all SQL").click()
        assert axe_violations(page) == []
        assert overflow(page) == 0
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")


def test_filters_and_search_hide_rows(pages: Pages, organizations: str) -> None:
    page = pages.open(organizations)
    status = page.get_by_role("status")
    everything = page.locator(SHOWN).count()
    page.get_by_label("Search").fill("PUBLISHED docs")
    assert page.locator(SHOWN).count() == 2
    assert "2 of" in (status.text_content() or "")
    page.get_by_label("Role").select_option("anonymous")
    assert page.locator(SHOWN).count() == 1
    page.get_by_role("button", name="Reset").click()
    page.wait_for_function(f"document.querySelectorAll('{SHOWN}').length == {everything}")
    page.get_by_label("Verdict").select_option("always")
    page.get_by_label("Command").select_option("DELETE")
    assert page.locator(f"{SHOWN} th .name").all_text_contents() == ["public.logs_2024"]
    page.get_by_label("Kind").select_option("view")
    assert page.locator(SHOWN).count() == 0


def test_the_keyboard_sorts_and_opens(pages: Pages, organizations: str) -> None:
    page = pages.open(organizations)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the matrix"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "matrix"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    header = page.get_by_role("columnheader", name="Object")
    assert header.get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "descending"
    assert page.locator(f"{SHOWN} th .name").first.text_content() == "public.their_docs"
    summary = page.locator("#entries summary", has_text="published rows").first
    summary.focus()
    page.keyboard.press("Enter")
    assert page.locator("#entries details[open]").count() == 1
    assert page.locator("#entries details[open]").get_by_text("USING (").is_visible()


def test_a_large_matrix_stays_quick(pages: Pages, tmp_path: Path) -> None:
    for size in ((1280, 800), PHONE):
        page = pages.open(saved(tmp_path, large()), size=size)
        assert page.locator("#entries tbody tr").count() == 1200
        assert overflow(page) == 0
        milliseconds = page.evaluate(
            """() => {
              const start = performance.now();
              const search = document.querySelector("[name=search]");
              search.value = "table_7";
              search.dispatchEvent(new Event("input", {bubbles: true}));
              document.querySelector("#entries thead button").click();
              document.body.offsetHeight;
              return performance.now() - start;
            }"""
        )
        assert page.locator(SHOWN).count() == 6 * 11
        # A fiftieth of that where nothing else runs.
        assert milliseconds < 15_000


@pytest.mark.long
def test_axe_finds_no_violation_in_a_search_of_a_large_matrix(pages: Pages, tmp_path: Path) -> None:
    page = pages.open(saved(tmp_path, large()))
    # Of all 1,200 rows, axe would take many minutes.
    page.get_by_label("Search").fill("table_7")
    assert page.locator(SHOWN).count() == 66
    assert axe_violations(page) == []


def test_a_difference_has_words_beside_its_colors(pages: Pages, tmp_path: Path) -> None:
    page = pages.open(saved(tmp_path, changed()))
    cell = page.locator("td[data-command=SELECT]")
    assert re.match(r"\s*opens\s*always", cell.text_content() or "")
    assert "before: own rows" in (cell.text_content() or "")
    cell.locator("summary").click()
    assert page.get_by_text(f"user_id={ATTACK}").first.is_visible()
    colors = [
        page.locator(f"td[data-command={command}]").evaluate("one => getComputedStyle(one).backgroundColor")
        for command in COMMANDS[:3]
    ]
    assert len(set(colors)) == 3
    page.get_by_label("Change").select_option("closes")
    assert page.locator(SHOWN).count() == 1
    assert page.locator("#ways-around tbody tr:not([hidden])").count() == 0
    page.get_by_label("Change").select_option("opens")
    assert page.locator("#ways-around tbody tr:not([hidden])").count() == 1


def test_paper_has_the_rows_and_no_controls(pages: Pages, organizations: str) -> None:
    a4 = (794, 1123)
    page = pages.open(organizations, size=a4, color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert not page.get_by_label("Search").is_visible()
    assert page.locator("#entries").evaluate("one => getComputedStyle(one).display") == "table"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.pdf().startswith(b"%PDF")


def test_without_scripts_the_page_has_all_rows(pages: Pages, organizations: str) -> None:
    page = pages.open(organizations, java_script_enabled=False)
    assert page.locator("#entries tbody tr").count() > 20
    assert not page.locator("form").is_visible()
