"""The ways around policies: what reaches rows with other rights than those of the caller."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ARRAY, RowMapping, Text, bindparam, text

from sqla_rls.analyze.matrix.entry import COMMANDS, WayAround
from sqla_rls.analyze.why.target import query
from sqla_rls.analyze.worlds.acting import reach_of
from sqla_rls.analyze.worlds.objects import Profile, Relation
from sqla_rls.analyze.worlds.rewrite_rules import RewriteRule, read_rules, tables_past_policies
from sqla_rls.analyze.worlds.schema import Schema
from sqla_rls.analyze.worlds.scratch import ScratchDatabase
from sqla_rls.catalog.query import pinned

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
            for name in ("definer_functions", "truncate_privileges")
        }
        found["side_effects"] = database.connection.execute(query("side_effects")).mappings().all()
        rules = read_rules(database.connection, database.schema)
    finder = _Finder(database.schema, roles, profiles, names, never, superuser)
    ways = [
        *finder.views(),
        *finder.functions(found["definer_functions"]),
        *finder.side_effects(found["side_effects"]),
        *finder.rules(rules),
        *finder.truncations(found["truncate_privileges"]),
        *finder.children(),
        *finder.unlimited(),
    ]
    return [way for way in ways if way is not None]


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
            reached = self._reached(relation.name)
            if reached is None:
                continue
            kind = "view" if relation.kind == "v" else "materialized view"
            for role in self.roles:
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
                        text=f"{does} with the rights of {reached.roles}, whom the policies don't limit",
                        sql=(relation.query or "").strip(),
                    )

    def functions(self, rows: Iterable[RowMapping]) -> Iterator[WayAround]:
        for row in rows:
            if row["is_trigger"]:
                continue
            reached = self._reached(row["signature"])
            if reached is None:
                continue
            for role in row["roles"]:
                yield WayAround(
                    kind="function",
                    object=row["signature"],
                    role=role,
                    commands=("EXECUTE",),
                    reaches=reached.tables,
                    text=f"runs with the rights of {reached.roles}, whom the policies don't limit",
                    sql=row["definition"].strip(),
                )

    def side_effects(self, rows: Iterable[RowMapping]) -> Iterator[WayAround]:
        for row in rows:
            relation = self._by_oid.get(row["oid"])
            if relation is None or relation.name not in self.names:
                continue
            if row["kind"] == "trigger":
                found = self._reached(row["function"])
                if found is None:
                    continue
                reached = found.tables
                text = (
                    f"calls {row['function']} with the rights of {found.roles}, whom the policies don't limit"
                )
            else:
                target = self._by_oid.get(row["target"])
                if target is None or target.name not in self._protected:
                    continue
                reached = (target.name,)
                text = "; ".join(_actions(row, target.name))
            for role in self.roles:
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
            reached = {name: owner for name, owner in used if self._is_past(owner, name)}
            for role in self.roles if reached else ():
                if self._holds(relation.name, role, rule.command):
                    yield WayAround(
                        kind="rule",
                        object=f"{rule.name} on {relation.name}",
                        role=role,
                        commands=(rule.command,),
                        reaches=tuple(sorted(reached)),
                        text=(
                            f"runs with the rights of {' and '.join(sorted({*reached.values()}))}, whom the "
                            "policies don't limit"
                        ),
                        sql=rule.definition,
                    )

    def truncations(self, rows: Iterable[RowMapping]) -> Iterator[WayAround]:
        for row in rows:
            relation = self._by_oid.get(row["oid"])
            if relation is not None and relation.name in self.names:
                yield WayAround(
                    kind="truncate",
                    object=relation.name,
                    role=row["role"],
                    commands=("TRUNCATE",),
                    reaches=(relation.name,),
                    text="removes all rows: no policy limits TRUNCATE",
                )

    def children(self) -> Iterator[WayAround]:
        parents: dict[str, list[str]] = {}
        for parent in self._listed(("r", "p")):
            if parent.name in self._protected:
                for name in self._descendants(parent):
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

    def _descendants(self, parent: Relation) -> set[str]:
        found, waiting = set[str](), list(parent.children)
        while waiting:
            one = waiting.pop()
            if one not in found:
                found.add(one)
                waiting += self.schema.relations[one].children
        return found

    def unlimited(self) -> Iterator[WayAround]:
        """Yield the roles that no policy limits."""
        for role in self.schema.roles.values():
            if role.name == self.superuser:
                continue
            reached = sorted(
                name for name in self._protected & set(self.names) if self._is_past(role.name, name)
            )
            if not reached:
                continue
            if role.is_superuser:
                text = "is a superuser"
            elif role.bypasses_row_security:
                text = "has BYPASSRLS"
            else:
                text = "owns tables, or is a member of their owner, and their row security isn't forced"
            yield WayAround(
                kind="role", object=role.name, role=role.name, commands=(), reaches=tuple(reached), text=text
            )

    def _listed(self, kinds: Collection[str]) -> Iterator[Relation]:
        for relation in self.schema.relations.values():
            if relation.kind in kinds and relation.name in self.names:
                yield relation

    def _holds(self, name: str, role: str, command: str) -> bool:
        """Return whether *role* holds the privilege; a rule runs also if no policy admits a row."""
        profile = self.profiles[name, role]
        held = (bool(profile.selects), bool(profile.inserts), bool(profile.updates), profile.delete)
        found: dict[str, bool] = dict(zip(("SELECT", "INSERT", "UPDATE", "DELETE"), held, strict=True))
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

    def _reached(self, name: str) -> _Reached | None:
        """Return the protected tables that a view or function reaches past their policies; None if none."""
        reach = reach_of(self.schema, name)
        found = {(table, role) for table, role in reach.relations if self._is_past(role, table)}
        opaque = {
            role
            for function, role in reach.functions
            if self.schema.functions[function].is_opaque
            and any(self._is_past(role, table) for table in self._protected)
        }
        roles = opaque | {role for _, role in found}
        if not roles:
            return None
        # An opaque function may read any table.
        tables = () if opaque else tuple(sorted({table for table, _ in found}))
        return _Reached(tables, " and ".join(sorted(roles)))


@dataclass(frozen=True, slots=True)
class _Reached:
    """Protected tables, none if any may be reached, and the roles whom their policies don't limit."""

    tables: tuple[str, ...]
    roles: str


def _actions(row: RowMapping, target: str) -> Iterator[str]:
    actions = {"DELETE": row["on_delete"], "UPDATE": row["on_update"]}
    taken = {command: action for command, action in actions.items() if action in _ACTIONS}
    for command, action in taken.items():
        does = f"{command.lower()}s rows of {target}" if action == "c" else f"{_ACTIONS[action]} in {target}"
        yield f"{f'{command} ' if len(taken) > 1 else ''}{does}, past its policies"
