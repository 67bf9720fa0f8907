"""The matrix of a scratch database."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Final, TypeAlias

from sqlalchemy import ARRAY, Connection, Text, bindparam, text

from sqla_rls.analyze.in_place.splice import asks_for_role
from sqla_rls.analyze.matrix.decide import Answer, Worlds, all_of, constant
from sqla_rls.analyze.matrix.entry import COMMANDS, Entry, Matrix
from sqla_rls.analyze.matrix.ways import is_invoker, ways_around
from sqla_rls.analyze.matrix.words import ConditionWords
from sqla_rls.analyze.sides import Side
from sqla_rls.analyze.verdict import Budget
from sqla_rls.analyze.why.explanation import Command
from sqla_rls.analyze.why.target import query
from sqla_rls.analyze.worlds.schema import PolicyText, Profile, Relation, Schema, read_profiles
from sqla_rls.analyze.worlds.scratch import ScratchDatabase
from sqla_rls.catalog.query import pinned
from sqla_rls.exc import AnalysisError

Progress: TypeAlias = Callable[[int, int, str], None]

#: Stands for every role that has no privileges of its own.
PUBLIC: Final = "PUBLIC"
#: Most conditions are settled by the first few worlds.
BUDGET: Final = Budget()
_KINDS: Final = {
    "r": "table",
    "p": "partitioned table",
    "v": "view",
    "m": "materialized view",
    "f": "foreign table",
}


def read_matrix(
    side: Side,
    *,
    roles: Sequence[str] = (),
    schemas: Sequence[str] = (),
    budget: Budget = BUDGET,
    progress: Progress | None = None,
) -> Matrix:
    """Build a side in a scratch server, and return its matrix.

    Args:
        side: the side.
        roles: the roles; without them, those with privileges on objects of others, and those of policies.
        schemas: the schemas of the objects; without them, all.
        budget: how much is tried where Postgres doesn't fold a condition to a constant.
        progress: is called with the number of objects done, their number, and the next object.

    Raises:
        AnalysisError: the side can't be read or built, or it has no such role.
    """
    with side.build() as built:
        return matrix_of(
            built.connection,
            name=side.name,
            roles=roles,
            schemas=schemas,
            budget=budget,
            left_out=built.left_out,
            incomplete=built.incomplete,
            progress=progress,
        )


def matrix_of(
    connection: Connection,
    *,
    name: str,
    roles: Sequence[str] = (),
    schemas: Sequence[str] = (),
    budget: Budget = BUDGET,
    left_out: Iterable[str] = (),
    incomplete: Iterable[str] = (),
    progress: Progress | None = None,
) -> Matrix:
    """Return the matrix of a scratch database.

    Args:
        connection: a superuser's connection to a database whose data and roles have no use.
        name: the name of the side.
        roles: as of ``read_matrix()``.
        schemas: as of ``read_matrix()``.
        budget: as of ``read_matrix()``.
        left_out: sentences about what the scratch database doesn't have.
        incomplete: the tables and views that it has only in part.
        progress: as of ``read_matrix()``.

    Emits:
        CREATE ROLE "PUBLIC", and INSERT, SELECT, UPDATE and DELETE that are undone.
    """
    connection.commit()
    connection = connection.execution_options(isolation_level="AUTOCOMMIT")
    superuser = str(connection.scalar(text("SELECT current_user")))
    if not connection.scalar(_PUBLIC_EXISTS):
        connection.execute(text(f'CREATE ROLE "{PUBLIC}"'))
    database = ScratchDatabase.open(connection)
    return _Reading(
        database=database,
        superuser=superuser,
        budget=budget,
        left_out=list(left_out),
        incomplete=frozenset(incomplete),
    ).run(name, roles, schemas, progress)


_PUBLIC_EXISTS: Final = text("SELECT true FROM pg_catalog.pg_roles WHERE rolname = 'PUBLIC'")


@dataclass(kw_only=True)
class _Reading:
    database: ScratchDatabase
    superuser: str
    budget: Budget
    left_out: list[str]
    incomplete: frozenset[str]
    #: What each role may do beside relations.
    rights: Mapping[str, object] = field(default_factory=dict[str, object])

    @property
    def schema(self) -> Schema:
        return self.database.schema

    def run(
        self, name: str, wanted: Sequence[str], schemas: Sequence[str], progress: Progress | None
    ) -> Matrix:
        names = [one for one in self.schema.roles if one != self.superuser]
        everything = list(self.schema.relations.values())
        with pinned(self.database.connection):
            profiles = read_profiles(self.database.connection, everything, names)
        roles = self._roles(profiles, wanted)
        self._require_schemas(schemas)
        relations = [one for one in everything if not schemas or one.schema in schemas]
        self.rights = self._rights(roles)
        entries: list[Entry] = []
        for number, relation in enumerate(relations):
            if progress is not None:
                progress(number, len(relations), relation.name)
            entries += self._entries(relation, roles, profiles)
        if progress is not None and relations:
            progress(len(relations), len(relations), "")
        if not roles:
            self.left_out.append("No role but superusers and owners has a privilege on a table or view.")
        never = {entry.key for entry in entries if entry.verdict == "never" and entry.basis != "worlds"}
        ways = ways_around(
            self.database, roles, profiles, [one.name for one in relations], never, self.superuser
        )
        return Matrix(
            name=name,
            roles=tuple(roles),
            all_roles=tuple(names),
            entries=tuple(sorted(entries, key=_order)),
            ways=tuple(sorted(ways, key=lambda way: way.key)),
            left_out=tuple(dict.fromkeys(self.left_out)),
        )

    def _require_schemas(self, wanted: Sequence[str]) -> None:
        known = self.database.connection.scalars(text("SELECT n.nspname FROM pg_catalog.pg_namespace AS n"))
        if missing := sorted({*wanted} - {*known}):
            raise AnalysisError(
                f"the matrix can't be made: there is no schema {missing[0]!r}. Correct --schema"
            )

    def _roles(self, profiles: Mapping[tuple[str, str], Profile], wanted: Sequence[str]) -> list[str]:
        if missing := sorted(set(wanted) - self.schema.roles.keys()):
            raise AnalysisError(
                f"the matrix can't be made: there is no role {missing[0]!r}. "
                f"Give one of {', '.join(sorted(self.schema.roles.keys() - {self.superuser}))}"
            )
        if wanted:
            return list(dict.fromkeys(wanted))
        named = {
            role
            for relation in self.schema.relations.values()
            for policy in relation.policies
            for role in policy.roles
            if role != PUBLIC
        }
        found = {
            role
            for (_, role), profile in profiles.items()
            if profile.has_privileges and not profile.owns and not profile.bypasses
        }
        # A role of no privileges but those of every role is no column of its own, unless it is PUBLIC.
        held = {role: self._held(role, profiles) for role in found}
        found = {role for role in found if role == PUBLIC or held[role] != held.get(PUBLIC)}
        return sorted((found | named) & self.schema.roles.keys(), key=lambda one: (one == PUBLIC, one))

    def _held(self, role: str, profiles: Mapping[tuple[str, str], Profile]) -> object:
        return [
            (name, one.delete, one.selects, one.inserts, one.updates, one.policies)
            for (name, each), one in sorted(profiles.items(), key=lambda item: item[0])
            if each == role and one.has_privileges
        ]

    def _entries(
        self, relation: Relation, roles: Sequence[str], profiles: Mapping[tuple[str, str], Profile]
    ) -> Iterator[Entry]:
        worlds = Worlds(
            database=self.database, relation=relation, budget=self.budget, superuser=self.superuser
        )
        columns = set(relation.columns)
        words = ConditionWords(columns, self.schema.functions)
        for policy in relation.policies:
            words.of([one for one in (policy.using, policy.check) if one is not None] or ["false"])
        if len(words.owners) > 1:
            words = ConditionWords(columns, self.schema.functions, names_owner=True)
        constants: dict[str, bool | None] = {}
        read = sorted({relation.name, *self.schema.reads(relation.name)})
        is_asked = self._asks_for_role(read)
        known: dict[object, list[Entry]] = {}
        for role in roles:
            profile = profiles[relation.name, role]
            of_role = _OfRole(self, relation, role, profile, worlds, words, constants)
            held = [replace(profiles[one, role], role="") for one in read]
            # Roles with the same rights reach the same rows, unless the policies ask for the role.
            key = role if is_asked else repr((held, self.rights[role]))
            if key not in known:
                known[key] = list(of_role.entries())
            yield from (replace(entry, role=role) for entry in known[key])

    def _rights(self, roles: Sequence[str]) -> Mapping[str, object]:
        """Return what each of *roles* may do beside relations."""
        statement = query("privileges_of_roles").bindparams(bindparam("roles", type_=ARRAY(Text())))
        rows = self.database.connection.execute(statement, {"roles": list(roles)})
        found: dict[str, object] = {}
        for role, *privileges in rows:
            attributes = replace(self.schema.roles[role], name="", may_login=False)
            member_of = sorted(attributes.member_of.items())
            found[role] = (privileges, member_of, repr(replace(attributes, member_of={})))
        return found

    def _asks_for_role(self, names: Iterable[str]) -> bool:
        """Return whether a policy, a query, a function or a default of *names* may depend on the role."""
        schema = self.schema
        expressions: list[str | None] = []
        for name in names:
            relation = schema.relations[name]
            for policy in relation.policies:
                expressions += [policy.using, policy.check]
            for column in relation.columns.values():
                expressions += [column.default, column.generated, *column.domain_checks]
            expressions += [relation.query, *relation.checks]
            expressions += [
                schema.functions[one].body for one in schema.calls(name) if one in schema.functions
            ]
        return any(_may_ask(one) for one in expressions if one is not None)


_may_ask = cache(asks_for_role)


def _order(entry: Entry) -> tuple[str, bool, str, int]:
    return entry.object, entry.role == PUBLIC, entry.role, COMMANDS.index(entry.command)


@dataclass(slots=True)
class _OfRole:
    """The entries of a role on a relation."""

    reading: _Reading
    relation: Relation
    role: str
    profile: Profile
    worlds: Worlds
    words: ConditionWords
    constants: dict[str, bool | None]

    def entries(self) -> Iterator[Entry]:
        decided: dict[Command, Entry | None] = {command: self._by_catalog(command) for command in COMMANDS}
        left: list[Command] = [command for command, entry in decided.items() if entry is None]
        answers = self._answers(left) if left else {}
        for command, entry in decided.items():
            yield entry if entry is not None else self._by_worlds(command, answers[command])

    def _answers(self, commands: Sequence[Command]) -> Mapping[Command, Answer]:
        return self.worlds.answers(self.role, self.profile, commands)

    def _entry(self, command: Command, **values: object) -> Entry:
        partition = "partition" if self.relation.is_partition else None
        columns = self._columns(command)
        return Entry(
            object=self.relation.name,
            kind=partition or _KINDS[self.relation.kind],
            role=self.role,
            command=command,
            columns=() if set(columns) >= set(self.relation.columns) else columns,
            **values,  # type: ignore[arg-type] # the values are those of Entry
        )

    def _columns(self, command: Command) -> tuple[str, ...]:
        match command:
            case "SELECT":
                return self.profile.selects
            case "INSERT":
                return self.profile.inserts
            case "UPDATE":
                return self.profile.updates
            case _:
                return tuple(self.relation.columns)

    def _by_catalog(self, command: Command) -> Entry | None:
        """The entry, if privileges, flags or constants decide."""
        relation, profile = self.relation, self.profile
        is_held = profile.delete if command == "DELETE" else bool(self._columns(command))
        if not is_held:
            return self._entry(command, verdict="never", reason="no privilege", basis="privilege")
        if not profile.usage:
            reason = f"no USAGE on schema {relation.schema}"
            return self._entry(command, verdict="never", reason=reason, basis="privilege")
        if self._is_incomplete():
            reason = "the scratch database has the object, or one that it reads, only in part"
            return self._entry(command, verdict="unknown", reason=reason)
        if relation.kind == "v":
            return None
        if relation.kind in ("m", "f"):
            if command != "SELECT" and relation.kind == "m":
                return self._entry(command, verdict="never", reason="a materialized view", basis="privilege")
            reason = "a foreign table has no row security" if relation.kind == "f" else "a copy of rows"
            return self._entry(command, verdict="always", reason=reason, basis="privilege")
        if (unlimited := self._unlimited()) is not None:
            return self._entry(
                command, verdict="always", reason=unlimited, basis="privilege", sql=self._sql(command)
            )
        return self._by_policies(command)

    def _unlimited(self) -> str | None:
        """Why the policies don't limit the role."""
        if not self.relation.row_security:
            return "row security is off"
        if self.profile.bypasses:
            return "the role bypasses row security"
        if self.profile.owns and not self.relation.forced:
            return "the role owns the table, and row security isn't forced"
        return None

    def _is_incomplete(self) -> bool:
        return bool(self.reading.schema.reads(self.relation.name) & self.reading.incomplete)

    def _policies(self, command: Command) -> list[PolicyText]:
        return [
            policy
            for policy in self.relation.policies
            if policy.name in self.profile.policies and policy.command in (command, "ALL")
        ]

    def _expressions(self, command: Command, *, is_check: bool) -> tuple[list[str], list[str]]:
        """The permissive and the restrictive conditions of rows, or of new rows."""
        found: tuple[list[str], list[str]] = [], []
        for policy in self._policies(command):
            expression = (policy.check or policy.using) if is_check else policy.using
            if expression is not None:
                found[not policy.permissive].append(expression)
        return found

    def _parts(self, command: Command) -> list[tuple[list[str], list[str]]]:
        """The conditions of the row before the command, and of the row after it."""
        parts = []
        if command != "INSERT":
            parts.append(self._expressions(command, is_check=False))
        if command in ("INSERT", "UPDATE"):
            parts.append(self._expressions(command, is_check=True))
        return parts

    def _by_policies(self, command: Command) -> Entry | None:
        parts = self._parts(command)
        if any(not permissive for permissive, _ in parts):
            has_some = any(policy.permissive for policy in self._policies(command))
            reason = "no policy admits a row" if has_some else "no policy"
            return self._entry(
                command, verdict="never", reason=reason, basis="policy", sql=self._sql(command)
            )
        values = [self._constant(all_of(*part)) for part in parts]
        if all(values):
            reason = "the policies are true for every row"
            return self._entry(
                command, verdict="always", reason=reason, basis="constant", sql=self._sql(command)
            )
        if any(value is False for value in values):
            reason = "the policies are false for every row"
            return self._entry(
                command, verdict="never", reason=reason, basis="constant", sql=self._sql(command)
            )
        return None

    def _constant(self, expression: str) -> bool | None:
        if expression not in self.constants:
            connection = self.reading.database.connection
            self.constants[expression] = constant(connection, self.relation, expression)
        return self.constants[expression]

    def _by_worlds(self, command: Command, answer: Answer) -> Entry:
        sql, found = self._sql(command), f"{answer.worlds} of them"
        if answer.is_settled:
            return self._entry(
                command, verdict="condition", condition=self._condition(command), basis="worlds", sql=sql
            )
        if not answer.reached and not answer.missed:
            reason = "no row satisfies the constraints"
            return self._entry(command, verdict="unknown", reason=reason, sql=sql)
        if self.reading.schema.is_opaque(self.relation.name):
            reason = "a function runs SQL text that it computes, so it may read any table"
            return self._entry(command, verdict="unknown", reason=reason, sql=sql)
        if answer.reached:
            return self._entry(command, verdict="always", reason=found, basis="worlds", sql=sql)
        reason = answer.error or found
        return self._entry(command, verdict="never", reason=reason, basis="worlds", sql=sql)

    def _condition(self, command: Command) -> str:
        if self.relation.kind == "v":
            return self._condition_of_view()
        rows = [self.words.of(*part) for part in self._parts(command)]
        if len(set(rows)) == 1:
            return rows[0]
        return f"{rows[0]}; new rows: {rows[1]}"

    def _condition_of_view(self) -> str:
        schema = self.reading.schema
        edges = schema.edges.get(self.relation.name, ())
        read = sorted({edge.reads for edge in edges if edge.part == "query" and edge.reads is not None})
        columns = {column for name in read for column in schema.relations[name].columns}
        words = ConditionWords(columns, schema.functions)
        found = words.of_query(self.relation.query or "") if len(read) == 1 else None
        names = ", ".join(read)
        if is_invoker(self.relation):
            own = f"{found}, of those" if found is not None else "rows"
            return f"{own} that the role can read in {names}"
        return found or f"rows of {names}, by the query of the view"

    def _sql(self, command: Command) -> str:
        if self.relation.query is not None:
            return self.relation.query.strip()
        if not self.relation.row_security:
            return ""
        return "\n".join(map(_policy_sql, self._policies(command)))


def _policy_sql(policy: PolicyText) -> str:
    kind = "" if policy.permissive else " AS RESTRICTIVE"
    parts = [f"policy {policy.name}{kind} FOR {policy.command}"]
    parts += [f"USING ({policy.using})"] if policy.using is not None else []
    parts += [f"WITH CHECK ({policy.check})"] if policy.check is not None else []
    return " ".join(" ".join(parts).split())
