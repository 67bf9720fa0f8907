"""A pgrls.toml: who calls, by which functions, and which columns are theirs."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from sqla_rls.analyze.lint.accesses import Access, accesses
from sqla_rls.analyze.lint.database import KNOWN_CALLERS, Database
from sqla_rls.analyze.lint.finding import Finding
from sqla_rls.analyze.lint.pinned import pinned_columns
from sqla_rls.analyze.why.explanation import Command
from sqla_rls.analyze.worlds.objects import PUBLIC

#: The first line.
HEADER: Final = "# Written by: sqla-rls lint TARGET --export pgrls"
_AUTH_FUNCTIONS: Final = ("auth.user_id", "auth.uid", "auth.jwt", "auth.session", "current_setting")
#: The rules that take auth_functions, identity_columns, and the names of roles.
_TAKE_FUNCTIONS: Final = ("PERF001", "SEC004", "SEC026", "SEC030", "SEC035", "SEC038", "SEC040")
_TAKE_COLUMNS: Final = ("SEC021", "SEC030", "SEC040")
_TAKE_ANONYMOUS: Final = ("SEC004", "SEC042")
_TAKE_GRANTEES: Final = ("SEC049", "SEC053", "SEC054")

#: The rules of pgrls that are off, with the reasons.
DISABLED: Final[Mapping[str, str]] = {
    "SEC007": "permissive policies alone are right for most tables",
    "SEC010": "USING (false) states that a command is for no one",
    "SEC022": "a table that callers only read",
    "SEC027": "a column with a name such as user_id need not decide",
    "SEC045": "a column with a sensitive name; rows decide",
}


def pgrls_config(
    database: Database,
    findings: Sequence[Finding] = (),
    rules: Collection[str] = (),
    *,
    disabled: Mapping[str, str] = DISABLED,
) -> str:
    """Return the text of a pgrls.toml for *database*.

    Args:
        database: the database.
        findings: those of ``lint()``.
        rules: the names of the rules that ran.  An object that they looked at without a finding is in the
            allowlist of pgrls's rule about the same fault.
        disabled: the rules of pgrls that are off, with the reasons.
    """
    schemas = sorted({table.schema for table in database.tables if table.schema != "auth"})
    columns = sorted({column for one in accesses(database) for column in _identity(one)})
    options: dict[str, dict[str, Sequence[str]]] = {}

    def add(rules: Iterable[str], name: str, values: Collection[str]) -> None:
        for rule in rules:
            if values:
                options.setdefault(rule, {})[name] = sorted(values)

    add(_TAKE_FUNCTIONS, "auth_functions", _functions(database))
    add(_TAKE_COLUMNS, "identity_columns", columns)
    anonymous = [name for name in database.anonymous_roles if name in database.schema.roles]
    if anonymous:
        # A list takes the place of pgrls's own, which has PUBLIC for all of these rules but SEC039.
        add(["SEC039"], "anon_roles", anonymous)
        add(_TAKE_ANONYMOUS, "anon_roles", [*anonymous, PUBLIC])
        add(["SEC047"], "low_trust_roles", [*anonymous, PUBLIC])
        add(["SEC045"], "grantees", [*anonymous, PUBLIC])
        known = [name for name in KNOWN_CALLERS if name in database.schema.roles]
        add(_TAKE_GRANTEES, "grantees", {*anonymous, *known, PUBLIC})
    for rule, names in _allowed(database, findings, rules).items():
        add([rule], "allowlist", names)
    lines = [HEADER, "", "[database]"]
    lines += [f"schemas = {_listed(schemas or ['public'])}", "", "[lint]", "disable = ["]
    lines += [f'  "{rule}",  # {reason}' for rule, reason in disabled.items()]
    lines.append("]")
    for rule, values in sorted(options.items()):
        lines += ["", f"[lint.rules.{rule}]", *(f"{name} = {_listed(one)}" for name, one in values.items())]
    return "\n".join(lines) + "\n"


def _listed(values: Sequence[str]) -> str:
    # TOML's basic strings are those of JSON.
    return json.dumps(list(values), ensure_ascii=False)


def _identity(access: Access) -> Iterable[str]:
    commands: tuple[Command, ...] = ("INSERT", "UPDATE")
    for command in commands:
        yield from pinned_columns(access, command)


def _functions(database: Database) -> set[str]:
    """Return the functions that say who calls: known ones, and those of policies that read a setting."""
    found = {"current_setting"}
    for function in database.schema.functions.values():
        name = f"{function.schema}.{function.name}"
        words = function.vocabulary
        if name in _AUTH_FUNCTIONS or function.schema == "auth" or words.settings or words.claims:
            found.add(name)
    return found


def _allowed(
    database: Database, findings: Sequence[Finding], rules: Collection[str]
) -> Mapping[str, set[str]]:
    """Return the objects, in pgrls's names, that our rules of the same fault looked at without a finding."""
    ran = set(rules)
    bad = {(one.rule, one.object) for one in findings if one.level != "info"}
    # A rule that has no answer about an object, or none at all, hasn't looked at it.
    bad |= {(rule, one.object) for one, asked in database.unknown.items() for rule in asked}

    def is_clean(name: str, *same: str) -> bool:
        return ran.issuperset(same) and not any({(rule, name), (rule, rule)} & bad for rule in same)

    found: dict[str, set[str]] = {}
    for table in database.tables:
        if not table.row_security:
            continue
        plain = f"{table.schema}.{table.relname}"
        if not table.forced and is_clean(table.name, "force-missing"):
            found.setdefault("SEC002", set()).add(plain)
        for policy in table.policies:
            # pgrls takes names without a dot.
            if "." in policy.name:
                continue
            place = f"{plain}.{policy.name}"
            if "true" in (policy.using, policy.check) and is_clean(
                table.name, "everyone-reads", "everyone-writes"
            ):
                for rule in ("SEC005", "SEC008", "SEC028", "SEC038"):
                    found.setdefault(rule, set()).add(place)
                found.setdefault("SEC049", set()).add(plain)
            if is_clean(table.name, "missing-index"):
                found.setdefault("PERF003", set()).add(place)
    definers = {row["signature"] for row in database.fetch("definer_functions")}
    definers |= {row["signature"] for row in database.fetch("definer_triggers") if row["is_of_tables"]}
    for signature in definers & database.schema.functions.keys():
        function = database.schema.functions[signature]
        if is_clean(signature, "definer-reads-protected", "definer-search-path"):
            found.setdefault("SEC014", set()).add(f"{function.schema}.{function.name}")
    return found
