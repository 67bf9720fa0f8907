"""Whether a view or function gives its callers more rows than their policies admit, by those of other roles.

It reads a table with the rights of another role, whose row security holds, and to whom other policies apply.
Small worlds decide: the policies of both roles are evaluated on the same rows, with the same claims.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqla_rls.analyze.in_place.asking import access_asks_for_role
from sqla_rls.analyze.in_place.conditions import PARTS, Part
from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Evidence
from sqla_rls.analyze.lint.reach import Case, Reaches
from sqla_rls.analyze.worlds.acting import CALLER, reach_of
from sqla_rls.analyze.worlds.objects import Profile
from sqla_rls.analyze.worlds.pools import Actor

#: The parts of row security that a command asks for, beside those of reading.
PARTS_OF_WRITES: Final[Mapping[str, Sequence[Part]]] = {
    "INSERT": ("insert",),
    "UPDATE": ("update", "update_check"),
    "DELETE": ("delete",),
}
_VERBS: Final[Mapping[Part, str]] = {
    "select": "read",
    "update": "update",
    "delete": "delete",
    "insert": "insert",
    "update_check": "write",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherPolicies:
    """The tables of which a view or function reaches more rows than the policies of a role admit."""

    role: str
    tables: tuple[str, ...]
    #: The roles whose policies admit these rows.
    readers: tuple[str, ...]
    #: A row of the first table.
    evidence: Evidence

    @property
    def actor(self) -> Actor:
        """The caller of the evidence."""
        data = self.evidence.data
        return Actor(role=self.role, claims=data["claims"], settings=data["settings"])


@dataclass(frozen=True, slots=True)
class Undecided:
    """It can't be decided whether other policies admit more rows."""

    reason: str


def other_policies(
    database: Database, name: str, role: str, parts: Sequence[Part] | None = None
) -> OtherPolicies | Undecided | None:
    """Return what callers of *role* reach by view or function *name*, and not by their policies.

    The privileges of the callers don't count: a view or function may take their place.

    Args:
        database: the database.
        name: the name of a view, or the signature of a function.
        role: the role of the callers.
        parts: the parts of row security that decide; None is reading, and the writes of functions.
    """
    if parts is None:
        parts = _parts(database, name)
    found: list[tuple[str, str, Evidence]] = []
    undecided: Undecided | None = None
    for table, reader in sorted(reach_of(database.schema, name).relations):
        asked: Sequence[Part] = [part for part in parts if _may(database, table, reader, part)]
        if not asked or _are_same(database, table, reader, role):
            continue
        row = _row(database, table, reader, role, asked)
        if isinstance(row, Undecided):
            undecided = undecided or row
        elif row is not None:
            found.append((table, reader, row))
    if not found:
        return undecided
    return OtherPolicies(
        role=role,
        tables=tuple(dict.fromkeys(table for table, _, _ in found)),
        readers=tuple(dict.fromkeys(reader for _, reader, _ in found)),
        evidence=found[0][2],
    )


def opaque_rights(database: Database, name: str, role: str) -> list[str]:
    """Return the roles with whose rights view or function *name* runs SQL that no parser reads.

    These are those who may reach a protected table past the policies of *role*.
    """
    schema = database.schema
    functions = reach_of(schema, name).functions
    owners = {owner for one, owner in functions if owner != CALLER and schema.functions[one].is_opaque}
    protected = [one for one in schema.relations.values() if one.row_security and one.has_rows]
    return sorted(
        owner
        for owner in owners
        if any(
            database.escapes(owner, table)
            or (
                any(_may(database, table.name, owner, part) for part in PARTS)
                and not _are_same(database, table.name, owner, role)
            )
            for table in protected
        )
    )


def _parts(database: Database, name: str) -> list[Part]:
    """Return what view or function *name* may ask of row security: it reads, and its functions may write."""
    functions = [database.schema.functions[one] for one, _ in reach_of(database.schema, name).functions]
    if any(one.is_opaque for one in functions):
        return list(PARTS)
    found: list[Part] = ["select"]
    for command, parts in PARTS_OF_WRITES.items():
        if any(command in one.vocabulary.writes for one in functions):
            found += parts
    return found


def _may(database: Database, table: str, reader: str, part: Part) -> bool:
    """Return whether *reader* has the privilege, and row security of *table* holds for it."""
    relation, profile = database.schema.relations[table], database.profiles.get((table, reader))
    if reader == CALLER or profile is None or not profile.usage or not relation.has_rows:
        return False
    held = {
        "select": profile.selects,
        "insert": profile.inserts,
        "update": profile.updates,
        "update_check": profile.updates,
        "delete": profile.delete,
    }
    return bool(held[part]) and database.is_active(table, reader)


def _are_same(database: Database, table: str, reader: str, role: str) -> bool:
    """Return whether *role* has all policies of *reader* on *table*, or isn't limited by row security."""
    if reader == role or not database.is_active(table, role):
        return True
    theirs, own = (database.profiles[table, one] for one in (reader, role))
    permissive = {one.name for one in database.schema.relations[table].policies if one.permissive}
    admitting = permissive & {*theirs.policies}
    if not admitting:
        return True
    if not admitting <= {*own.policies} or not {*own.policies} - permissive <= {*theirs.policies}:
        return False
    read = database.schema.reads(table)
    return not access_asks_for_role(database.schema, {table, *read}) and all(
        _nameless(database.profiles[one, reader]) == _nameless(database.profiles[one, role])
        for one in read - {table}
    )


def _nameless(profile: Profile) -> Profile:
    return replace(profile, role="")


def _row(
    database: Database, table: str, reader: str, role: str, parts: Sequence[Part]
) -> Evidence | Undecided | None:
    """Return a row that the policies of *reader* admit, and those of *role* don't, for the same claims."""
    return database.cached(
        (OtherPolicies, table, reader, role, *parts), lambda: _compared(database, table, reader, role, parts)
    )


def _compared(
    database: Database, table: str, reader: str, role: str, parts: Sequence[Part]
) -> Evidence | Undecided | None:
    reaches = Reaches.of(database)
    theirs, own = reaches.of_this_table(table, reader), reaches.of_this_table(table, role)
    if isinstance(theirs, str):
        return Undecided(f"{table}: {theirs}")
    if isinstance(own, str):
        return Undecided(f"{table}: {own}")
    by_key = {_key(case): case for case in theirs.cases()}
    for part in parts:
        for case in own.cases():
            other = by_key.get(_key(case))
            if other is not None and theirs.is_true(part, other) and not own.is_true(part, case):
                sentence = f"the policies of {reader} let {{who}} {_VERBS[part]} {{row}}, and its own don't"
                return own.evidence(case, sentence)
    return None


def _key(case: Case) -> str:
    return repr((case.actor.claims, sorted(case.actor.settings.items()), case.world))
