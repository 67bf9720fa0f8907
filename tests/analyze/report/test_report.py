"""The formats of a comparison, the baseline of reviewed changes, and the gate."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from markdown_it import MarkdownIt

from sqla_rls.analyze.report import FAIL_ON, FORMATS, Baseline, FailOn, Report, is_closed
from sqla_rls.analyze.verdict import Change, Comparison, Counterexample, Same, Scope, Unknown, Verdict
from sqla_rls.exc import AnalysisError

SCHEMA = Path(__file__).parents[2] / "tables" / "sarif-2.1.0-rtm.5.json"

BOB = Counterexample(
    claims={"sub": "bob"},
    rows={"public.docs": [{"id": 1, "org_id": 2, "made": date(2026, 1, 2)}]},
    statement="SELECT *\n  FROM public.docs",
    before="0 rows",
    after="1 row",
    text="bob can read public.docs(id=1, org_id=2)",
)
STRANGER = replace(BOB, claims=None, settings={"app.x": "1"}, text="a caller without claims can read docs")
ODD = 'public."a|b`c\n::error::%, <img src=x> @all"'


def change(verdict: Verdict = "opens", name: str = "public.docs", example: Counterexample = BOB) -> Change:
    return Change(
        object=name,
        role="authenticated",
        command="SELECT",
        verdict=verdict,
        counterexample=example,
        closing=STRANGER if verdict == "both" else None,
    )


UNKNOWN = Unknown(object="public.far", role="anonymous", command="DELETE", reason="a foreign table")


def report(*changes: Change, unknown: tuple[Unknown, ...] = (), baseline: Baseline | None = None) -> Report:
    comparison = Comparison(
        changes=changes,
        unknown=unknown,
        same=(Same(object="public.docs", role="anonymous", command="SELECT", worlds=12, proved=True),),
        scope=Scope(
            evaluation="scratch",
            objects=2,
            worlds=4096,
            statements=9000,
            rows_per_table=3,
            left_out=("something is left out",),
        ),
    )
    return Report(comparison=comparison, before="before.json", after="models", baseline=baseline, path="m.py")


def test_the_text_has_a_paragraph_for_each_result() -> None:
    both, unknown, scope = FORMATS["text"](report(change("both"), unknown=(UNKNOWN,))).split("\n\n")
    assert both == (
        "both: public.docs, SELECT as authenticated\n"
        "  opens: bob can read public.docs(id=1, org_id=2)\n"
        '  claims: {"sub": "bob"}\n'
        '  row: public.docs {"id": 1, "org_id": 2, "made": "2026-01-02"}\n'
        "  statement: SELECT * FROM public.docs\n"
        "  before: 0 rows\n"
        "  after: 1 row\n"
        "  closes: a caller without claims can read docs\n"
        "  claims: none\n"
        '  setting: app.x = "1"\n'
        '  row: public.docs {"id": 1, "org_id": 2, "made": "2026-01-02"}\n'
        "  statement: SELECT * FROM public.docs\n"
        "  before: 0 rows\n"
        "  after: 1 row"
    )
    assert unknown == "unknown: public.far, DELETE as anonymous\n  a foreign table"
    assert scope == (
        "before.json → models: both 1, unknown 1.\n"
        "Tables and views whose definition, or a definition that they depend on, differs: 2.\n"
        "Tried: 9,000 statements in 4,096 worlds with up to 3 rows per table.\n"
        "Combinations of object, role and command without a difference in these worlds: 1.\n"
        "Proved among these, since the worlds are all that the policies can tell apart: 1.\n"
        "Left out: something is left out.\n"
    )
    assert FORMATS["text"](report()).startswith("before.json → models: no difference found.\n")


def test_the_json_is_that_of_the_comparison() -> None:
    given = report(change("closes"), unknown=(UNKNOWN,))
    found = json.loads(FORMATS["json"](given))
    assert found == json.loads(json.dumps(given.comparison.as_dict(), default=str))
    assert found["changes"][0]["counterexample"]["claims"] == {"sub": "bob"}


def test_the_json_with_a_baseline_says_which_changes_are_reviewed() -> None:
    baseline = Baseline.of(report(change(), change(name="public.gone")).comparison)
    found = json.loads(FORMATS["json"](report(change(), change("closes"), baseline=baseline)))
    assert [one["reviewed"] for one in found["changes"]] == [True, False]
    assert [one["object"] for one in found["stale"]] == ["public.gone"]


@pytest.mark.parametrize("name", ["text", "github"])
def test_a_name_cannot_add_a_line_to_a_log(name: str) -> None:
    example = replace(BOB, text="x\n::error::forged", after="42501: \x1b[2Jy\r::error::forged")
    written = FORMATS[name](
        report(change(name=ODD, example=example), unknown=(replace(UNKNOWN, object=ODD),))
    )
    assert "\x1b" not in written
    assert not [line for line in written.splitlines() if line.strip().startswith("::error::")]


def test_github_shows_an_annotation_for_each_result() -> None:
    baseline = Baseline.of(report(change(name="public.known"), change(name="public.gone")).comparison)
    given = report(
        change(name=ODD), change(name="public.known"), change("closes"), unknown=(UNKNOWN,), baseline=baseline
    )
    lines = FORMATS["github"](given).splitlines()
    assert [line.partition(" ")[0] for line in lines[:-1]] == [
        "::error",
        "::notice",
        "::notice",
        "::warning",
        "::warning",
    ]
    title, message = lines[0].removeprefix("::error title=").split("::", 1)
    assert title == (
        'opens%3A public."a|b`c %3A%3Aerror%3A%3A%25%2C <img src=x> @all"%2C SELECT as authenticated'
    )
    assert message.startswith("bob can read public.docs(id=1, org_id=2)%0Aclaims: ")


def test_markdown_shows_names_as_they_are() -> None:
    written = FORMATS["markdown"](report(change("both", name=ODD), unknown=(UNKNOWN,)))
    tokens = MarkdownIt().enable("table").parse(written)
    rows = [token for token in tokens if token.type == "tr_open"]
    cells = [token for token in tokens if token.type == "td_open"]
    assert (len(rows), len(cells)) == (3, 10)
    inline = [child for token in tokens for child in token.children or []]
    codes = [child.content for child in inline if child.type == "code_inline"]
    assert codes[2] == ODD.replace("\n", " ")
    # The image isn't HTML.
    assert "<img" not in MarkdownIt().enable("table").render(written)
    html = [token.content for token in tokens if token.type == "html_block"]
    assert html[0].startswith("<details><summary>both: public.")
    assert next(token.content for token in tokens if token.type == "fence").count("statement: ") == 2


def test_markdown_fits_into_a_comment() -> None:
    long = replace(BOB, text="x" * 50)
    written = FORMATS["markdown"](report(*[change(name=f"public.t{n}", example=long) for n in range(500)]))
    assert len(written) < 65_536
    assert "300 more results are in the report as text or JSON." in written
    assert written.count("<details>") == 25


def test_sarif_follows_its_schema() -> None:
    baseline = Baseline.of(report(change(), change(name="public.gone")).comparison)
    given = report(change(), change("both"), change("closes"), unknown=(UNKNOWN,), baseline=baseline)
    found = json.loads(FORMATS["sarif"](given))
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft4Validator(schema, format_checker=jsonschema.FormatChecker()).validate(found)
    (run,) = found["runs"]
    results = run["results"]
    assert [one["level"] for one in results] == ["error", "error", "note", "warning"]
    assert [bool(one.get("suppressions")) for one in results] == [True, False, False, False]
    for one in results:
        assert run["tool"]["driver"]["rules"][one["ruleIndex"]]["id"] == one["ruleId"]
        (place,) = one["locations"]
        assert place["physicalLocation"]["artifactLocation"] == {"uri": "m.py"}
    # The check can fail.
    del results[0]["message"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft4Validator(schema).validate(found)


def test_a_baseline_knows_a_change_by_its_counterexample() -> None:
    reviewed = Baseline.from_json(
        Baseline.of(report(change(), change("both")).comparison).to_json(), "b.json"
    )
    assert reviewed.has(change())
    assert reviewed.has(change("both"))
    assert reviewed.has(change(example=replace(BOB, text="in other words")))
    others: list[dict[str, Any]] = [
        {"claims": None},
        {"rows": {}},
        {"statement": "SELECT 1"},
        {"settings": {"a.b": "c"}},
        {"before": "1 row"},
        {"after": "2 rows"},
    ]
    for other in others:
        assert not reviewed.has(change(example=replace(BOB, **other))), other
    assert not reviewed.has(change("closes"))
    assert not reviewed.has(replace(change(), role="anonymous"))
    assert not reviewed.has(replace(change(), command="UPDATE"))
    assert not reviewed.has(change(name="public.others"))
    assert not reviewed.has(replace(change("both"), closing=BOB))


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format": 2, "reviewed": []}', '{"format": 1, "reviewed": [1]}']
)
def test_a_file_that_is_no_baseline_is_an_error(content: str) -> None:
    with pytest.raises(AnalysisError, match=r"the baseline b\.json can't be read"):
        Baseline.from_json(content, "b.json")


def test_a_change_that_is_gone_is_stale() -> None:
    baseline = Baseline.of(report(change(), change("closes")).comparison)
    written = FORMATS["text"](report(change("closes"), baseline=baseline))
    assert "closes: public.docs, SELECT as authenticated (reviewed)\n" in written
    assert "stale: public.docs, SELECT as authenticated (opens)\n" in written
    assert written.count("stale") == 1


@pytest.mark.parametrize(
    ("given", "failing"),
    [
        (report(), []),
        (report(change("closes")), ["any"]),
        (report(change("opens")), ["opens", "unknown", "any"]),
        (report(change("both")), ["opens", "unknown", "any"]),
        (report(unknown=(UNKNOWN,)), ["unknown", "any"]),
        (report(change(), baseline=Baseline.of(report(change()).comparison)), []),
        (
            report(change(), baseline=Baseline.of(report(change("both")).comparison)),
            ["opens", "unknown", "any"],
        ),
    ],
    ids=["same", "closes", "opens", "both", "unknown", "reviewed", "another reviewed"],
)
def test_the_gate_closes(given: Report, failing: list[FailOn]) -> None:
    assert [one for one in FAIL_ON if is_closed(given, one)] == failing  # type: ignore[arg-type] # one of FailOn


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("a b/#1.json", "a%20b/%231.json"),
        (str(Path.cwd() / "alembic.ini"), "alembic.ini"),
        ("/else where/x.json", "file:///else%20where/x.json"),
    ],
)
def test_sarif_names_a_file_below_the_current_directory(path: str, uri: str) -> None:
    found = json.loads(FORMATS["sarif"](replace(report(change()), path=path)))
    place = found["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == uri
