"""The questions that a rule may ask: the catalog is read once, and the rest when a rule asks for it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import resources
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, MetaData, RowMapping, text

from sqla_rls.analyze.intent import everyone, intents
from sqla_rls.analyze.lint.finding import Kind, Level
from sqla_rls.analyze.why.trust import Untrusted
from sqla_rls.analyze.worlds.objects import PUBLIC, PolicyText, Profile, Relation, RoleAttributes
from sqla_rls.analyze.worlds.schema import Schema, read_profiles
from sqla_rls.analyze.worlds.scratch import create_stand_in
from sqla_rls.catalog.query import undone
from sqla_rls.exc import AnalysisError
from sqla_rls.snapshot import PUBLIC as DECLARED_PUBLIC

#: The roles of callers without a token, in sqla_rls, in Supabase and in PostgREST's manual.
ANONYMOUS_ROLES: Final = ("anonymous", "anon", "web_anon")
#: The roles that callers have, whether or not a policy names them.
KNOWN_CALLERS: Final = (*ANONYMOUS_ROLES, "authenticated")

#: The most seconds of the rules of speed.
SECONDS: Final = 300.0

#: What to do about code that isn't trusted.
TRUST: Final = (
    "Connect as the owner of the tables; or list the role in trusted-owners of [tool.sqla_rls.lint], if its "
    "members may have your rights"
)

_Value = TypeVar("_Value")

OpenScratch = Callable[[], AbstractContextManager[Connection]]


@dataclass(frozen=True, slots=True)
class Grant:
    """A role, or PUBLIC, holds a privilege on an object itself; a column privilege names its column."""

    kind: str
    object: str
    grantee: str
    privilege: str
    column: str | None


@dataclass(frozen=True, slots=True)
class Unknown:
    """A part of a database about which a rule, or another program, has no answer."""

    object: str
    kind: Kind
    role: str | None
    reason: str


@dataclass(eq=False)
class Database:
    """A database that rules look at.

    Attributes:
        connection: a connection, in a transaction that is read only.
        schemas: the schemas whose objects are looked at; empty is all.
        anonymous_roles: the roles of callers without a token.
        open_scratch: gives a superuser's connection to a scratch database of the same schema; None if there
            is no way.
        is_scratch: the connection itself is a superuser's to a scratch database.
        made_up_roles: the roles of a scratch database that the target doesn't have.
        models: the models of the tables, where they are given.
        seconds: the most seconds of the rules of speed.
        left_out: sentences about the parts of the target that its scratch database doesn't have.
        unknown: the parts without an answer, with the names of the rules that asked, and their levels.
        asking: the name of the rule that runs, and the level of its parts without an answer.
        untrusted: the objects whose code doesn't run, here or in the scratch database.
    """

    connection: Connection
    schemas: Collection[str] = ()
    anonymous_roles: Collection[str] = ANONYMOUS_ROLES
    open_scratch: OpenScratch | None = None
    is_scratch: bool = False
    made_up_roles: Collection[str] = ()
    models: Sequence[MetaData] = ()
    seconds: float = SECONDS
    left_out: list[str] = field(default_factory=list)
    unknown: dict[Unknown, dict[str, Level]] = field(default_factory=dict[Unknown, dict[str, Level]])
    asking: tuple[str, Level] | None = None
    untrusted: Untrusted = field(default_factory=Untrusted)
    #: The tables and views that the scratch database has only in part, with the parts.
    incomplete: dict[str, str] = field(default_factory=dict[str, str])
    #: Ends what the rules opened.
    undo: ExitStack = field(default_factory=ExitStack)
    _no_scratch: str | None = None

    @cached_property
    def schema(self) -> Schema:
        """The catalog: relations, functions, roles, and what they refer to."""
        return Schema.read(self.connection, of_new_rows=True)

    @cached_property
    def relations(self) -> Sequence[Relation]:
        """The tables, views, materialized views and foreign tables that are looked at."""
        return [
            one for one in self.schema.relations.values() if not self.schemas or one.schema in self.schemas
        ]

    @property
    def tables(self) -> Sequence[Relation]:
        """The tables and partitions that are looked at."""
        return [one for one in self.relations if one.has_rows]

    def fetch(self, name: str) -> Sequence[RowMapping]:
        """Return the rows of the query ``lint/sql/NAME.sql``; it runs once."""
        if name not in self._fetched:
            self._fetched[name] = self.connection.execute(text(query_text(name))).mappings().all()
        return self._fetched[name]

    @cached_property
    def _fetched(self) -> dict[str, Sequence[RowMapping]]:
        return {}

    def cached(self, key: Any, make: Callable[[], _Value]) -> _Value:
        """Return the value of *key*, which *make* returns the first time: rules share it."""
        if key not in self._values:
            self._values[key] = make()
        return self._values[key]  # type: ignore[no-any-return]

    @cached_property
    def _values(self) -> dict[Any, Any]:
        return {}

    @cached_property
    def grants(self) -> Sequence[Grant]:
        """The privileges on relations, columns, schemas, sequences, functions and the database.

        A grantee that doesn't exist any more is ``unknown (OID=…)``.
        """
        return [Grant(**row) for row in self.fetch("grants")]

    @cached_property
    def _holders(self) -> Mapping[tuple[str, str, str], frozenset[str]]:
        found: dict[tuple[str, str, str], set[str]] = {}
        for one in self.grants:
            if one.column is None:
                found.setdefault((one.kind, one.object, one.privilege), set()).add(one.grantee)
        return {key: frozenset(ones) for key, ones in found.items()}

    def holders(self, kind: str, name: str, privilege: str) -> frozenset[str]:
        """Return the roles, and PUBLIC, that hold *privilege* on an object themselves."""
        return self._holders.get((kind, name, privilege), frozenset())

    def holds(self, role: str, kind: str, name: str, privilege: str) -> bool:
        """Return whether *role* holds *privilege* on an object, itself or through a role or PUBLIC.

        Args:
            role: the role.
            kind: "relation", "sequence", "schema", "function" or "database".
            name: the name of the object, or the signature of a function.
            privilege: the privilege, for example "EXECUTE".
        """
        return not self.rights_of(role).isdisjoint(self.holders(kind, name, privilege))

    def is_looked_at(self, kind: str, name: str, *, owner: str) -> bool:
        """Return whether an object is looked at, and isn't the own one of role *owner*."""
        if kind == "relation":
            relation = self.schema.relations.get(name)
            return (
                relation is not None
                and relation.owner != owner
                and (not self.schemas or relation.schema in self.schemas)
            )
        return kind != "schema" or not self.schemas or name in self.schemas

    @cached_property
    def subject(self) -> str:
        """The call that returns the caller's id: ``auth.uid()`` where there is no ``auth.user_id()``."""
        found = ("auth.user_id()", "auth.uid()")
        return next((one for one in found if one in self.schema.functions), found[0])

    @cached_property
    def name(self) -> str:
        """The name of the database."""
        return str(self.connection.scalar(text("SELECT pg_catalog.current_database()")))

    def has_schema_of(self, signature: str) -> bool:
        """Return whether the schema of a function is looked at."""
        function = self.schema.functions.get(signature)
        return function is not None and (not self.schemas or function.schema in self.schemas)

    def may_execute(self, role: str, signature: str) -> bool:
        """Return whether *role* may call a function that isn't part of Postgres or of an extension."""
        schema = self.schema.functions[signature].schema
        return self.holds(role, "function", signature, "EXECUTE") and self.holds(
            role, "schema", schema, "USAGE"
        )

    def escapes(self, role: str, relation: Relation) -> bool:
        """Return whether row security of *relation* doesn't hold for *role*."""
        attributes = self.schema.roles.get(role)
        if attributes is None:
            return False
        is_above = attributes.is_superuser or attributes.bypasses_row_security
        return is_above or (not relation.forced and relation.owner in self.rights_of(role))

    def rights_of(self, role: str) -> frozenset[str]:
        """Return *role*, PUBLIC, and the roles whose privileges it has without SET ROLE."""
        if role not in self._rights:
            self._rights[role] = self._closure(role, _inherited)
        return self._rights[role]

    @cached_property
    def _rights(self) -> dict[str, frozenset[str]]:
        return {}

    def reachable(self, role: str) -> frozenset[str]:
        """Return *role*, PUBLIC, and the roles that it may become by SET ROLE."""
        # Each membership of the way needs SET, and none needs INHERIT.
        return self._closure(role, lambda attributes: attributes.may_set)

    def _closure(self, role: str, groups: Callable[[RoleAttributes], Iterable[str]]) -> frozenset[str]:
        found, waiting = {role, PUBLIC}, [role]
        while waiting:
            attributes = self.schema.roles.get(waiting.pop())
            for name in groups(attributes) if attributes else ():
                if name not in found:
                    found.add(name)
                    waiting.append(name)
        return frozenset(found)

    @cached_property
    def callers(self) -> Sequence[RoleAttributes]:
        """The roles that a caller may be bound to: row security holds for each of them.

        These are the roles that policies name, anonymous and authenticated, and the roles that hold a
        privilege on a table with a policy for PUBLIC.  Superusers and roles with BYPASSRLS are none.
        If PUBLIC holds such a privilege, it is the last one: it stands for roles that don't exist yet.
        """
        named = {role for one in self.relations for policy in one.policies for role in policy.roles}
        named |= {*KNOWN_CALLERS, *self.anonymous_roles}
        public = {
            one.name: one for one in self.tables if any(PUBLIC in policy.roles for policy in one.policies)
        }
        holders: dict[str, set[str]] = {}
        for grant in self.grants:
            if grant.kind == "relation" and grant.object in public:
                holders.setdefault(grant.grantee, set()).add(grant.object)
        found = []
        for role in self.schema.roles.values():
            if role.is_superuser or role.bypasses_row_security:
                continue
            rights = self.rights_of(role.name)
            held = {name for one in rights for name in holders.get(one, ())}
            if role.name in named or any(
                public[name].forced or public[name].owner not in rights for name in held
            ):
                found.append(role)
        return [*found, _ANY_ROLE] if PUBLIC in holders and PUBLIC not in self.schema.roles else found

    def is_anonymous(self, role: str) -> bool:
        """Return whether callers without a token have *role*."""
        return role in self.anonymous_roles

    @cached_property
    def profiles(self) -> Mapping[tuple[str, str], Profile]:
        """The privileges of roles on each relation, by the names of relation and role.

        The roles are those of callers, and those with whose rights views and functions reach rows.
        """
        owners = {one.owner for one in self.schema.relations.values() if one.is_view}
        owners |= {one.owner for one in self.schema.functions.values() if one.is_definer}
        roles = dict.fromkeys([*(role.name for role in self.callers), *sorted(owners)])
        return read_profiles(self.connection, self.schema.relations.values(), list(roles))

    def profiles_of(self, role: str) -> Mapping[str, Profile]:
        """Return the privileges of a role of ``profiles`` by the names of relations."""
        return self._profiles_by_role.get(role, {})

    @cached_property
    def _profiles_by_role(self) -> Mapping[str, Mapping[str, Profile]]:
        found: dict[str, dict[str, Profile]] = {}
        for (relation, role), profile in self.profiles.items():
            found.setdefault(role, {})[relation] = profile
        return found

    def policies_of(self, relation: Relation, role: str) -> list[PolicyText]:
        """Return the policies of *relation* for a caller's role."""
        names = self.profiles[relation.name, role].policies
        return [one for one in relation.policies if one.name in names]

    def roles_with_privileges(self, name: str, *commands: str) -> list[str]:
        """Return the callers' roles with a privilege on relation *name*: any, or one of *commands*."""
        found = []
        for role in self.callers:
            profile = self.profiles.get((name, role.name))
            if profile is None or not profile.usage:
                continue
            held = {
                "SELECT": bool(profile.selects),
                "INSERT": bool(profile.inserts),
                "UPDATE": bool(profile.updates),
                "DELETE": profile.delete,
            }
            if any(held[one] for one in commands or held):
                found.append(role.name)
        return found

    def is_active(self, name: str, role: str) -> bool:
        """Return whether row security holds for callers of *role* on table *name*."""
        relation, profile = self.schema.relations[name], self.profiles[name, role]
        return relation.row_security and not profile.bypasses and (relation.forced or not profile.owns)

    @contextmanager
    def scratch(self) -> Iterator[Connection]:
        """Give a superuser's connection to a scratch database of the same schema; the block is undone.

        Raises:
            AnalysisError: none can be built.
        """
        with undone(self._scratch):
            if _ANY_ROLE in self.callers:
                create_stand_in(self._scratch)
            yield self._scratch

    def require_complete(self, name: str) -> None:
        """Raise AnalysisError if the scratch database has a relation, or one that it reads, only in part."""
        for one in sorted({name, *self.schema.reads(name)} & self.incomplete.keys()):
            raise AnalysisError(f"{one}: {self.incomplete[one]}")

    @cached_property
    def _scratch(self) -> Connection:
        if self.open_scratch is None:
            raise AnalysisError("no scratch database can be built: the target doesn't say how")
        if (reason := self.untrusted.any_obstacle) is not None:
            raise AnalysisError(f"no scratch database is built: {reason}. {TRUST}")
        if self._no_scratch is not None:
            # It takes seconds to fail, and each table would try it.
            raise AnalysisError(self._no_scratch)
        try:
            return self.undo.enter_context(self.open_scratch())
        except AnalysisError as error:
            self._no_scratch = str(error)
            raise

    def quoted(self, name: str) -> str:
        """Return *name* as an identifier, quoted if Postgres needs it."""
        return self.connection.dialect.identifier_preparer.quote(name)

    def quoted_role(self, name: str) -> str:
        """Return PUBLIC, or the name of a role as an identifier."""
        return name if name == PUBLIC else self.quoted(name)

    def is_intended(self, relation: Relation, command: str, role: str) -> bool:
        """Return whether the models state that callers of *role* may run *command* on each row."""
        return any(
            one.test is everyone
            and (one.table.schema or "public", one.table.name) == (relation.schema, relation.relname)
            and command in one.commands
            and not {role, DECLARED_PUBLIC}.isdisjoint(one.roles)
            for one in intents(*self.models)
        )

    def note_unknown(self, name: str, reason: str, *, kind: Kind = "table", role: str | None = None) -> None:
        """Note that the rule that runs has no answer about an object, or about its access by *role*."""
        rules = self.unknown.setdefault(Unknown(name, kind, role, reason.rstrip(".")), {})
        if self.asking is not None:
            rule, level = self.asking
            rules[rule] = level


def _inherited(role: RoleAttributes) -> Iterator[str]:
    return (name for name, is_inherited in role.member_of.items() if is_inherited)


#: A role that doesn't exist yet.
_ANY_ROLE: Final = RoleAttributes(
    name=PUBLIC,
    is_superuser=False,
    bypasses_row_security=False,
    inherits=True,
    may_login=False,
    member_of={},
    may_set=(),
    may_grant=(),
    settings="[]",
)


@cache
def query_text(name: str) -> str:
    """Return the text of ``lint/sql/NAME.sql``."""
    return (resources.files("sqla_rls.analyze.lint") / "sql" / f"{name}.sql").read_text(encoding="utf-8")


def listed(names: Collection[Any]) -> str:
    """Return *names* for a sentence: the first three, and the number of the others."""
    shown = [str(one) for one in names]
    rest = len(shown) - 3
    return ", ".join(shown[:3]) + (f" and {rest} more" if rest > 0 else "")
