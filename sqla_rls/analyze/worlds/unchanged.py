"""The rights of a role that both catalogs show to be the same: no world is tried for them.

An answer holds if all that decides about the command has the same definition on both sides: privileges of the
role, policies that are for it, and all objects that these reach, each with the role whose rights count there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, TypeAlias

from sqla_rls.analyze.vocabulary import has_words, read_expression
from sqla_rls.analyze.why.explanation import Command
from sqla_rls.analyze.worlds.beyond import may_ask_for_catalog
from sqla_rls.analyze.worlds.definitions import names_roles
from sqla_rls.analyze.worlds.objects import Function, PolicyText, Profile, Relation, RoleAttributes
from sqla_rls.analyze.worlds.schema import Schema

Profiles: TypeAlias = Mapping[tuple[str, str], Profile]

#: The commands whose policies decide about each command: WHERE, RETURNING and ON CONFLICT need others, too.
_DECIDED_BY: Final[Mapping[Command, frozenset[str]]] = {
    "SELECT": frozenset({"SELECT", "ALL"}),
    "INSERT": frozenset({"INSERT", "SELECT", "UPDATE", "ALL"}),
    "UPDATE": frozenset({"UPDATE", "SELECT", "ALL"}),
    "DELETE": frozenset({"DELETE", "SELECT", "ALL"}),
}
_EACH: Final = frozenset().union(*_DECIDED_BY.values())
#: The parts of a definition that hold privileges: the profile of a role has what they give it.
_PRIVILEGES: Final = ("privileges", "schema_privileges")
#: Words of a function that may become another role, two of them together.
_SETS: Final = ("SET", "RESET")
_ROLE_WORDS: Final = ("ROLE", '"ROLE"', "AUTHORIZATION", "SESSION_AUTHORIZATION", '"SESSION_AUTHORIZATION"')


@dataclass(frozen=True, slots=True)
class _Node:
    """A relation or function, with the role whose rights count there."""

    name: str
    user: str
    #: The commands whose policies count, for a relation.
    commands: frozenset[str] = _EACH
    #: Whether a foreign key alone looks at the relation, as its owner.
    is_referred: bool = False


@dataclass(kw_only=True)
class Unchanged:
    """The commands of roles on relations that the catalogs of both sides decide alike."""

    schemas: tuple[Schema, Schema]
    #: Those of all roles on all relations in question, and on those that they read.
    profiles: tuple[Profiles, Profiles]
    #: Returns of the functions of a side what a role may do with them.
    may_call: Callable[[int, str], Mapping[str, tuple[bool, bool]]]
    _same: dict[_Node, bool] = field(default_factory=dict[_Node, bool])
    _beside: dict[_Node, set[_Node]] = field(default_factory=dict[_Node, set[_Node]])
    _roles: dict[str, bool] = field(default_factory=dict[str, bool])
    _comparable: dict[str, bool] = field(default_factory=dict[str, bool])
    _own: dict[tuple[int, str], Any] = field(default_factory=dict[tuple[int, str], Any])
    _called: dict[tuple[int, str], Mapping[str, tuple[bool, bool]]] = field(
        default_factory=dict[tuple[int, str], Mapping[str, tuple[bool, bool]]]
    )

    def of(self, name: str, role: str, commands: Iterable[Command]) -> frozenset[Command]:
        """Return those of *commands* of *role* on relation *name* that both catalogs decide alike."""
        if not self._is_comparable(name):
            return frozenset()
        return frozenset(
            command
            for command in commands
            if all(map(self._is_same, self._reached(_Node(name, role, _DECIDED_BY[command]))))
        )

    @cached_property
    def _surroundings_differ(self) -> bool:
        return self.schemas[0].surroundings != self.schemas[1].surroundings

    @cached_property
    def _roles_differ(self) -> bool:
        return self.schemas[0].definition_of_roles != self.schemas[1].definition_of_roles

    def _is_comparable(self, name: str) -> bool:
        """Return whether definitions have all that decides about access to relation *name*."""
        if name not in self._comparable:
            self._comparable[name] = not self._surroundings_differ and all(
                name in schema.relations
                and not schema.is_opaque(name)
                and not may_ask_for_catalog(schema, name)
                and not (self._roles_differ and names_roles(schema, name))
                and not any("set_config" in schema.relations[one].definition for one in schema.reads(name))
                and not any(_may_become_another(schema.functions[one]) for one in schema.calls(name))
                for schema in self.schemas
            )
        return self._comparable[name]

    def _reached(self, start: _Node) -> Iterator[_Node]:
        """Yield *start*, and the nodes that it reaches on either side."""
        seen, waiting = {start}, [start]
        while waiting:
            one = waiting.pop()
            yield one
            # What differs decides, and needs no more.
            if not self._is_same(one):
                return
            if one not in self._beside:
                self._beside[one] = {node for side in (0, 1) for node in self._next(side, one)}
            waiting += self._beside[one] - seen
            seen |= self._beside[one]

    def _next(self, side: int, node: _Node) -> Iterator[_Node]:
        schema = self.schemas[side]
        function, relation = schema.functions.get(node.name), schema.relations.get(node.name)
        if function is not None:
            user = function.owner if function.is_definer else node.user
            for edge in schema.edges.get(node.name, ()):
                yield from (_Node(one, user) for one in (edge.reads, edge.calls) if one is not None)
        if relation is None or node.is_referred:
            return
        yield from (_Node(child, node.user) for child in relation.children)
        for key in (*relation.foreign_keys, *relation.new_foreign_keys):
            yield _Node(key.target, schema.relations[key.target].owner, is_referred=True)
        policies = {one.name: one for one in self._policies(side, node, relation)}
        if any(_may_read_itself(one, relation) for one in policies.values()):
            yield _Node(node.name, node.user)
        for edge in schema.edges.get(node.name, ()):
            targets = [one for one in (edge.reads, edge.calls) if one is not None]
            if edge.part == "policy":
                if edge.policy is None or edge.policy in policies:
                    yield from (_Node(one, node.user) for one in targets if one != node.name)
                continue
            # A view, or a rule, reads as its owner or as the caller, and each function asks as either.
            users = {node.user, relation.owner} if edge.part == "query" else {node.user}
            yield from (_Node(one, user) for one in targets for user in users if one != node.name)

    def _is_same(self, node: _Node) -> bool:
        if node not in self._same:
            self._same[node] = self._compared(node)
        return self._same[node]

    def _compared(self, node: _Node) -> bool:
        if not self._is_same_role(node.user):
            return False
        functions = [schema.functions.get(node.name) for schema in self.schemas]
        if functions[0] is not None and functions[1] is not None:
            before, after = functions[0], functions[1]
            calls = [self._calls(side, node.user).get(node.name) for side in (0, 1)]
            return (
                before.without_privileges == after.without_privileges
                # Nothing is known of the roles of Postgres.
                and calls[0] is not None
                and calls[0] == calls[1]
                and self._is_same_role(before.owner)
            )
        relations = [schema.relations.get(node.name) for schema in self.schemas]
        if relations[0] is None or relations[1] is None:
            return False
        sides = [(side, one) for side, one in enumerate(relations) if one is not None]
        owns = [self._own_parts(side, one) for side, one in sides]
        if owns[0] != owns[1] or not self._is_same_role(relations[0].owner):
            return False
        if self._is_superuser(node.user):
            return True
        profiles = [self.profiles[side].get((node.name, node.user)) for side, _ in sides]
        if profiles[0] is None or profiles[1] is None:
            return False
        if replace(profiles[0], policies=()) != replace(profiles[1], policies=()):
            return False
        texts = [
            {replace(policy, roles=()) for policy in self._policies(side, node, relation)}
            for side, relation in sides
        ]
        return texts[0] == texts[1]

    def _calls(self, side: int, user: str) -> Mapping[str, tuple[bool, bool]]:
        if (side, user) not in self._called:
            self._called[side, user] = self.may_call(side, user)
        return self._called[side, user]

    def _own_parts(self, side: int, relation: Relation) -> Any:
        """Return the definition without policies and privileges."""
        if (side, relation.name) not in self._own:
            parts = json.loads(relation.definition)
            for name in ("policies", *_PRIVILEGES):
                parts.pop(name)
            for column in parts["columns"]:
                column.pop("privileges")
            self._own[side, relation.name] = parts
        return self._own[side, relation.name]

    def _policies(self, side: int, node: _Node, relation: Relation) -> Collection[PolicyText]:
        """Return the policies of *relation* that the user meets."""
        if node.is_referred or not relation.row_security or self._is_superuser(node.user):
            return ()
        profile = self.profiles[side].get((node.name, node.user))
        if profile is None:
            return relation.policies
        if profile.bypasses or (profile.owns and not relation.forced):
            return ()
        return [
            one for one in relation.policies if one.name in profile.policies and one.command in node.commands
        ]

    def _is_superuser(self, name: str) -> bool:
        """Return whether the role is a superuser on both sides."""
        found = [schema.roles.get(name) for schema in self.schemas]
        return all(one is not None and one.is_superuser for one in found)

    def _is_same_role(self, name: str) -> bool:
        """Return whether the role, and all roles of which it is a member, are the same on both sides."""
        if name not in self._roles:
            # A circle of memberships isn't possible.
            before, after = (schema.roles.get(name) for schema in self.schemas)
            if before is None or after is None:
                # The memberships of Postgres's own roles are surroundings.
                self._roles[name] = name.startswith("pg_")
            else:
                self._roles[name] = _rights(before) == _rights(after) and all(
                    map(self._is_same_role, {*_rights(before).member_of, *before.may_set})
                )
        return self._roles[name]


def _rights(role: RoleAttributes) -> RoleAttributes:
    """Return what gives *role* rights: it has none of a group that it doesn't inherit, but by SET ROLE."""
    inherited = {name: True for name, is_inherited in role.member_of.items() if is_inherited}
    return replace(role, member_of=inherited, settings="", may_grant=())


def _may_read_itself(policy: PolicyText, relation: Relation) -> bool:
    """Return whether the policy may have a subquery on its own table."""
    own = {(relation.schema, relation.relname), (relation.relname,)}
    read = [read_expression(sql) for sql in (policy.using, policy.check) if sql is not None]
    return any(not one.is_complete or own & set(one.relations) for one in read)


def _may_become_another(function: Function) -> bool:
    """Return whether the function may set a role: its rights are then those of no user in question."""
    body = function.body
    options = json.loads(json.loads(function.definition)[-1])[5] or ()
    return (
        any(one[-1] == "set_config" for one in function.vocabulary.functions)
        # A name with escapes may be any.
        or (has_words(body, _SETS) and (has_words(body, _ROLE_WORDS) or "u&" in body.lower()))
        or any(one.lower().startswith(("role=", "session_authorization=")) for one in options)
    )
