"""Findings as JUnit's XML: a test case for each finding, and one for each rule without any."""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from sqla_rls.analyze.lint.finding import Finding
from sqla_rls.analyze.lint.formats.text import details, title
from sqla_rls.analyze.lint.run import Report
from sqla_rls.analyze.report.report import plain


def junit(report: Report) -> str:
    """Return *report* as JUnit's XML; errors and warnings are failures, and an info is a passed case."""
    found = {one.rule for one in report.findings}
    cases = [_case(one) for one in report.findings]
    cases += [
        f'    <testcase classname="{one.group}" name="{one.name}"/>'
        for one in report.rules
        if one.name not in found
    ]
    cases += [
        f'    <testcase classname="{one.rule}" name={_attribute(title(one))}>'
        f"<skipped message={_attribute(exemption.reason)}/></testcase>"
        for one, exemption in report.exempt
    ]
    failures = sum(one.level != "info" for one in report.findings)
    head = f'tests="{len(cases)}" failures="{failures}" errors="0" skipped="{len(report.exempt)}"'
    return "\n".join(
        [
            '<?xml version="1.0" encoding="utf-8"?>',
            "<testsuites>",
            f"  <testsuite name={_attribute(f'sqla-rls lint {report.target}')} {head}>",
            *cases,
            "  </testsuite>",
            "</testsuites>",
            "",
        ]
    )


def _case(finding: Finding) -> str:
    source = finding.source
    place = (
        f" file={_attribute(source.path)} line={_attribute(str(source.line))}" if source is not None else ""
    )
    head = f"    <testcase classname={_attribute(finding.rule)} name={_attribute(title(finding))}{place}>"
    words = escape("\n".join(details(finding)))
    if finding.level == "info":
        return f"{head}<system-out>{words}</system-out></testcase>"
    kind = _attribute(finding.level or "")
    return f"{head}<failure type={kind} message={_attribute(finding.text)}>{words}</failure></testcase>"


def _attribute(words: str) -> str:
    # XML has no control characters.
    return quoteattr(plain(words))
