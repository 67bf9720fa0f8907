"""The part ``[tool.sqla_rls.lint]`` of pyproject.toml: options, and findings that are meant, with reasons."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from sqla_rls.analyze.lint.database import ANONYMOUS_ROLES
from sqla_rls.analyze.lint.finding import Finding
from sqla_rls.exc import AnalysisError


@dataclass(frozen=True, slots=True, kw_only=True)
class Exemption:
    """A finding that is meant.

    Attributes:
        rule: the name of the rule.
        object: the name of the object; ``*`` stands for any text.
        reason: the reason, for reviewers.
        policy: the policy; None is any.
        column: the column; None is any.
        role: the role; None is any.
        command: the command; None is any.
    """

    rule: str
    object: str
    reason: str
    policy: str | None = None
    column: str | None = None
    role: str | None = None
    command: str | None = None

    def has(self, finding: Finding) -> bool:
        """Return whether the exemption is for *finding*."""
        return (
            self.rule == finding.rule
            and (self.object == finding.object or fnmatchcase(finding.object, self.object))
            and all(
                given is None or given == found
                for given, found in (
                    (self.policy, finding.policy),
                    (self.column, finding.column),
                    (self.role, finding.role),
                    (self.command, finding.command),
                )
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The part ``[tool.sqla_rls.lint]`` of pyproject.toml."""

    select: Sequence[str] = ()
    ignore: Sequence[str] = ()
    schemas: Sequence[str] = ()
    fail_on: str | None = None
    anonymous_roles: Sequence[str] = ANONYMOUS_ROLES
    trusted_owners: Sequence[str] = ()
    exemptions: Sequence[Exemption] = ()


_LISTS: Final = {
    "select": "select",
    "ignore": "ignore",
    "schemas": "schemas",
    "anonymous-roles": "anonymous_roles",
    "trusted-owners": "trusted_owners",
}
_REQUIRED: Final = ("rule", "object", "reason")
_OPTIONAL: Final = ("policy", "column", "role", "command")


def read_settings(path: Path) -> Settings:
    """Read ``[tool.sqla_rls.lint]`` of the file at *path*; without the file or the part, all is default.

    Raises:
        AnalysisError: the file isn't TOML, or the part has a wrong key or value.
    """
    if not path.is_file():
        return Settings()
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _wrong(path, f"it isn't TOML: {error}", "Correct it") from None
    tool = found.get("tool", {}).get("sqla_rls", {}).get("lint", {})
    if not isinstance(tool, dict):
        raise _wrong(path, "tool.sqla_rls.lint isn't a table", "Write [tool.sqla_rls.lint]")
    known = [*_LISTS, "fail-on", "exempt"]
    values: dict[str, Any] = {}
    for name, value in tool.items():
        if name not in known:
            raise _wrong(path, f"it has the key {name!r}", f"Use one of {', '.join(known)}")
        if name in _LISTS:
            if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
                raise _wrong(path, f"{name} isn't a list of texts", f'Write {name} = ["…"]')
            values[_LISTS[name]] = tuple(value)
        elif name == "fail-on":
            if value not in ("error", "warning", "info", "unknown", "never"):
                raise _wrong(path, f"fail-on is {value!r}", "Give error, warning, info, unknown or never")
            values["fail_on"] = value
    exempt = tool.get("exempt", [])
    if not isinstance(exempt, list):
        raise _wrong(path, "exempt isn't an array of tables", "Write [[tool.sqla_rls.lint.exempt]]")
    return Settings(**values, exemptions=tuple(_exemption(path, one) for one in exempt))


def _exemption(path: Path, given: Any) -> Exemption:
    if not isinstance(given, Mapping):
        raise _wrong(path, "exempt isn't an array of tables", "Write [[tool.sqla_rls.lint.exempt]]")
    missing = [name for name in _REQUIRED if not str(given.get(name, "")).strip()]
    if missing:
        raise _wrong(path, f"an exemption has no {missing[0]}", f'Write {missing[0]} = "…"')
    for name, value in given.items():
        if name not in (*_REQUIRED, *_OPTIONAL) or not isinstance(value, str):
            raise _wrong(
                path, f"an exemption has {name} = {value!r}", f"Use texts for {', '.join(_OPTIONAL)}"
            )
    return Exemption(**given)


def _wrong(path: Path, reason: str, step: str) -> AnalysisError:
    return AnalysisError(f"the settings of sqla-rls lint in {path} can't be read: {reason}. {step}")
