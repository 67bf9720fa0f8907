"""The matrix of a scratch database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from sqlalchemy import ARRAY, Connection, Text, bindparam, text

from sqla_rls.analyze.in_place.asking import access_asks_for_role
from sqla_rls.analyze.matrix.decide import Worlds
from sqla_rls.analyze.matrix.entry import Entry, Matrix
from sqla_rls.analyze.matrix.role_entries import RoleEntries
from sqla_rls.analyze.matrix.ways import rights_beside_relations, ways_around
from sqla_rls.analyze.matrix.words import ConditionWords
from sqla_rls.analyze.sides import Side
from sqla_rls.analyze.verdict import Budget, Progress
from sqla_rls.analyze.why.explanation import COMMANDS
from sqla_rls.analyze.why.target import query
from sqla_rls.analyze.worlds.objects import PUBLIC, Profile, Relation
from sqla_rls.analyze.worlds.schema import Schema, read_profiles
from sqla_rls.analyze.worlds.scratch import ScratchDatabase
from sqla_rls.catalog.query import pinned
from sqla_rls.exc import AnalysisError

#: Most conditions are settled by the first few worlds.
BUDGET: Final = Budget()


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
        roles: the roles; without them, those with rights to objects of others, and those of policies.
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
    database = ScratchDatabase.open(connection)
    return _Reading(
        database=database,
        superuser=superuser,
        budget=budget,
        left_out=list(left_out),
        incomplete=frozenset(incomplete),
    ).run(name, roles, schemas, progress)


_SEARCH_CATALOG: Final = text("SELECT pg_catalog.set_config('search_path', 'pg_catalog', true)")
_IMMUTABLE: Final = text(
    "SELECT f.oid::pg_catalog.regprocedure::pg_catalog.text FROM pg_catalog.pg_proc AS f "
    "WHERE f.oid >= 16384 AND f.provolatile = 'i' AND f.prokind IN ('f', 'w')"
)


@dataclass(kw_only=True)
class _Reading:
    database: ScratchDatabase
    superuser: str
    budget: Budget
    left_out: list[str]
    incomplete: frozenset[str]
    #: What each role may do beside relations.
    rights: Mapping[str, object] = field(default_factory=dict[str, object])
    #: The functions that say IMMUTABLE.
    immutable: frozenset[str] = frozenset()

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
            # The signatures are as the schema has them.
            self.database.connection.execute(_SEARCH_CATALOG)
            self.immutable = frozenset(self.database.connection.scalars(_IMMUTABLE))
            others = rights_beside_relations(self.database, names)
        roles = self._roles(profiles, wanted, others)
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

    def _roles(
        self,
        profiles: Mapping[tuple[str, str], Profile],
        wanted: Sequence[str],
        others: Mapping[str, frozenset[str]],
    ) -> list[str]:
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
        found |= {
            role
            for role, held in others.items()
            if held - others.get(PUBLIC, frozenset())
            and not self.schema.roles[role].is_superuser
            and not self.schema.roles[role].bypasses_row_security
        }
        held = {role: (self._held(role, profiles), others.get(role)) for role in found}
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
        required = {name for name, column in relation.columns.items() if column.not_null}
        words = ConditionWords(columns, self.schema.functions, required=required)
        for policy in relation.policies:
            words.of([one for one in (policy.using, policy.check) if one is not None] or ["false"])
        if len(words.owners) > 1:
            words = ConditionWords(columns, self.schema.functions, required=required, names_owner=True)
        constants: dict[str, bool | None] = {}
        read = sorted({relation.name, *self.schema.reads(relation.name)})
        is_asked = access_asks_for_role(self.schema, read)
        known: dict[object, list[Entry]] = {}
        for role in roles:
            profile = profiles[relation.name, role]
            of_role = RoleEntries(
                self.database,
                self.incomplete,
                relation,
                role,
                profile,
                worlds,
                words,
                constants,
                self.immutable,
            )
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


def _order(entry: Entry) -> tuple[str, bool, str, int]:
    return entry.object, entry.role == PUBLIC, entry.role, COMMANDS.index(entry.command)
