"""The todos application in headless Chromium: people see their own rows on the screen, and no others.

``SQLA_RLS_WRITE_SCREENSHOTS=1`` writes the pictures of docs/guide/todos.md.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import psycopg
import pytest
import yaml
from sqlalchemy import make_url

from sqla_rls.testing.issuer import Issuer
from sqla_rls.testing.postgres import Server, installations
from tests.support.browser import PHONE, Pages, axe_violations, overflow
from tests.support.web import sent_by

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.one_postgres,
    pytest.mark.skipif(not installations(), reason="no Postgres to start"),
]

ROOT = Path(__file__).parents[2]
TODOS = ROOT / "examples" / "todos"
PICTURES = ROOT / "docs" / "images"


@contextmanager
def serving(stop: signal.Signals, **variables: str) -> Iterator[str]:
    """Run the application, and yield its address; *stop* ends it without a traceback."""
    given = ("SQLA_RLS_", "DATABASE_", "STACK_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(given)}
    app = subprocess.Popen(
        [sys.executable, TODOS / "serve.py", "--port", "0"],
        env={**environment, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    assert app.stdout
    try:
        first = app.stdout.readline()
        found = re.search(r"http://\S+", first)
        assert found, first + app.stdout.read()
        yield found[0]
    finally:
        app.send_signal(stop)
        said, _ = app.communicate(timeout=60)
    assert app.returncode == 0, said
    assert "Traceback" not in said, said


@pytest.fixture(scope="module")
def url(chromium: object) -> Iterator[str]:
    """The address of the application, which the tests of this module share."""
    with serving(signal.SIGTERM) as url:
        yield url


def sign_in(page: Page, name: str) -> Page:
    page.get_by_role("button", name=f"Sign in as {name}").click()
    said(page, f"You are signed in as {name}@example.com.")
    return page


def said(page: Page, text: str) -> None:
    page.get_by_role("status").filter(has_text=text).wait_for()


def my_todos(page: Page) -> list[str]:
    return page.get_by_role("region", name="My todos").locator("li label").all_inner_texts()


def the_list(page: Page, name: str) -> Locator:
    return page.get_by_role("article", name=name)


def add(page: Page, task: str, label: str = "New todo") -> None:
    field = page.get_by_label(label, exact=True)
    field.fill(task)
    field.press("Enter")
    said(page, f"Added {task}")


def focused(page: Page) -> Any:
    """The label of the element that has the focus."""
    return page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.labels?.[0].textContent")


def picture(shown: Page | Locator, name: str) -> None:
    if os.environ.get("SQLA_RLS_WRITE_SCREENSHOTS"):
        PICTURES.mkdir(exist_ok=True)
        shown.screenshot(path=PICTURES / name, animations="disabled")


def test_two_people_see_their_own_todos_and_the_list_that_they_share(pages: Pages, url: str) -> None:
    alice, bob = (sign_in(pages.open(url), name) for name in ("alice", "bob"))
    assert my_todos(alice) == ["Buy milk", "Call mum"]
    assert my_todos(bob) == ["Fix the bike"]

    add(alice, "A secret of Alice")
    add(alice, "Clean the windows", "New todo in Household")
    bob.reload()
    shared = the_list(bob, "Household").get_by_role("listitem").filter(has_text="Clean the windows")
    assert shared.inner_text().split("\n") == ["Clean the windows", "by alice"]
    assert my_todos(bob) == ["Fix the bike"]
    assert "A secret of Alice" not in bob.content()

    alice.get_by_role("button", name="Delete A secret of Alice").click()
    said(alice, "Deleted A secret of Alice.")
    assert my_todos(alice) == ["Buy milk", "Call mum"]


def test_an_anonymous_visitor_sees_the_public_board_alone(pages: Pages, url: str) -> None:
    page = pages.open(url)
    board = the_list(page, "Town board")
    board.get_by_text("Book swap at the library").wait_for()
    assert page.get_by_role("article").count() == 1
    assert board.get_by_role("button").count() == 0
    assert board.get_by_role("checkbox").first.is_disabled()
    for hidden in ("My todos", "Try to read everyone's todos"):
        assert not page.get_by_role("region", name=hidden).is_visible()
    page.locator("#role", has_text="anonymous").wait_for()
    assert not {"Buy milk", "Water the plants", "alice (admin)"} & set(page.locator("main").all_inner_texts())


def test_an_admin_of_a_list_publishes_it_and_chooses_its_members(pages: Pages, url: str) -> None:
    alice, carol = (sign_in(pages.open(url), name) for name in ("alice", "carol"))
    visitor = pages.open(url)
    assert the_list(carol, "Household").count() == 0
    add(alice, "carol", "New member of Household")
    carol.reload()
    household = the_list(carol, "Household")
    household.get_by_text("Water the plants").wait_for()
    assert household.get_by_label("New member of Household").count() == 0
    # The page hides the button of the admin; the policy stops the request.
    answers = carol.evaluate(
        """async () => {
            const { refreshToken } = JSON.parse(sessionStorage.getItem("person"));
            const asked = await fetch("/stand-in/api/v1/auth/sessions/current/refresh", {
                method: "POST", headers: {"x-stack-refresh-token": refreshToken}});
            const { access_token } = await asked.json();
            const send = (method, path, body) => fetch(path, { method, body: JSON.stringify(body), headers: {
                "content-type": "application/json", authorization: `Bearer ${access_token}` }});
            return [(await send("POST", "/api/lists/1/members", { user_id: "mallory" })).status,
                    (await send("PATCH", "/api/lists/1", { name: "Mine" })).status,
                    (await send("DELETE", "/api/list-todos/1")).status,
                    (await send("PATCH", "/api/todos/1", { task: "Mine" })).status];
        }"""
    )
    assert answers == [403, 404, 404, 404]
    assert len(pages.errors) == 4
    pages.errors.clear()

    alice.get_by_role("button", name="Publish: Household").click()
    said(alice, "Household is public.")
    visitor.reload()
    the_list(visitor, "Household").get_by_text("Water the plants").wait_for()
    alice.get_by_role("button", name="Make private: Household").click()
    said(alice, "Household is private.")
    alice.get_by_role("button", name="Remove carol from Household").click()
    said(alice, "Removed carol.")
    for page in (visitor, carol):
        page.reload()
        the_list(page, "Town board").wait_for()
        assert the_list(page, "Household").count() == 0


def test_a_person_creates_a_list_and_deletes_it(pages: Pages, url: str) -> None:
    bob = sign_in(pages.open(url), "bob")
    bob.get_by_label("New list").fill("Holidays")
    bob.get_by_label("New list").press("Enter")
    said(bob, "Created Holidays.")
    add(bob, "Book a train", "New todo in Holidays")
    bob.get_by_role("button", name="Rename the list Holidays").click()
    bob.get_by_label("New name of Holidays").fill("Summer")
    bob.get_by_label("New name of Holidays").press("Enter")
    said(bob, "Renamed to Summer.")
    add(bob, "alice", "New member of Summer")
    bob.once("dialog", lambda dialog: dialog.accept())
    bob.get_by_role("button", name="Delete the list Summer").click()
    said(bob, "Deleted Summer.")
    assert the_list(bob, "Summer").count() == 0


def test_the_panel_shows_caller_statements_and_policies_of_a_request(pages: Pages, url: str) -> None:
    page = sign_in(pages.open(url), "bob")
    add(page, "Read a book")
    panel = page.get_by_role("region", name="What the database sees")
    panel.get_by_text("INSERT INTO todos").wait_for()
    assert panel.locator("#role").inner_text() == "authenticated"
    assert '"sub": "bob"' in panel.locator("#claims").inner_text()
    begin, commit = panel.locator("#trips li").all_inner_texts()
    assert begin.startswith("BEGIN")
    assert "set_config('role', $1" in begin
    assert commit == "COMMIT; RESET ALL;"
    assert "eyJ" not in page.content()

    panel.get_by_role("combobox").select_option("GET /api/todos")
    panel.get_by_text("FROM todos").wait_for()
    assert panel.locator("#trips li").count() == 2
    panel.get_by_text("Policies in force").click()
    panel.get_by_role("cell", name="crud-authenticated-policy-delete").wait_for()
    assert (
        panel.get_by_role("cell", name="lists", exact=True).count() == 4
    )  # that for anonymous isn't in force
    page.get_by_role("button", name="Delete Read a book").click()
    said(page, "Deleted Read a book.")


def test_sql_of_a_person_reads_their_own_rows_alone(pages: Pages, url: str) -> None:
    page = sign_in(pages.open(url), "alice")
    result = page.get_by_role("region", name="Result")
    for example in ("All rows", "Claim to be bob"):
        page.get_by_role("button", name=example).click()
        result.get_by_text("2 rows").wait_for()
        assert result.locator("td:nth-child(2)").all_inner_texts() == ["alice", "alice"]
        page.get_by_role("textbox", name="SQL").fill("SELECT 1 AS one")
        page.get_by_role("button", name="Run").click()
        result.get_by_text("1 row").wait_for()
    page.get_by_role("button", name="Claim to be bob").click()
    result.get_by_text("2 rows").wait_for()
    picture(page.get_by_role("region", name="Try to read everyone's todos"), "todos-sql.png")
    page.get_by_role("button", name="Other people's rows").click()
    result.get_by_text("0 rows").wait_for()
    page.get_by_role("button", name="Switch policies off").click()
    result.get_by_text("must be owner of table todos (SQLSTATE 42501)").wait_for()
    assert ["400" in error for error in pages.errors] == [True]
    pages.errors.clear()


def test_after_a_sign_out_nothing_of_the_person_is_left(pages: Pages, url: str) -> None:
    page = sign_in(pages.open(url), "alice")
    page.reload()
    page.get_by_text("Signed in as alice@example.com").wait_for()
    token = page.evaluate("JSON.parse(sessionStorage.getItem('person')).refreshToken")
    page.get_by_role("button", name="Sign out").click()
    said(page, "You are signed out.")
    for _ in range(2):
        the_list(page, "Town board").wait_for()
        assert page.locator("main li label").all_inner_texts() == [
            "Street party on Saturday",
            "Book swap at the library",
        ]
        assert page.evaluate("sessionStorage.length") == 0
        page.reload()
    # The session is over at the provider, too.
    renewal = httpx2.post(
        f"{url}/stand-in/api/v1/auth/sessions/current/refresh", headers={"x-stack-refresh-token": token}
    )
    assert renewal.status_code == 401


def test_a_token_that_has_expired_is_renewed(pages: Pages, url: str) -> None:
    page = sign_in(pages.open(url), "bob")
    expire = page.get_by_role("button", name="Let my token expire")
    expire.click()
    said(page, "Your token has expired.")
    renewals = [one for one in pages.requests if one.endswith("/sessions/current/refresh")]
    add(page, "One more")
    assert len([one for one in pages.requests if one.endswith("/sessions/current/refresh")]) == 1 + len(
        renewals
    )
    assert pages.errors == []

    # With a clock that is late, the page believes the token, and the server refuses it.
    expire.click()
    said(page, "Your token has expired.")
    page.clock.set_fixed_time(datetime.now(UTC) - timedelta(days=3))
    page.get_by_role("button", name="Delete One more").click()
    said(page, "Deleted One more.")
    assert my_todos(page) == ["Fix the bike"]
    assert ["401" in error for error in pages.errors] == [True]
    pages.errors.clear()


def test_a_session_that_is_over_ends_on_the_page(pages: Pages, url: str) -> None:
    page = sign_in(pages.open(url), "bob")
    page.evaluate(
        """sessionStorage.setItem("person", JSON.stringify(
            { id: "bob", email: "bob@example.com", refreshToken: "another" }))"""
    )
    page.reload()
    said(page, "Your session is over. Sign in again.")
    page.get_by_role("button", name="Sign in as bob").wait_for()
    assert not page.get_by_role("region", name="My todos").is_visible()
    assert ["401" in error for error in pages.errors] == [True]
    pages.errors.clear()


def test_the_keyboard_is_enough(pages: Pages, url: str) -> None:
    page = pages.open(url)
    page.get_by_role("button", name="Sign in as bob").wait_for()

    def press(*keys: str) -> None:
        for key in keys:
            page.keyboard.press(key)

    press("Tab", "Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    press("Enter")
    said(page, "You are signed in as bob@example.com.")
    assert focused(page) == "New todo"
    page.keyboard.type("Buy bread")
    press("Enter")
    said(page, "Added Buy bread.")
    assert focused(page) == "New todo"

    press("Shift+Tab", "Shift+Tab")
    assert focused(page) == "Rename Buy bread"
    press("Enter")
    page.keyboard.type("Buy rolls")
    press("Escape")
    assert focused(page) == "Rename Buy bread"
    press("Enter")
    page.keyboard.type("Buy rolls")
    press("Enter")
    said(page, "Renamed to Buy rolls.")
    assert focused(page) == "Rename Buy rolls"

    press("Shift+Tab", "Space")
    said(page, "Completed Buy rolls.")
    assert focused(page) == "Buy rolls"
    press("Tab", "Tab", "Enter")
    said(page, "Deleted Buy rolls.")
    assert focused(page) == "New todo"
    assert my_todos(page) == ["Fix the bike"]


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1000, 560), PHONE], ids=["desktop", "phone"])
def test_the_page_fits_and_axe_finds_no_violation(
    pages: Pages, url: str, size: tuple[int, int], color_scheme: Any
) -> None:
    page = pages.open(url, size=size, color_scheme=color_scheme)
    the_list(page, "Town board").wait_for()
    assert (axe_violations(page), overflow(page)) == ([], 0)
    sign_in(page, "alice")
    page.get_by_text("Policies in force").click()
    page.get_by_role("button", name="Claim to be bob").click()
    page.get_by_role("region", name="Result").get_by_role("table").wait_for()
    assert (axe_violations(page), overflow(page)) == ([], 0)
    page.get_by_text("Policies in force").click()
    page.get_by_role("button", name="Rename Buy milk").click()
    assert axe_violations(page) == []
    page.keyboard.press("Escape")
    page.get_by_role("combobox").select_option("GET /api/todos")
    page.locator("#trips").get_by_text("FROM todos").wait_for()
    page.get_by_label("New todo", exact=True).focus()
    page.evaluate("scrollTo(0, 0)")
    if (size == PHONE) == (color_scheme == "dark"):
        picture(page, f"todos-{'phone' if size == PHONE else 'desktop'}.png")


def test_a_database_and_a_provider_of_ones_own() -> None:
    """The database has the roles of compose.yaml."""
    compose = yaml.safe_load((TODOS / "compose.yaml").read_text(encoding="utf-8"))
    given = compose["services"]["web"]["environment"]
    with Server.start(installations()[0]) as server, Issuer() as issuer:

        def here(variable: str) -> str:
            url = make_url(given[variable]).set(host=server.url().host, port=server.port)
            return url.render_as_string(hide_password=False)

        superuser = server.url().set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(superuser, autocommit=True) as creator:
            for statement in compose["configs"]["roles"]["content"].splitlines():
                creator.execute(statement)
        owner = here("DATABASE_URL")
        variables = {
            "DATABASE_URL": owner,
            "DATABASE_AUTHENTICATED_URL": here("DATABASE_AUTHENTICATED_URL"),
            "DATABASE_SQL_URL": here("DATABASE_SQL_URL"),
            "STACK_PROJECT_ID": issuer.project_id,
            "STACK_BASE_URL": issuer.base_url,
            "STACK_PUBLISHABLE_CLIENT_KEY": "pck_1",
        }
        with serving(signal.SIGINT, **variables) as url, httpx2.Client(base_url=url) as client:
            assert client.get("/api/config").json() == {
                "auth_url": issuer.base_url,
                "project_id": issuer.project_id,
                "client_key": "pck_1",
                "people": [],
            }
            page = client.get("/")
            assert f"connect-src 'self' {issuer.base_url};" in page.headers["content-security-policy"]
            assert client.post("/stand-in/api/v1/auth/password/sign-in").status_code == 404
            alice, bob = (sent_by(issuer, name) for name in ("alice", "bob"))
            assert client.get("/api/todos").status_code == 401
            assert client.post("/api/todos", json={"task": "Buy milk"}, headers=alice).status_code == 201
            assert [todo["task"] for todo in client.get("/api/todos", headers=alice).json()] == ["Buy milk"]
            assert client.get("/api/todos", headers=bob).json() == []
            connection = {"neon-connection-string": "postgresql://authenticated@host.example/todos"}
            for headers, count in ((alice, 1), (bob, 0)):
                body = {"query": "SELECT task FROM todos", "params": []}
                answer = client.post("/sql", json=body, headers={**headers, **connection})
                assert answer.json()["rowCount"] == count
                body = {"query": "SELECT session_user", "params": []}
                answer = client.post("/sql", json=body, headers={**headers, **connection})
                assert answer.json()["rows"] == [{"session_user": "sql_http"}]

        def alembic(*arguments: str) -> str:
            command = [sys.executable, "-m", "alembic", "-c", str(TODOS / "alembic.ini"), *arguments]
            done = subprocess.run(
                command, cwd=ROOT, env={**os.environ, "DATABASE_URL": owner}, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        assert "No new upgrade operations detected." in alembic("check")
        alembic("downgrade", "0001")
        alembic("upgrade", "head")
        alembic("downgrade", "base")
