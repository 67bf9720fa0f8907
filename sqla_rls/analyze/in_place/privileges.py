"""The privileges of roles before and after a migration, by the privileges that the catalog lists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqla_rls.analyze.in_place.migration import Migration
from sqla_rls.analyze.worlds.objects import Profile, Relation
from sqla_rls.snapshot import PUBLIC, Membership, ObjectKey, Privilege, TableKey


class Privileges:
    """What roles may do before and after, by the privileges that the catalog lists."""

    def __init__(self, migration: Migration) -> None:
        live, changes = migration.live, migration.changes
        self.default_schema = live.default_schema
        self.owners = live.owners
        self.privileges = tuple(
            _by_object(privileges)
            for privileges in (
                live.privileges,
                (live.privileges - changes.privileges.revokes) | changes.privileges.grants,
            )
        )
        granted = {(one.role, one.member) for one in changes.roles.granted}
        kept = {one for one in live.memberships if (one.role, one.member) not in granted}
        memberships = (kept - changes.roles.revoked) | changes.roles.granted
        inherits = {role.name: role.inherit is not False for role in live.roles.values()}
        later = inherits | {role.name: role.inherit is not False for role in changes.roles.created}
        for change in changes.roles.altered:
            if change.after.inherit is not None:
                later[change.after.name] = change.after.inherit
        self.inherits = (inherits, later)
        memberships |= {
            Membership(str(group), role.name)
            for role in changes.roles.created
            for group in role.member_of or ()
        }
        self.memberships = (frozenset(live.memberships), frozenset(memberships))
        self.bypasses = {role.name: bool(role.bypassrls) for role in live.roles.values()}
        self.bypasses_later = dict(self.bypasses)
        for role in (*changes.roles.created, *(change.after for change in changes.roles.altered)):
            if role.bypassrls is not None:
                self.bypasses_later[role.name] = role.bypassrls
        self._known: dict[tuple[str, int], set[str]] = {}

    @property
    def regrouped(self) -> frozenset[str]:
        """The roles of other groups afterwards, whether or not they inherit the rights of these."""
        before, after = self.memberships
        waiting = {one.member for one in before ^ after}
        waiting |= {name for name, one in self.inherits[0].items() if self.inherits[1][name] != one}
        found: set[str] = set()
        while waiting:
            found |= waiting
            waiting = {one.member for one in before | after if one.role in waiting} - found
        return frozenset(found)

    def profiles(self, relation: Relation, role: str) -> tuple[Profile, Profile]:
        """Return the profile before and after, by the model, both with the policies of *relation*."""
        old = self._profile(relation, role, 0, self.bypasses)
        new = self._profile(relation, role, 1, self.bypasses_later)
        return old, new

    def _profile(self, relation: Relation, role: str, side: int, bypasses: Mapping[str, bool]) -> Profile:
        groups = self._groups(role, side)
        owns = relation.owner in groups
        key = TableKey.of(relation.schema, relation.relname, self.default_schema)
        columns: dict[str, set[str]] = {"SELECT": set(), "INSERT": set(), "UPDATE": set()}
        deletes = owns
        for one in self.privileges[side].get(ObjectKey("TABLE", key.schema, key.name), ()):
            if one.grantee not in groups:
                continue
            if one.privilege == "DELETE":
                deletes = True
            elif one.privilege in columns:
                columns[one.privilege] |= set(relation.columns) if one.column is None else {one.column}
        ordered = {
            name: tuple(column for column in relation.columns if owns or column in found)
            for name, found in columns.items()
        }
        return Profile(
            role=role,
            usage=self._may_use(relation.schema, groups, side),
            delete=deletes,
            selects=ordered["SELECT"],
            inserts=ordered["INSERT"],
            updates=ordered["UPDATE"],
            bypasses=bypasses.get(role, False),
            owns=owns,
            policies=tuple(
                sorted(
                    policy.name
                    for policy in relation.policies
                    if any(each in groups or each.lower() == PUBLIC for each in policy.roles)
                )
            ),
        )

    def _may_use(self, schema: str, groups: set[str], side: int) -> bool:
        if any(one[0] == "SCHEMA" and one[2] == schema and one[3] in groups for one in self.owners):
            return True
        return any(
            one.privilege == "USAGE" and one.grantee in groups
            for one in self.privileges[side].get(ObjectKey("SCHEMA", None, schema), ())
        )

    def _groups(self, role: str, side: int) -> set[str]:
        """Return the role, the roles whose privileges it has, and PUBLIC."""
        if (role, side) in self._known:
            return self._known[role, side]
        found, waiting = {role, PUBLIC}, [role]
        self._known[role, side] = found
        while waiting:
            member = waiting.pop()
            for one in self.memberships[side]:
                inherits = self.inherits[side].get(member, True) if one.inherit is None else one.inherit
                if one.member == member and inherits and one.role not in found:
                    found.add(one.role)
                    waiting.append(one.role)
        return found


def _by_object(privileges: Iterable[Privilege]) -> Mapping[ObjectKey, list[Privilege]]:
    found: dict[ObjectKey, list[Privilege]] = {}
    for one in privileges:
        found.setdefault(one.object, []).append(one)
    return found
