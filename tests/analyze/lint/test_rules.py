"""The failing and the clean case of each rule, on a real Postgres; docs/reference/lint/ shows them.

SQLA_RLS_WRITE_REFERENCE=1 writes the pages.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from sqla_rls.analyze.lint.formats import FORMATS
from sqla_rls.analyze.lint.registry import rules
from sqla_rls.analyze.lint.rule import Rule
from tests.analyze.lint.examples import Examples, shown, unknown

PAGES = Path(__file__).parents[3] / "docs" / "reference" / "lint"
IS_WRITING = bool(os.environ.get("SQLA_RLS_WRITE_REFERENCE"))


def page(rule: Rule, found: str, subject: str) -> str:
    """Return the page of *rule*; *found* is the report on its failing case, and *subject* an object of it."""
    return f"""\
# {rule.name}

{rule.summary}

Group: {rule.group}. Level: {rule.level}.

{rule.reason}

<!-- blocks tested by: tests/analyze/lint/test_rules.py -->

## Failing case

The examples have the roles `anonymous` and `authenticated`, and the functions of schema `auth`.

```sql
{rule.failing}
```

```text
{found.rstrip()}
```

## Clean case

```sql
{rule.clean}
```

## Exemption

State the reason in pyproject.toml:

```toml
[[tool.sqla_rls.lint.exempt]]
rule = "{rule.name}"
object = "{subject}"
reason = "…"
```
"""


def without_times(text: str) -> str:
    """Return *text* without the figures that depend on the machine."""
    return re.sub(r"\d+\.\d ms", "… ms", text)


#: A rule of speed generates rows, and measures.
_SLOW = [one.name for one in rules().values() if one.group == "speed" and one.name != "missing-index"]


@pytest.mark.parametrize(
    "names",
    [
        pytest.param([name for name in rules() if name not in _SLOW], id="quick"),
        pytest.param(_SLOW, id="speed", marks=pytest.mark.exhaustive),
    ],
)
def test_each_rule_finds_its_failing_case(
    examples: Examples, names: list[str], subtests: pytest.Subtests
) -> None:
    for name in names:
        rule = rules()[name]
        with subtests.test(rule.name):
            # The rule unknown is about the answers that other rules ask for.
            select = [name, *(["everyone-reads"] if name == "unknown" else [])]
            failing = examples.look(rule.failing, select=select)

            assert [one.level for one in failing.findings if one.level == rule.level], failing.left_out
            assert failing.left_out == ()
            assert name == "unknown" or unknown(failing) == []
            subject = next(one.object for one in failing.findings if one.level == rule.level)
            written = page(rule, FORMATS["text"](failing), subject)
            path = PAGES / f"{rule.name}.md"
            if IS_WRITING:
                PAGES.mkdir(exist_ok=True)
                path.write_text(written, encoding="utf-8")
            assert without_times(path.read_text(encoding="utf-8")) == without_times(written)


@pytest.mark.exhaustive
def test_each_rule_passes_its_clean_case_and_no_other_finds_more_than_an_info(
    examples: Examples, subtests: pytest.Subtests
) -> None:
    for rule in rules().values():
        with subtests.test(rule.name):
            clean = examples.look(rule.clean, speed=rule.group == "speed")
            assert [
                one for one in shown(clean) if not one.startswith("info") or f" {rule.name} " in one
            ] == []
            assert clean.left_out == ()


def test_each_page_has_a_rule() -> None:
    assert {one.stem for one in PAGES.glob("*.md")} - {"index"} == rules().keys()
