"""A rule: a check, its reason, a failing and a clean case.  Each is a module of rules/.

::

    \"\"\"A table has policies, and its row security is off.

    Postgres ignores the policies …  (the reason, for the page of the rule)
    \"\"\"

    @rule(group="openings", level="error", failing="CREATE TABLE …", clean="CREATE TABLE …")
    def check(database: Database) -> Iterator[Finding]:
        …

The name of the rule is that of the module, with hyphens.  The summary is the first line of its docstring.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Final, Literal, TypeAlias, get_args

from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Finding, Level

Group: TypeAlias = Literal["openings", "dead-ends", "speed", "notes", "unknown"]
GROUPS: Final[tuple[Group, ...]] = get_args(Group)

Check: TypeAlias = Callable[[Database], Iterable[Finding]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule.

    Attributes:
        name: the name, for example "row-security-off".
        group: the group; ``--select`` and ``--ignore`` take it, too.
        level: the level of findings that name none.
        summary: the rule in one sentence.
        reason: why its findings matter, in Markdown.
        failing: SQL that makes a schema with findings.  Roles anonymous and authenticated, and the functions
            of schema auth, exist.
        clean: SQL that makes a schema without findings of this rule, and without any above info.
        check: yields the findings.
    """

    name: str
    group: Group
    level: Level
    summary: str
    reason: str
    failing: str
    clean: str
    check: Check

    def findings(self, database: Database) -> list[Finding]:
        """Return the findings in *database*, with the name of the rule and their levels."""
        found = [replace(one, rule=self.name, level=one.level or self.level) for one in self.check(database)]
        return list({one.key: one for one in reversed(found)}.values())[::-1]


def rule(*, group: Group, level: Level, failing: str, clean: str) -> Callable[[Check], Rule]:
    """Make a rule of a function; the module's name and docstring are those of the rule.

    Args:
        group: the group.
        level: the level of findings that name none.
        failing: SQL that makes a schema with findings.
        clean: SQL that makes a schema without them.
    """

    def decorate(check: Check) -> Rule:
        module = import_module(check.__module__)
        summary, _, reason = inspect.cleandoc(module.__doc__ or "").partition("\n\n")
        return Rule(
            name=check.__module__.rpartition(".")[2].replace("_", "-"),
            group=group,
            level=level,
            summary=" ".join(summary.split()),
            reason=reason.strip(),
            failing=inspect.cleandoc(failing),
            clean=inspect.cleandoc(clean),
            check=check,
        )

    return decorate
