"""Runs the rules on a database, and applies the selection, the exemptions and the baseline."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, TypeAlias

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.exemptions import Exemption
from sqla_rls.analyze.lint.finding import LEVELS, Finding, Level, SourceLine
from sqla_rls.analyze.lint.others import folded
from sqla_rls.analyze.lint.platform import PlatformExemptions, platform_exemptions
from sqla_rls.analyze.lint.registry import rules
from sqla_rls.analyze.lint.rule import GROUPS, Rule
from sqla_rls.analyze.verdict import Progress
from sqla_rls.catalog.query import pinned, undone
from sqla_rls.exc import AnalysisError

#: The place of an object in the models, by its name and that of its policy.
Locate: TypeAlias = Callable[[Finding], SourceLine | None]
FailOn: TypeAlias = Level | Literal["unknown", "never"]
FAIL_ON: Final[tuple[FailOn, ...]] = (*LEVELS, "unknown", "never")

#: Milliseconds: a query of the catalog, or a policy, that never ends.
STATEMENT_TIMEOUT: Final = 20_000
#: Milliseconds: a migration holds a table for longer.
LOCK_TIMEOUT: Final = 5_000
#: The version of the format of baseline files.
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The findings of a run.

    Attributes:
        target: the name of the target, without a password.
        findings: the findings, the most severe first.
        exempt: the findings that an exemption of pyproject.toml has, with the exemption.
        reviewed: the findings of the baseline.
        stale: sentences about exemptions and entries of the baseline without a finding.
        left_out: sentences about the parts of the target that its scratch database doesn't have.
        rules: the rules that ran.
        path: a file that SARIF names as the place of findings without a model.
    """

    target: str
    findings: Sequence[Finding]
    exempt: Sequence[tuple[Finding, Exemption]] = ()
    reviewed: Sequence[Finding] = ()
    stale: Sequence[str] = ()
    left_out: Sequence[str] = ()
    rules: Sequence[Rule] = ()
    path: str | None = None

    def fails(self, fail_on: FailOn) -> bool:
        """Return whether a finding is at least as severe as *fail_on*; reviewed and exempt ones don't count.

        Args:
            fail_on: a level; "unknown" fails on warnings, errors, and each part without an answer, whatever
                its level; "never" fails on nothing.
        """
        if fail_on == "never":
            return False
        if fail_on == "unknown":
            return self.fails("warning") or any(one.rule == "unknown" for one in self.findings)
        return any(one.rank <= LEVELS.index(fail_on) for one in self.findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The findings that a person has reviewed, in a file beside the code."""

    entries: Collection[tuple[str, ...]] = field(default_factory=frozenset)

    @classmethod
    def of(cls, findings: Collection[Finding]) -> Baseline:
        """Return a baseline in which all *findings* are reviewed, but for unknown parts."""
        return cls(entries=frozenset(_entry(one) for one in findings if one.rule != "unknown"))

    @classmethod
    def from_json(cls, content: str, name: str) -> Baseline:
        """Read the text of the baseline file *name*.

        Raises:
            AnalysisError: the text isn't one of ``to_json()``.
        """
        try:
            found = json.loads(content)
            if found["lint"] != _FORMAT:
                raise ValueError
            return cls(entries=frozenset(tuple(one[part] for part in _PARTS) for one in found["reviewed"]))
        except (KeyError, TypeError, ValueError):
            raise AnalysisError(
                f"the baseline {name} can't be read: it isn't one of sqla-rls lint. Write it with "
                "--write-baseline"
            ) from None

    def to_json(self) -> str:
        """Return the text of a baseline file."""
        reviewed = [dict(zip(_PARTS, entry, strict=True)) for entry in sorted(self.entries)]
        return json.dumps({"lint": _FORMAT, "reviewed": reviewed}, indent=2, ensure_ascii=False) + "\n"

    def has(self, finding: Finding) -> bool:
        """Return whether *finding* is reviewed, at the same level."""
        return _entry(finding) in self.entries


_PARTS: Final = ("rule", "object", "policy", "column", "role", "command", "level")


def _entry(finding: Finding) -> tuple[str, ...]:
    return (*finding.key, finding.level or "")


def selected(
    select: Collection[str] = (), ignore: Collection[str] = (), *, speed: bool = False
) -> list[Rule]:
    """Return the rules that run.

    Args:
        select: the names of rules or groups that run; empty is all, those of speed only with *speed*.  The
            rule ``unknown`` runs in any case, last.
        ignore: the names of those that don't.
        speed: whether the rules of speed run, too.

    Raises:
        AnalysisError: a name is of no rule and of no group.
    """
    known = rules()
    for name in (*select, *ignore):
        if name not in known and name not in GROUPS:
            raise AnalysisError(
                f"the rule {name!r} can't be selected: there is none of that name. Give one of "
                f"{', '.join([*GROUPS, *known])}"
            )

    def names(one: Rule, given: Collection[str]) -> bool:
        return one.name in given or one.group in given

    return [
        one
        for one in known.values()
        if (
            one.group == "unknown"
            or (one.group == "speed" and speed)
            or (names(one, select) if select else one.group != "speed")
        )
        and not names(one, ignore)
    ]


def lint(
    database: Database,
    *,
    target: str,
    select: Collection[str] = (),
    ignore: Collection[str] = (),
    speed: bool = False,
    exemptions: Collection[Exemption] = (),
    baseline: Baseline | None = None,
    locate: Locate | None = None,
    progress: Progress | None = None,
    others: Callable[[Database], Sequence[Finding]] | None = None,
) -> Report:
    """Look at *database* with the selected rules.

    Args:
        database: the database.
        target: its name in the report.
        select: the names of rules or groups that run; empty is all.
        ignore: the names of those that don't.
        speed: whether the rules of speed run, too: they measure policies in a scratch database.
        exemptions: the findings that are meant, with their reasons.
        baseline: the findings that are reviewed.
        locate: returns the line of a finding in the models.
        others: returns the findings of other programs, which are folded with ours.
        progress: is called with the number of rules done, their number, and the next rule.

    Emits:
        SELECT statements in a transaction that is read only and rolled back.  They take no lock above
        ACCESS SHARE.

    Raises:
        AnalysisError: a name is of no rule, or a schema doesn't exist.
    """
    running = selected(select, ignore, speed=speed)
    found: list[Finding] = []
    more: Sequence[Finding] = ()
    with pinned(database.connection), database.undo:
        database.connection.execute(
            text(
                "SELECT pg_catalog.set_config('search_path', 'pg_catalog', true), "
                "pg_catalog.set_config('statement_timeout', :timeout, true), "
                "pg_catalog.set_config('lock_timeout', :lock_timeout, true), "
                "pg_catalog.set_config('transaction_read_only', :read_only, true)"
            ),
            {
                "timeout": str(STATEMENT_TIMEOUT),
                "lock_timeout": str(LOCK_TIMEOUT),
                "read_only": "off" if database.is_scratch else "on",
            },
        )
        _require_schemas(database)
        of_platform = platform_exemptions(database.connection)
        if others is not None:
            more = others(database)
        for place, one in enumerate(running):
            if progress is not None:
                progress(place, len(running), one.name)
            found += _run(one, database)
    found = folded(found, more)
    if locate is not None:
        found = [replace(one, source=one.source or locate(one)) for one in found]
    found.sort(key=lambda one: (one.rank, one.object, one.rule, one.key))
    return _sorted_out(found, database, target, running, exemptions, of_platform, baseline)


def _require_schemas(database: Database) -> None:
    """Raise AnalysisError if a schema to look at doesn't exist: nothing would be found in it."""
    missing = sorted({*database.schemas} - {*database.connection.scalars(_SCHEMAS)})
    if missing:
        raise AnalysisError(
            f"schema {missing[0]!r} can't be looked at: the target has none of that name. Correct --schema, "
            "or `schemas` in pyproject.toml"
        )


_SCHEMAS: Final = text("SELECT n.nspname FROM pg_catalog.pg_namespace AS n")


def _run(one: Rule, database: Database) -> list[Finding]:
    """Return the findings of a rule; an error of the server is one of the rule ``unknown``."""
    is_severe = one.group in ("openings", "dead-ends")
    database.asking = (one.name, "error" if is_severe else one.level)
    try:
        with undone(database.connection):
            return one.findings(database)
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        database.note_unknown(one.name, str(error.orig).strip().partition("\n")[0], kind="rule")
    except AnalysisError as error:
        database.note_unknown(one.name, str(error), kind="rule")
    finally:
        database.asking = None
    return []


def _sorted_out(
    found: Sequence[Finding],
    database: Database,
    target: str,
    running: Sequence[Rule],
    exemptions: Collection[Exemption],
    of_platform: PlatformExemptions,
    baseline: Baseline | None,
) -> Report:
    exempt: list[tuple[Finding, Exemption]] = []
    reviewed: list[Finding] = []
    left: list[Finding] = []
    for finding in found:
        exemption = next((one for one in exemptions if one.has(finding)), None) or of_platform(finding)
        if exemption is not None:
            exempt.append((finding, exemption))
        elif baseline is not None and baseline.has(finding):
            reviewed.append(finding)
        else:
            left.append(finding)
    names = {one.name for one in running}
    used = {id(exemption) for _, exemption in exempt}
    stale = [
        f"The exemption of {one.rule} for {one.object} has no finding. Remove it from pyproject.toml."
        for one in exemptions
        if id(one) not in used and one.rule in names
    ]
    if baseline is not None:
        present = {_entry(one) for one in found}
        stale += [
            f"The baseline has {entry[0]} for {entry[1]}, and there is no such finding. Write it again."
            for entry in sorted(baseline.entries)
            if entry not in present and entry[0] in names
        ]
    return Report(
        target=target,
        findings=left,
        exempt=exempt,
        reviewed=reviewed,
        stale=stale,
        left_out=tuple(database.left_out),
        rules=running,
    )


def as_dict(report: Report) -> Mapping[str, Any]:
    """Return the JSON of *report*."""
    return {
        "target": report.target,
        "findings": [one.as_dict() for one in report.findings],
        "exempt": [{**one.as_dict(), "reason": exemption.reason} for one, exemption in report.exempt],
        "reviewed": [one.as_dict() for one in report.reviewed],
        "stale": list(report.stale),
        "left_out": list(report.left_out),
        "rules": [one.name for one in report.rules],
    }
