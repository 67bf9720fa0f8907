"""Postgres objects as frozen values, and the Snapshot that holds them.

One Snapshot describes the models, and another the database.  The other modules compare or read them.  This
module imports neither SQLAlchemy nor a driver.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple, Self

from sqla_rls.exc import DeclarationError

PUBLIC: Final = "public"


#: The comment on objects of the scripts in ddl/sql/.  The scripts replace and drop only objects with it.
MADE_BY: Final = "made by sqla_rls"


#: Keywords that stand for a role, without quotes.
ROLE_KEYWORDS: Final = frozenset({"CURRENT_USER", "CURRENT_ROLE", "SESSION_USER"})


#: NAMEDATALEN - 1: Postgres cuts longer names without an error.
MAX_NAME_BYTES: Final = 63


AUTH_SCHEMA: Final = "auth"


#: A placeholder for the default schema, whose name only the database knows.
DEFAULT_SCHEMA: Final = ""


#: A placeholder in the statement of a function for the connection's default schema at that time.
CURRENT_SCHEMA: Final = "__current_schema__"


#: The schema of the signing key.
SECRET_SCHEMA: Final = "sqla_rls_secret"  # noqa: S105 - a name


#: The role that owns only the signing key.
KEYHOLDER: Final = "sqla_rls_keyholder"


#: A declaration of the first role also declares the second, which may use the auth functions, too.
BROUGHT_ALONG: Final[Mapping[str, str]] = {"authenticated": "anonymous"}


AUTH_FUNCTIONS: Final = ("session", "jwt", "user_id", "uid", "organization", "organization_id")


#: The table privilege that each command of a policy needs.
COMMAND_PRIVILEGES: Final[Mapping[str, tuple[str, ...]]] = {
    "ALL": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "SELECT": ("SELECT",),
    "INSERT": ("INSERT",),
    "UPDATE": ("UPDATE",),
    "DELETE": ("DELETE",),
}


def unless_default(schema: str | None, default_schema: str | None) -> str | None:
    """Return *schema* as keys have it: None for the default schema."""
    return None if schema == default_schema else schema


class TableKey(NamedTuple):
    """A table by its schema (``None``: the connection's default one) and name."""

    schema: str | None
    name: str

    @classmethod
    def of(cls, schema: str | None, name: str, default_schema: str | None) -> TableKey:
        """Return the key of a table; *schema* may be None or *default_schema* for the default schema."""
        return cls(unless_default(schema, default_schema), name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A role of the cluster.

    A migration creates the role if it is missing.  Autogenerate never drops it.  It manages neither an
    attribute that is None nor a password; set passwords where you deploy.

    Args:
        name: the name.
        login: whether the role can log in.
        inherit: whether the role inherits the privileges of *member_of*.
        bypassrls: whether the role bypasses row security.
        member_of: all roles that it is a member of; it may SET ROLE to each.
        managed: False for a role of another program.  No migration creates, alters or drops it.

    Raises:
        DeclarationError: the name or a role of *member_of* is of another type.

    Emits:
        ``CREATE ROLE name [LOGIN] [NOINHERIT] [BYPASSRLS] [IN ROLE …]``, ``ALTER ROLE``, ``GRANT`` and
        ``REVOKE`` of memberships.
    """

    name: str = field(kw_only=False)
    login: bool | None = None
    inherit: bool | None = None
    bypassrls: bool | None = None
    member_of: Collection[Role | str] | None = None
    managed: bool = True

    def __post_init__(self) -> None:
        if not self.managed and (self.login, self.inherit, self.bypassrls, self.member_of) != (None,) * 4:
            raise DeclarationError(
                f"role {self.name!r} can't be declared: with managed=False, no migration can set its "
                "attributes. Leave out the attributes, or managed=False"
            )
        if not isinstance(self.name, str):
            raise DeclarationError(
                "the role can't be declared: Role() takes the name of a role, not an object of type "
                f"{type(self.name).__name__}. Write Role('name')"
            )
        object.__setattr__(self, "name", str.__str__(self.name))
        if self.member_of is not None:
            object.__setattr__(self, "member_of", tuple(listed_roles(self.member_of)))

    def __str__(self) -> str:
        return self.name


def listed_roles(roles: Role | str | Collection[Role | str]) -> list[Role | str]:
    """Return one role or several as a list.

    Raises:
        DeclarationError: an item is neither a Role nor a name.
    """
    found: list[Role | str] = []
    for one in roles if isinstance(roles, Iterable) and not isinstance(roles, str | bytes) else [roles]:
        if not isinstance(one, Role | str):
            # A Caller has a role.
            role = getattr(one, "role", None)
            fix = repr(role) if isinstance(role, str) else "Role('name') or 'name'"
            raise DeclarationError(
                "the declaration can't be made: a role is a Role or a name, not an object of type "
                f"{type(one).__name__}. Write {fix}"
            )
        # str() of a member of a str enum is "Class.NAME" instead of its value.
        found.append(str.__str__(one) if isinstance(one, str) else one)
    return found


class Membership(NamedTuple):
    """The membership of *member* in *role*; an option that is None has the server's default."""

    role: str
    member: str
    admin: bool = False
    inherit: bool | None = None
    set: bool | None = None


# Not frozen, though nothing changes it: frozen, it takes three times as long to make.
@dataclass(slots=True, kw_only=True, unsafe_hash=True)
class RowSecurity:
    """The two independent flags of ``ALTER TABLE … ROW LEVEL SECURITY``."""

    table: TableKey
    enabled: bool = True
    forced: bool = False


class PolicyKey(NamedTuple):
    table: TableKey
    name: str


# Not frozen, though nothing changes it: frozen, it takes three times as long to make.
@dataclass(slots=True, kw_only=True, unsafe_hash=True)
class Policy:
    """One row of pg_policy; *using* and *with_check* are SQL text."""

    table: TableKey
    name: str
    permissive: bool = True
    command: str = "ALL"
    roles: frozenset[str] = frozenset({PUBLIC})
    using: str | None = None
    with_check: str | None = None
    #: A database doesn't store this flag, so its policies have True.
    imply_privileges: bool = field(default=True, compare=False)
    #: The comment of a user; a migration keeps it when it recreates the policy.
    comment: str | None = field(default=None, compare=False)

    @property
    def key(self) -> PolicyKey:
        return PolicyKey(self.table, self.name)

    @property
    def has_star(self) -> bool:
        """Whether the text has a ``*``, which Postgres may expand to columns."""
        return "*" in f"{self.using} {self.with_check}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SQLFunction:
    """One row of pg_proc; *settings* are those of proconfig."""

    schema: str | None
    name: str
    arguments: str
    returns: str
    body: str
    volatility: str
    security_definer: bool
    settings: tuple[str, ...]
    language: str = "sql"
    parallel: str = "UNSAFE"
    strict: bool = False
    leakproof: bool = False
    #: The comment of a user; a migration keeps it when it recreates the function.
    comment: str | None = field(default=None, compare=False)

    @property
    def key(self) -> TableKey:
        return TableKey(self.schema, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A view and its options; *definition* is the SQL text of a query."""

    schema: str | None
    name: str
    definition: str
    security_invoker: bool = True
    security_barrier: bool = False
    check_option: str | None = None  # local or cascaded
    #: The comments of a user; a migration keeps them when it recreates the view.
    comment: str | None = field(default=None, compare=False)
    column_comments: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    @property
    def key(self) -> TableKey:
        return TableKey(self.schema, self.name)

    @property
    def object(self) -> ObjectKey:
        """The key as privileges have it: for them, a view is a table."""
        return ObjectKey("TABLE", *self.key)


class SequenceKey(NamedTuple):
    """A sequence by its name, or by the table and column that own it, if Postgres has chosen the name."""

    schema: str | None
    name: str
    column: str | None = None

    @property
    def table(self) -> TableKey:
        return TableKey(self.schema, self.name)


class CalledSequence(NamedTuple):
    """A sequence that a column default of *table* calls, and that the column doesn't own.

    If *default*, the SQL text, is given, the column of *sequence* identifies the sequence.
    """

    table: TableKey
    sequence: SequenceKey
    default: str | None = None


class ObjectKey(NamedTuple):
    """An object with privileges."""

    object_type: str  # TABLE (or view), SEQUENCE, SCHEMA or FUNCTION; DATABASE in PUBLIC_PRIVILEGES alone
    schema: str | None  # None for a schema itself, and for the default one
    name: str  # of a function, with the types of its arguments


class Privilege(NamedTuple):
    """One privilege that one role holds on one object, as in aclexplode().

    The first three fields are an ObjectKey.  For a sequence that a column owns, they name the column's table.
    """

    object_type: str
    schema: str | None
    name: str
    grantee: str
    privilege: str
    column: str | None = None
    grantable: bool = False
    #: The role that granted it; None for the owner.
    grantor: str | None = None

    @property
    def object(self) -> ObjectKey:
        return ObjectKey(*self[:3])


class DefaultPrivilege(NamedTuple):
    """One default privilege for objects that the migrating role creates later.

    ``ALTER DEFAULT PRIVILEGES`` has the same fields.
    """

    object_type: str  # TABLES, SEQUENCES, FUNCTIONS, TYPES or SCHEMAS
    schema: str | None  # None for every schema; or DEFAULT_SCHEMA
    grantee: str
    privilege: str


#: The default privileges of PUBLIC in a new database.
BUILT_IN_DEFAULTS: Final = frozenset(
    {
        DefaultPrivilege("FUNCTIONS", None, PUBLIC, "EXECUTE"),
        DefaultPrivilege("TYPES", None, PUBLIC, "USAGE"),
    }
)


#: Privileges of PUBLIC in a new database, CREATE up to PostgreSQL 14.  With them, one caller can trick
#: another: a temporary table hides a real one, and a function hides one of Postgres.
PUBLIC_PRIVILEGES: Final = frozenset(
    {
        Privilege("DATABASE", None, "", PUBLIC, "TEMPORARY"),  # the current database
        Privilege("SCHEMA", None, "public", PUBLIC, "CREATE"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All managed objects of the models or of a database."""

    roles: Mapping[str, Role] = field(default_factory=dict)
    memberships: frozenset[Membership] = frozenset()
    auth_functions: bool = False
    row_security: Mapping[TableKey, RowSecurity] = field(default_factory=dict)
    #: The direct partitions and inheritance children of each table.
    heirs: Mapping[TableKey, Collection[TableKey]] = field(default_factory=dict)
    policies: Mapping[PolicyKey, Policy] = field(default_factory=dict)
    #: The tables that subqueries of an expression on a table read; SQL text has no entry.
    reads: Mapping[tuple[TableKey, str], Collection[TableKey]] = field(default_factory=dict)
    privileges: frozenset[Privilege] = frozenset()
    #: The owner of each object, with the first fields of a Privilege; an owner needs no grant.
    owners: frozenset[tuple[str, str | None, str, str]] = frozenset()
    default_privileges: frozenset[DefaultPrivilege] = frozenset()
    #: The sequence of each serial column.
    sequences: frozenset[SequenceKey] = frozenset()
    #: The sequence of each identity column; INSERT needs no privilege on it.
    identity_sequences: frozenset[SequenceKey] = frozenset()
    #: The sequences that several columns may share.
    called_sequences: frozenset[CalledSequence] = frozenset()
    functions: Mapping[TableKey, SQLFunction] = field(default_factory=dict)
    #: The views in an order in which each follows the views that it reads.
    views: Mapping[TableKey, View] = field(default_factory=dict)
    #: The roles of other programs, which may need the privileges on shared schemas elsewhere, too.
    roles_of_others: frozenset[str] = frozenset()
    #: Those to which policies imply no privileges.
    ungranted: frozenset[str] = frozenset()
    #: Whether the migration revokes PUBLIC_PRIVILEGES.
    revokes_public_privileges: bool = False
    #: The tables with declarations: all their privileges are managed.
    managed: frozenset[TableKey] = frozenset()
    #: The sequences, functions and views whose privileges are all managed.
    managed_objects: frozenset[ObjectKey] = frozenset()
    #: The schemas and roles whose privileges are managed; other roles on the schema aren't.
    managed_grantees: frozenset[tuple[ObjectKey, str]] = frozenset()
    #: The kinds of default privileges, with their roles, that are managed.
    managed_defaults: frozenset[tuple[str, str]] = frozenset()

    @property
    def owned_sequences(self) -> frozenset[SequenceKey]:
        """The sequences of the serial and the identity columns."""
        return self.sequences | self.identity_sequences

    @property
    def sequences_of_columns(self) -> frozenset[SequenceKey]:
        """The owned sequences, and the sequences whose privileges are declared by their columns."""
        return self.owned_sequences | {
            SequenceKey(one.schema, one.name, one.column)
            for one in self.privileges
            if one.object_type == "SEQUENCE" and one.column is not None
        }

    def objects_of(self, tables: Collection[TableKey]) -> set[ObjectKey]:
        """Return *tables* and the sequences that their columns own."""
        if not tables:
            return set()
        owners = {one.table for one in self.owned_sequences}
        return {
            *(ObjectKey("TABLE", *table) for table in tables),
            *(ObjectKey("SEQUENCE", *table) for table in tables if table in owners),
        }

    def before_making(self, objects: Collection[ObjectKey]) -> Self:
        """Return the snapshot from before *objects* are created: without their privileges and owners."""
        if not objects:
            return self
        return replace(
            self,
            privileges=frozenset(one for one in self.privileges if one.object not in objects),
            owners=frozenset(one for one in self.owners if ObjectKey(*one[:3]) not in objects),
        )

    def without(self, objects: Collection[ObjectKey]) -> Self:
        """Return the snapshot without the functions and views among *objects*, and their privileges."""
        if not objects:
            return self
        return replace(
            self,
            functions={
                key: one for key, one in self.functions.items() if ObjectKey("FUNCTION", *key) not in objects
            },
            views={key: one for key, one in self.views.items() if one.object not in objects},
            privileges=frozenset(one for one in self.privileges if one.object not in objects),
            managed_objects=self.managed_objects - frozenset(objects),
        )

    @property
    def held_by_public(self) -> tuple[str, ...]:
        """The privileges of PUBLIC_PRIVILEGES that exist."""
        held = {one._replace(grantor=None) for one in self.privileges}
        return tuple(sorted(one.privilege for one in PUBLIC_PRIVILEGES & held))

    def heirs_of(self, tables: Collection[TableKey]) -> dict[TableKey, set[TableKey]]:
        """Return the partitions and inheritance children of *tables*, at any depth.

        Returns:
            Each partition or child with its ancestors among *tables*.  A table of *tables* isn't part of the
            result, and neither are tables that only it has as children.
        """
        found: dict[TableKey, set[TableKey]] = {}
        waiting = [(table, heir) for table in tables for heir in self.heirs.get(table, ())]
        for table, heir in waiting:  # the list grows
            if heir not in tables and table not in found.setdefault(heir, set()):
                found[heir].add(table)
                waiting += [(table, one) for one in self.heirs.get(heir, ())]
        return found

    def groups_of(self, roles: Collection[str]) -> set[str]:
        """Return *roles* and the roles that they are direct or indirect members of."""
        found = {*roles}
        while more := {one.role for one in self.memberships if one.member in found} - found:
            found |= more
        return found

    def policies_of(self, table: TableKey) -> list[Policy]:
        return [policy for policy in self.policies.values() if policy.table == table]


def may_read(sql: str) -> bool:
    """Return whether *sql* may have a subquery that reads a table: such a query needs FROM or TABLE."""
    return any(word in sql.lower() for word in ("from", "table"))


def members_last(roles: Mapping[str, Role]) -> list[Role]:
    """Return *roles* in an order in which each follows the roles that it is a member of."""
    visited: set[str] = set()
    ordered: list[Role] = []

    def visit(name: str) -> None:
        if name in roles and name not in visited:
            visited.add(name)
            for group in roles[name].member_of or ():
                visit(str(group))
            ordered.append(roles[name])

    for name in roles:
        visit(name)
    return ordered


def named_by(policies: Iterable[Policy]) -> set[str]:
    """Return the roles of *policies*, of which thousands share a few sets."""
    return set().union(*{policy.roles for policy in policies})


def callers(roles: Iterable[Role | str]) -> set[str]:
    """Return the roles that callers have if policies name *roles*; each role is in PUBLIC."""
    return {PUBLIC, *BROUGHT_ALONG, *BROUGHT_ALONG.values(), *map(str, roles)}
