"""A proof as text."""

from __future__ import annotations

from collections.abc import Iterator

from sqla_rls.analyze.prove.proof import Kept, Proof, Score
from sqla_rls.analyze.prove.pytest_text import failing_tests


def as_text(proof: Proof, score: Score | None = None) -> str:
    """Return the text of ``sqla-rls prove``."""
    lines = list(_kept(proof.kept))
    if proof.not_stated:
        lines += ["", "Not proved:"]
        lines += [f"  {one.object}, {one.command} as {one.role}: {one.reason}" for one in proof.not_stated]
    if proof.violations:
        lines += ["", "Violations:"]
        lines += [f"  {one.text}." for one in proof.violations]
        lines += ["", "As tests, with the fixture `access` of docs/guide/testing.md:", ""]
        lines += failing_tests(proof.violations).splitlines()
    scope = proof.scope
    tried = f"{scope.statements} statements in {scope.worlds} worlds with up to {scope.rows_per_table} rows"
    lines += [
        "",
        f"As intended: {len(proof.kept)}. Not proved: {len(proof.not_stated)}.",
        f"Violations: {len(proof.violations)}.",
        f"Tried: {tried} per table.",
        f"The run noticed each of {proof.controls} changes that it planted.",
    ]
    if scope.left_out:
        lines += ["Left out:", *(f"  {one}" for one in scope.left_out)]
    if score is not None:
        lines += ["", str(score)]
    return "\n".join(lines).lstrip("\n") + "\n"


def _kept(kept: tuple[Kept, ...]) -> Iterator[str]:
    rows: dict[tuple[str, str, str], list[Kept]] = {}
    for one in kept:
        rows.setdefault((one.object, one.role, one.source), []).append(one)
    shown = ""
    for (name, role, source), found in rows.items():
        if name != shown:
            yield name
            shown = name
        commands = ", ".join(one.command for one in found)
        statements = sum(one.statements for one in found)
        yield f"  {role}: {commands} as {source} ({statements} statements)"
