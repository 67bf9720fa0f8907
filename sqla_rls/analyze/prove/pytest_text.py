"""Violations as tests for pytest that fail until the policy is mended."""

from __future__ import annotations

from collections.abc import Iterable

from sqla_rls.analyze.prove.proof import Violation
from sqla_rls.analyze.worlds.objects import PUBLIC

_IMPORTS = "from sqla_rls.testing.access import Access\n"
_STAND_IN = f'PUBLIC stands for any role. The test needs one without privileges: CREATE ROLE "{PUBLIC}".'


def failing_tests(violations: Iterable[Violation]) -> str:
    """Return a module with a test of each violation.

    A test has the fixture ``access`` of docs/guide/testing.md, on a database without rows.
    """
    found = list(violations)
    if not found:
        return ""
    with_text = "from sqlalchemy import text\n\n" if any(one.settings for one in found) else ""
    return "\n\n".join([f"{with_text}{_IMPORTS}", *(_test(violation) for violation in found)])


def _test(violation: Violation) -> str:
    may = "may_not" if violation.direction == "more" else "may"
    words = f"{violation.role}_{may}_{violation.command.lower()}_{violation.object}"
    name = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in words)
    lines = [f"def test_{name}(access: Access) -> None:", f"    # {_in_one_line(violation.text)}."]
    if violation.role == PUBLIC:
        lines.append(f"    # {_STAND_IN}")
    for table, rows in violation.rows.items():
        lines += [f"    access.add_rows({table!r}, {dict(row)!r})" for row in rows]
    claims = dict(violation.claims or {})
    subject = claims.pop("sub", None)
    arguments = [repr(subject), f"role={violation.role!r}", *([f"**{claims!r}"] if claims else [])]
    session = " as session" if violation.settings else ""
    lines.append(f"    with access.as_caller({', '.join(arguments)}){session}:")
    for setting, value in violation.settings.items():
        parameters = f"{{'name': {setting!r}, 'value': {value!r}}}"
        lines.append(f'        session.execute(text("SELECT set_config(:name, :value, true)"), {parameters})')
    lines.append(f"        access.assert_rows({violation.statement!r}, {violation.intended})")
    return "\n".join(lines) + "\n"


def _in_one_line(text: str) -> str:
    return " ".join(text.split())
