"""The ways around policies: what reaches rows with other rights than those of the caller."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ARRAY, RowMapping, Text, bindparam, text

from sqla_rls.analyze.in_place.asking import access_asks_for_role
from sqla_rls.analyze.matrix.entry import WayAround
from sqla_rls.analyze.why.explanation import COMMANDS
from sqla_rls.analyze.why.target import query
from sqla_rls.analyze.worlds.acting import CALLER, reach_of
from sqla_rls.analyze.worlds.objects import Profile, Relation, RoleAttributes
from sqla_rls.analyze.worlds.rewrite_rules import RewriteRule, read_rules, tables_past_policies
from sqla_rls.analyze.worlds.schema import Schema
from sqla_rls.analyze.worlds.scratch import ScratchDatabase
from sqla_rls.catalog.query import pinned

#: The privileges that no policy limits: the kind of the way, and its text.
_UNLIMITED: Final = {
    "TRUNCATE": ("truncate", "removes all rows: no policy limits TRUNCATE"),
    "TRIGGER": ("trigger", "creates triggers, which see the rows that other roles change"),
}
_ACTIONS: Final = {"c": "cascades", "n": "sets columns to NULL", "d": "sets columns to their defaults"}


def ways_around(
    database: ScratchDatabase,
    roles: Sequence[str],
    profiles: Mapping[tuple[str, str], Profile],
    names: Collection[str],
    never: Collection[tuple[str, str, str]],
    superuser: str,
) -> list[WayAround]:
    """Return the ways of *roles* to rows of the tables with row security.

    Args:
        database: a scratch database.
        roles: the roles of the matrix.
        profiles: the privileges of all roles on all relations.
        names: the objects of the matrix.
        never: object, role and command of the entries that are never permitted.
        superuser: the superuser of the scratch server, who is left out.
    """
    with pinned(database.connection):
        database.connection.execute(text("SELECT pg_catalog.set_config('search_path', 'pg_catalog', true)"))
        found = {
            name: database.connection.execute(_with_roles(name), {"roles": list(roles)}).mappings().all()
            for name in ("definer_functions", "unlimited_privileges")
        }
        found["side_effects"] = database.connection.execute(query("side_effects")).mappings().all()
        rules = read_rules(database.connection, database.schema)
    finder = _Finder(database.schema, roles, profiles, names, never, superuser)
    ways = [
        *finder.views(),
        *finder.functions(found["definer_functions"]),
        *finder.side_effects(found["side_effects"]),
        *finder.rules(rules),
        *finder.privileges(found["unlimited_privileges"]),
        *finder.children(),
        *finder.unlimited(),
        *finder.roles_to_become(),
    ]
    return [way for way in ways if way is not None]


def rights_beside_relations(database: ScratchDatabase, roles: Sequence[str]) -> Mapping[str, frozenset[str]]:
    """Return the rights of *roles* by which they have ways, other than SELECT, INSERT, UPDATE and DELETE."""
    schema, found = database.schema, dict[str, set[str]]()
    by_oid, tables = {one.oid: one.name for one in schema.relations.values()}, _with_rows_of(schema)
    functions, privileges = (
        database.connection.execute(_with_roles(name), {"roles": list(roles)}).mappings().all()
        for name in ("definer_functions", "unlimited_privileges")
    )
    for row in functions:
        if _may_reach(schema, row["signature"]):
            for role in {*row["roles"]} - {*row["owners"]}:
                found.setdefault(role, set()).add(row["signature"])
    for row in privileges:
        if by_oid.get(row["oid"]) in tables and not row["owns"]:
            found.setdefault(row["role"], set()).add(f"{row['privilege']} {row['oid']}")
    return {role: frozenset(rights) for role, rights in found.items()}


def _with_rows_of(schema: Schema) -> dict[str, list[str]]:
    """Return each protected table, partition and child with the protected tables whose rows it has."""
    found: dict[str, list[str]] = {}
    for name, relation in schema.relations.items():
        if relation.row_security and relation.has_rows:
            for one in (name, *_descendants(schema, relation)):
                found.setdefault(one, []).append(name)
    return found


def _descendants(schema: Schema, parent: Relation) -> set[str]:
    found, waiting = set[str](), list(parent.children)
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += schema.relations[one].children
    return found


def _may_reach(schema: Schema, signature: str) -> bool:
    """Return whether a function may reach tables with row security."""
    reach = reach_of(schema, signature)
    return any(schema.relations[name].row_security for name, _ in reach.relations) or any(
        schema.functions[name].is_opaque for name, _ in reach.functions
    )


def _with_roles(name: str) -> Any:
    return query(name).bindparams(bindparam("roles", type_=ARRAY(Text())))


@dataclass
class _Finder:
    schema: Schema
    roles: Sequence[str]
    profiles: Mapping[tuple[str, str], Profile]
    names: Collection[str]
    never: Collection[tuple[str, str, str]]
    superuser: str

    def __post_init__(self) -> None:
        self._by_oid = {one.oid: one for one in self.schema.relations.values()}
        self._protected = {
            one.name for one in self.schema.relations.values() if one.row_security and one.has_rows
        }

    def views(self) -> Iterator[WayAround]:
        for relation in self._listed(("v", "m")):
            if relation.kind == "v" and relation.is_invoker:
                continue
            kind = "view" if relation.kind == "v" else "materialized view"
            for role in self.roles:
                if (reached := self._reached(relation.name, role)) is None:
                    continue
                commands = self._commands(relation.name, role)
                if relation.kind == "m":
                    commands = [one for one in commands if one == "SELECT"]
                does = "reads" if commands == ["SELECT"] else "reads and writes"
                does = "is a copy, made" if relation.kind == "m" else does
                if commands:
                    yield WayAround(
                        kind=kind,
                        object=relation.name,
                        role=role,
                        commands=tuple(commands),
                        reaches=reached.tables,
                        text=f"{does} with the rights of {reached.roles}",
                        sql=(relation.query or "").strip(),
                    )

    def functions(self, rows: Iterable[RowMapping]) -> Iterator[WayAround]:
        for row in rows:
            if row["is_trigger"]:
                continue
            for role in row["roles"]:
                if (reached := self._reached(row["signature"], role)) is None:
                    continue
                yield WayAround(
                    kind="function",
                    object=row["signature"],
                    role=role,
                    commands=("EXECUTE",),
                    reaches=reached.tables,
                    text=f"runs with the rights of {reached.roles}",
                    sql=row["definition"].strip(),
                )

    def side_effects(self, rows: Iterable[RowMapping]) -> Iterator[WayAround]:
        for row in rows:
            relation = self._by_oid.get(row["oid"])
            if relation is None or relation.name not in self.names:
                continue
            for role in self.roles:
                if row["kind"] == "trigger":
                    if (found := self._reached(row["function"], role)) is None:
                        continue
                    reached = found.tables
                    text = f"calls {row['function']} with the rights of {found.roles}"
                else:
                    target = self._by_oid.get(row["target"])
                    if target is None or target.name not in self._protected:
                        continue
                    reached = (target.name,)
                    text = "; ".join(_actions(row, target.name))
                held = self._commands(relation.name, role)
                commands = tuple(one for one in row["commands"] if one in held)
                if commands:
                    yield WayAround(
                        kind=row["kind"],
                        object=f"{row['name']} on {relation.name}",
                        role=role,
                        commands=commands,
                        reaches=reached,
                        text=text,
                        sql=row["definition"],
                    )

    def rules(self, rules: Iterable[RewriteRule]) -> Iterator[WayAround]:
        for rule in rules:
            relation = rule.relation
            if relation.name not in self.names:
                continue
            used = list(tables_past_policies(self.schema, rule))
            for role in self.roles:
                reached = self._past(used, role)
                if reached is not None and self._holds(relation.name, role, rule.command):
                    yield WayAround(
                        kind="rule",
                        object=f"{rule.name} on {relation.name}",
                        role=role,
                        commands=(rule.command,),
                        reaches=reached.tables,
                        text=f"runs with the rights of {reached.roles}",
                        sql=rule.definition,
                    )

    def privileges(self, rows: Iterable[RowMapping]) -> Iterator[WayAround]:
        tables = _with_rows_of(self.schema)
        for row in rows:
            relation = self._by_oid.get(row["oid"])
            if relation is not None and relation.name in tables and relation.name in self.names:
                kind, text = _UNLIMITED[row["privilege"]]
                yield WayAround(
                    kind=kind,
                    object=relation.name,
                    role=row["role"],
                    commands=(row["privilege"],),
                    reaches=tuple(sorted(tables[relation.name])),
                    text=text,
                )

    def children(self) -> Iterator[WayAround]:
        parents: dict[str, list[str]] = {}
        for parent in self._listed(("r", "p")):
            if parent.name in self._protected:
                for name in _descendants(self.schema, parent):
                    parents.setdefault(name, []).append(parent.name)
        for name, found in parents.items():
            for role in self.roles:
                commands = self._commands(name, role)
                if commands and not self.schema.relations[name].row_security:
                    yield WayAround(
                        kind="child table",
                        object=name,
                        role=role,
                        commands=tuple(commands),
                        reaches=tuple(sorted(found)),
                        text=(
                            f"the policies of {' and '.join(sorted(found))} don't hold for statements on the "
                            "child"
                        ),
                    )

    def unlimited(self) -> Iterator[WayAround]:
        """Yield the roles that no policy limits."""
        for role in self.schema.roles.values():
            reached = self._unlimited(role.name)
            if role.name != self.superuser and reached:
                yield WayAround(
                    kind="role",
                    object=role.name,
                    role=role.name,
                    commands=(),
                    reaches=tuple(sorted(reached)),
                    text=_without_limits(role),
                )

    def roles_to_become(self) -> Iterator[WayAround]:
        """Yield the roles that no policy limits, for each role that can SET ROLE to them."""
        for role in self.schema.roles.values():
            if role.is_superuser:
                continue
            own = self._unlimited(role.name)
            for other in roles_after_set_role(self.schema, role):
                if reached := self._unlimited(other.name) - own:
                    yield WayAround(
                        kind="role",
                        object=other.name,
                        role=role.name,
                        commands=("SET ROLE",),
                        reaches=tuple(sorted(reached)),
                        text=f"becomes a role that {_without_limits(other)}",
                    )

    def _unlimited(self, role: str) -> set[str]:
        """Return the tables of the matrix whose policies don't limit *role*."""
        return {name for name in self._protected & set(self.names) if self._is_past(role, name)}

    def _listed(self, kinds: Collection[str]) -> Iterator[Relation]:
        for relation in self.schema.relations.values():
            if relation.kind in kinds and relation.name in self.names:
                yield relation

    def _holds(self, name: str, role: str, command: str) -> bool:
        """Return whether *role* holds the privilege; a rule runs also if no policy admits a row."""
        profile = self.profiles[name, role]
        held = (bool(profile.selects), bool(profile.inserts), bool(profile.updates), profile.delete)
        found: dict[str, bool] = dict(zip(COMMANDS, held, strict=True))
        return profile.usage and found[command]

    def _commands(self, name: str, role: str) -> list[str]:
        return [
            command
            for command in COMMANDS
            if self._holds(name, role, command) and (name, role, command) not in self.never
        ]

    def _is_past(self, role: str, name: str) -> bool:
        """Return whether *name* is a table with policies that don't limit *role*."""
        if name not in self._protected:
            return False
        if role == self.superuser:
            return True
        profile = self.profiles.get((name, role))
        is_forced = self.schema.relations[name].forced
        return profile is not None and (profile.bypasses or (profile.owns and not is_forced))

    def _is_other(self, owner: str, role: str, name: str) -> bool:
        """Return whether the policies of *name* may admit rows to *owner* that they don't admit to *role*."""
        if name not in self._protected or owner == CALLER or self._is_past(role, name):
            return False
        theirs, own = self.profiles.get((name, owner)), self.profiles.get((name, role))
        if theirs is None or not theirs.has_privileges:
            return False
        permissive, restrictive = (
            {one.name for one in self.schema.relations[name].policies if one.permissive is side}
            for side in (True, False)
        )
        of_owner, of_role = {*theirs.policies}, {*(() if own is None else own.policies)}
        if not of_owner & permissive:
            return False
        if not of_owner & permissive <= of_role or not of_role & restrictive <= of_owner:
            return True
        return owner != role and access_asks_for_role(self.schema, [name])

    def _reached(self, name: str, role: str) -> _Reached | None:
        """Return the tables that a view or function reaches for *role*, past their policies or by others."""
        reach = reach_of(self.schema, name)
        opaque = {
            owner
            for function, owner in reach.functions
            if self.schema.functions[function].is_opaque
            and self._past(((table, owner) for table in self._protected), role)
        }
        return self._past(reach.relations, role, opaque)

    def _past(
        self, used: Iterable[tuple[str, str]], role: str, opaque: Collection[str] = ()
    ) -> _Reached | None:
        """Return the tables of *used* whose policies don't limit the rights beside them as those of *role*.

        Args:
            used: tables and views, each with the role whose rights count there.
            role: the caller.
            opaque: the roles with whose rights a function may read any table.
        """
        past, other, tables = set[str](), set[str](), set[str]()
        for name, owner in [*used, *((name, owner) for owner in opaque for name in self._protected)]:
            if self._is_past(owner, name):
                past.add(owner)
                tables.add(name)
            elif self._is_other(owner, role, name):
                other.add(owner)
                tables.add(name)
        rights = [
            f"{' and '.join(sorted(found))}, {limit}"
            for found, limit in (
                (past, "whom the policies don't limit"),
                (other - past, "to whom other policies apply"),
            )
            if found
        ]
        return _Reached(() if opaque else tuple(sorted(tables)), "; and of ".join(rights)) if rights else None


@dataclass(frozen=True, slots=True)
class _Reached:
    """Tables, none if any may be reached, and the roles with whose rights, in words."""

    tables: tuple[str, ...]
    roles: str


def roles_after_set_role(schema: Schema, role: RoleAttributes) -> list[RoleAttributes]:
    """Return the roles that *role* can become by SET ROLE, also those that it can grant to itself."""
    found, waiting = dict[str, RoleAttributes](), [role]
    while waiting:
        one = waiting.pop()
        for name in {*one.may_set, *one.may_grant}:
            if name in schema.roles and name not in found and name != role.name:
                found[name] = schema.roles[name]
                waiting.append(schema.roles[name])
    return [found[name] for name in sorted(found)]


def _without_limits(role: RoleAttributes) -> str:
    if role.is_superuser:
        return "is a superuser"
    if role.bypasses_row_security:
        return "has BYPASSRLS"
    return "owns tables, or is a member of their owner, and their row security isn't forced"


def _actions(row: RowMapping, target: str) -> Iterator[str]:
    actions = {"DELETE": row["on_delete"], "UPDATE": row["on_update"]}
    taken = {command: action for command, action in actions.items() if action in _ACTIONS}
    for command, action in taken.items():
        does = f"{command.lower()}s rows of {target}" if action == "c" else f"{_ACTIONS[action]} in {target}"
        yield f"{f'{command} ' if len(taken) > 1 else ''}{does}, past its policies"
