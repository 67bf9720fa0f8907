"""Findings about roles and objects of Supabase, which a project can't change, are exempt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from sqlalchemy import Connection

from sqla_rls.analyze.lint.exemptions import Exemption
from sqla_rls.analyze.lint.finding import Finding
from sqla_rls.introspect.preset import Preset

#: The exemption of a finding, or None.
PlatformExemptions: TypeAlias = Callable[[Finding], Exemption | None]

_REASON: Final = "It belongs to Supabase, and your migrations leave it alone."
#: The rules about a table itself.  Its policies are those of the project.
_OF_TABLES: Final = (
    "caller-privileges",
    "privilege-without-policy",
    "row-security-without-policies",
    "table-without-row-security",
)


def platform_exemptions(connection: Connection) -> PlatformExemptions:
    """Return a function that returns the exemption of a finding about what belongs to Supabase."""
    ignored = Preset.of(connection).ignored

    def exemption_of(finding: Finding) -> Exemption | None:
        if finding.kind == "role":
            theirs = finding.rule == "login-role" and ignored.role(finding.object)
        else:
            schema = finding.object.partition(".")[0]
            of_its_own = finding.kind == "function" or finding.rule in _OF_TABLES
            theirs = of_its_own and finding.policy is None and ignored.schema(schema)
        return Exemption(rule=finding.rule, object=finding.object, reason=_REASON) if theirs else None

    return exemption_of
