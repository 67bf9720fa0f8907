"""The code blocks of documents are run, and a wrong one is a failure."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from sybil import Example
from yaml import YAMLError

from sqla_rls.testing.issuer import Issuer
from sqla_rls.testing.postgres import Server
from tests.support import pages
from tests.support.blocks import Block, blocks, matches, table
from tests.support.pages import ROOT, Page, start_alembic, untested
from tests.support.servers import cleared_server

pytestmark = [pytest.mark.one_postgres]


@pytest.fixture
def page() -> Iterator[Page]:
    with cleared_server() as server:
        page = Page(server)
        with page.entered():
            yield page
        page.close()


def run(page: Page, text: str) -> list[str | None]:
    return [page.run(block) for block in blocks(text)]


def test_a_document_is_run_in_one_namespace_folder_and_database(page: Page) -> None:
    text = """
<!-- invisible-code-block: python
import os

os.environ["COLOR"] = "blue"
-->

```python
# models.py
ANSWER = 42
```

```python
from models import ANSWER

import asyncio

await asyncio.sleep(0)
print(ANSWER)
```

```text
42
```

```sql
SELECT current_user AS name, 1 AS n
```

The result:

```text
 name       | n
------------+---
 page_owner | 1
```

```console
$ cat models.py
ANSWER = 42
$ echo "$DATABASE_URL $COLOR"
postgresql…page_owner… blue
```

```pycon
>>> ANSWER + 1
43
```
"""
    assert run(page, text) == [None] * 6


@pytest.mark.parametrize(
    "text",
    [
        "```python\nprint(1)\n```\n\n```text\n2\n```",
        "```console\n$ echo 1\n2\n```",
        "```console\n$ false\n```",
        "```pycon\n>>> 1\n2\n```",
        "```sql\nSELECT 1 AS n\n```\n\n```text\n n\n---\n 2\n```",
        "```rust\nfn main() {}\n```",
        "```text\nwithout a block that writes it\n```",
    ],
)
@pytest.mark.exhaustive
def test_a_block_that_shows_something_else_is_a_failure(page: Page, text: str) -> None:
    assert all(run(page, text))


@pytest.mark.parametrize("text", ["toml\na =", "json\n{", "yaml\na: [", "python\n1 / 0"])
@pytest.mark.exhaustive
def test_a_block_that_is_no_code_raises(page: Page, text: str) -> None:
    with pytest.raises((ValueError, YAMLError, ZeroDivisionError)):
        run(page, f"```{text}\n```")


def test_an_error_is_shown(page: Page) -> None:
    text = "```sql\nSELECT 1 / 0\n```\n\n```text\nERROR:  division by zero\n```"
    assert run(page, text) == [None]


def test_an_error_is_no_output_of_a_block_that_prints(page: Page) -> None:
    shown = "```text\nZeroDivisionError: division by zero\n```"
    assert run(page, f"```python\n1 / 0\n```\n\n{shown}") == [None]
    with pytest.raises(ZeroDivisionError):
        run(page, f"```python\nfor _ in range(1):\n    print(1 / 0)\n```\n\n{shown}")


def test_a_package_without_the_extra_is_a_failure(page: Page) -> None:
    assert run(page, "```console\n$ pip install 'sqla-rls[cli]'\n```") == [None]
    with pytest.raises(AssertionError, match="has no extra"):
        run(page, "```console\n$ pip install 'sqla-rls[missing]'\n```")


def test_a_block_names_the_test_that_runs_it() -> None:
    text = "<!-- tested by: tests/a.py -->\n\n```js\n1\n```\n\n```python\n2\n```"
    assert [block.tested_by for block in blocks(text)] == ["tests/a.py", None]
    text = "<!-- blocks tested by: tests/a.py -->\n\ntext\n\n```js\n1\n```\n\n```sql\n2\n```"
    assert [block.tested_by for block in blocks(text)] == ["tests/a.py", "tests/a.py"]


@pytest.mark.exhaustive
def test_an_exported_variable_stays(page: Page) -> None:
    text = """
```console
$ export COLOUR=blue
$ echo "$COLOUR"
blue
```

```python
import os

print(os.environ["COLOUR"])
```

```text
blue
```
"""
    assert run(page, text) == [None] * 2


@pytest.mark.exhaustive
def test_a_server_has_started_when_it_writes_what_is_shown(page: Page) -> None:
    text = """
```console
$ (sleep 0.2; echo PORT=80; sleep 60) | tee .env &
PORT=…
$ cat .env
PORT=80
```
"""
    assert run(page, text) == [None]


@pytest.fixture
def documents(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of documents."""
    monkeypatch.setattr(pages, "DOCS", tmp_path)
    monkeypatch.setattr(pages, "SERVER", Namespace(server=server))
    yield tmp_path
    pages.PAGES.close()


def document(folder: Path, name: str, text: str) -> Namespace:
    path = folder / name
    path.write_text(text, "utf-8")
    return Namespace(path=path, text=text, namespace={})


def run_document(document: Namespace) -> list[str | None]:
    regions = [
        Namespace(parsed=one, path=document.path, document=document, namespace=document.namespace)
        for one in blocks(document.text)
    ]
    failures = [pages.evaluate(cast(Example, region)) for region in regions]
    pages.teardown(document.namespace)
    return failures


@pytest.mark.parametrize("ran", [True, False], ids=["after it", "alone"])
@pytest.mark.exhaustive
def test_a_document_continues_another(documents: Path, ran: bool) -> None:
    first = """
```console
$ echo "A = 1" >made.py
$ export COLOUR=blue
```

```sql
CREATE TABLE t AS SELECT 1 AS one
```

```python
from made import A

B = 2
```
"""
    second = """
<!-- continues: first.md -->

```python
# made.py
A = 3
```

```python
from made import A

print(A, "B" in globals())
```

```text
3 False
```

```sql
SELECT * FROM t
```

```text
 one
-----
 1
```

```console
$ echo $COLOUR
blue
```
"""
    began = document(documents, "first.md", first)
    made = None
    if ran:
        assert run_document(began) == [None] * 3
        made = began.namespace["page"]
    goes_on = document(documents, "second.md", second)
    assert run_document(goes_on) == [None] * 4
    assert made in (None, goes_on.namespace["page"])


@pytest.mark.exhaustive
def test_a_document_that_failed_is_run_again(documents: Path) -> None:
    first = document(documents, "first.md", "```console\n$ echo 1\n2\n```")
    assert all(run_document(first))
    second = document(documents, "second.md", "<!-- continues: first.md -->\n\n```python\n1\n```")
    (failure,) = run_document(second)
    assert failure is not None
    assert "first.md can't be continued" in failure


def test_the_named_test_names_the_document(tmp_path: Path) -> None:
    document = Path(__file__).parents[1] / "docs" / "guide" / "teams.md"
    assert untested("tests/test_pages.py", document) is None
    assert untested("tests/missing.py", document) == "tests/missing.py doesn't exist"
    assert untested("tests/conftest.py", document) is not None


def test_an_ellipsis_stands_for_text_or_lines() -> None:
    assert matches("a\nb\nc\n", "a\n…\nc\n")
    assert matches("12 rows\n", "… rows\n")
    assert not matches("a\nb\n", "a\n")


def test_rows_are_shown_as_psql_shows_them() -> None:
    assert table(["id", "task"], iter([(1, "buy milk"), (2, None)])) == (
        " id | task\n----+----------\n 1  | buy milk\n 2  |\n"
    )


def test_a_text_without_a_block_before_it_is_no_output() -> None:
    first, second = blocks("```text\na\n```\n\n```python\nb\n```")
    assert first == Block(language="text", code="a\n", line=1)
    assert second.shown is None


# The documents outside of docs/


@pytest.fixture
def issuer(page: Page, monkeypatch: pytest.MonkeyPatch) -> Iterator[Issuer]:
    with Issuer() as issuer:
        monkeypatch.setenv("STACK_PROJECT_ID", issuer.project_id)
        monkeypatch.setenv("STACK_BASE_URL", issuer.base_url)
        yield issuer


@pytest.mark.exhaustive
def test_the_readme_runs(page: Page, issuer: Issuer) -> None:
    for block in blocks((ROOT / "README.md").read_text("utf-8")):
        if block.language == "python":
            # tests/testing/test_development.py asks this app for rows.
            Path("app.py").write_text(block.code, "utf-8")
            start_alembic("app")
        else:
            assert page.run(block) is None


@pytest.mark.exhaustive
def test_the_readme_of_the_todos_runs(page: Page, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delitem(sys.modules, "todos.database", raising=False)
    monkeypatch.setattr(sys.modules["__page__"], "jwt", issuer.token("alice"), raising=False)
    text = (ROOT / "examples" / "todos" / "README.md").read_text("utf-8")
    assert set(run(page, text)) == {None}
    sys.modules.pop("todos.database").engine.dispose()
