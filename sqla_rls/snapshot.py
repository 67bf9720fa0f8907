"""Postgres objects as frozen values, and the Snapshot that holds them.

Models are made into one Snapshot, the database's catalog into another; everything else compares or
reads the two.  Nothing here knows SQLAlchemy or a connection.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple, Self

from sqla_rls.exc import DeclarationError

PUBLIC: Final = "public"


#: The comment on what the scripts of ddl/sql/ make, which alone they replace and drop.
MADE_BY: Final = "made by sqla_rls"


#: Written without quotes in place of a role.
ROLE_KEYWORDS: Final = frozenset({"CURRENT_USER", "CURRENT_ROLE", "SESSION_USER"})


#: NAMEDATALEN - 1: Postgres cuts longer names without an error.
MAX_NAME_BYTES: Final = 63


AUTH_SCHEMA: Final = "auth"


#: Stands for the name of the default schema where only the database knows it.
DEFAULT_SCHEMA: Final = ""


#: In the statement of a function, the schema that is the connection's default one when it is made.
CURRENT_SCHEMA: Final = "__current_schema__"


#: Where the key is that signed callers are verified with.
SECRET_SCHEMA: Final = "sqla_rls_secret"  # noqa: S105 - a name


#: Owns the key, and nothing else.
KEYHOLDER: Final = "sqla_rls_keyholder"


#: With the first role comes the second, which may ask who is calling, too.
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
    """*schema* as keys have it: the default schema is ``None``, whatever its name."""
    return None if schema == default_schema else schema


class TableKey(NamedTuple):
    """A table by its schema (``None``: the connection's default one) and name."""

    schema: str | None
    name: str

    @classmethod
    def of(cls, schema: str | None, name: str, default_schema: str | None) -> TableKey:
        """The key of a table whose schema may be named although it is *default_schema*."""
        return cls(unless_default(schema, default_schema), name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A role of the cluster, made where it is missing and never dropped by omission.

    What is left unsaid isn't managed, nor is a password: that belongs to whoever deploys.  *member_of*
    are all the roles that it is a member of; there it may SET ROLE, and inherits what *inherit* says.
    Emitted: ``CREATE ROLE name [LOGIN] [NOINHERIT] [BYPASSRLS] [IN ROLE …]``, ``ALTER ROLE``, ``GRANT``
    and ``REVOKE`` of memberships.
    """

    name: str = field(kw_only=False)
    login: bool | None = None
    inherit: bool | None = None
    bypassrls: bool | None = None
    member_of: Collection[Role | str] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise DeclarationError(
                f"Role() takes the name of a role, not an object of type {type(self.name).__name__}. "
                "Write Role('name')"
            )
        object.__setattr__(self, "name", str.__str__(self.name))
        if self.member_of is not None:
            object.__setattr__(self, "member_of", tuple(listed_roles(self.member_of)))

    def __str__(self) -> str:
        return self.name


def listed_roles(roles: Role | str | Collection[Role | str]) -> list[Role | str]:
    """One role or several, as a list.  Raises DeclarationError for what is neither a Role nor a name."""
    found: list[Role | str] = []
    for one in roles if isinstance(roles, Iterable) and not isinstance(roles, str | bytes) else [roles]:
        if not isinstance(one, Role | str):
            # A Caller has one.
            role = getattr(one, "role", None)
            fix = repr(role) if isinstance(role, str) else "Role('name') or 'name'"
            raise DeclarationError(
                f"a role is a Role or a name, not an object of type {type(one).__name__}. Write {fix}"
            )
        # The text of an enum's member would be the name of its class and its own.
        found.append(str.__str__(one) if isinstance(one, str) else one)
    return found


class Membership(NamedTuple):
    """That *member* is a member of *role*; None is whatever the server makes of it, or has no word for."""

    role: str
    member: str
    admin: bool = False
    inherit: bool | None = None
    set: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSecurity:
    """The two flags of ``ALTER TABLE … ROW LEVEL SECURITY``, each on its own in Postgres, too."""

    table: TableKey
    enabled: bool = True
    forced: bool = False


class PolicyKey(NamedTuple):
    table: TableKey
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One row of pg_policy; *using* and *with_check* are SQL text."""

    table: TableKey
    name: str
    permissive: bool = True
    command: str = "ALL"
    roles: frozenset[str] = frozenset({PUBLIC})
    using: str | None = None
    with_check: str | None = None
    #: A database doesn't know: there, each does.
    imply_privileges: bool = field(default=True, compare=False)
    #: The user's, which is kept where it is made again.
    comment: str | None = field(default=None, compare=False)

    @property
    def key(self) -> PolicyKey:
        return PolicyKey(self.table, self.name)

    @property
    def has_star(self) -> bool:
        """Whether there may be a ``*`` in it that Postgres expands; it may be another."""
        return "*" in f"{self.using} {self.with_check}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SQLFunction:
    """One row of pg_proc; *settings* are its own, as in proconfig."""

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
    #: The user's, which is kept where it is made again.
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
    #: The user's, which are kept where it is made again.
    comment: str | None = field(default=None, compare=False)
    column_comments: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    @property
    def key(self) -> TableKey:
        return TableKey(self.schema, self.name)

    @property
    def object(self) -> ObjectKey:
        """As a privilege has it: there, a view is a table."""
        return ObjectKey("TABLE", *self.key)


class SequenceKey(NamedTuple):
    """A sequence by its name, or by the table and column that own it, since Postgres chose the name then."""

    schema: str | None
    name: str
    column: str | None = None

    @property
    def table(self) -> TableKey:
        return TableKey(self.schema, self.name)


class CalledSequence(NamedTuple):
    """That a column default of *table* calls a sequence, which its column doesn't own.

    With *default*, which is SQL text, the sequence is known by that column.
    """

    table: TableKey
    sequence: SequenceKey
    default: str | None = None


class ObjectKey(NamedTuple):
    """What a privilege is on."""

    object_type: str  # TABLE (or view), SEQUENCE, SCHEMA or FUNCTION; DATABASE in PUBLIC_PRIVILEGES alone
    schema: str | None  # None for a schema itself, and for the default one
    name: str  # of a function, with the types of its arguments


class Privilege(NamedTuple):
    """One privilege that one role holds on one object, as in aclexplode(); begins like an ObjectKey.

    That on a sequence begins with the table of the column that owns it, if one does.
    """

    object_type: str
    schema: str | None
    name: str
    grantee: str
    privilege: str
    column: str | None = None
    grantable: bool = False
    #: Who gave it, where that isn't the owner.
    grantor: str | None = None

    @property
    def object(self) -> ObjectKey:
        return ObjectKey(*self[:3])


class DefaultPrivilege(NamedTuple):
    """One privilege on objects yet to be made, as in ``ALTER DEFAULT PRIVILEGES``.

    It is about what the role that runs the migrations will make.
    """

    object_type: str  # TABLES, SEQUENCES, FUNCTIONS, TYPES or SCHEMAS
    schema: str | None  # None: wherever it is made; or DEFAULT_SCHEMA
    grantee: str
    privilege: str


#: What Postgres gives everybody on what is made, until that is revoked.
BUILT_IN_DEFAULTS: Final = frozenset(
    {
        DefaultPrivilege("FUNCTIONS", None, PUBLIC, "EXECUTE"),
        DefaultPrivilege("TYPES", None, PUBLIC, "USAGE"),
    }
)


#: What Postgres gives everybody, CREATE up to version 14, and one caller can lay traps for another with:
#: a temporary table that hides the real one, a function that is found before Postgres' own.
PUBLIC_PRIVILEGES: Final = frozenset(
    {
        Privilege("DATABASE", None, "", PUBLIC, "TEMPORARY"),  # the one at hand, whatever its name
        Privilege("SCHEMA", None, "public", PUBLIC, "CREATE"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything that is managed, of the models or of a database."""

    roles: Mapping[str, Role] = field(default_factory=dict)
    memberships: frozenset[Membership] = frozenset()
    auth_functions: bool = False
    row_security: Mapping[TableKey, RowSecurity] = field(default_factory=dict)
    #: The partitions and inheritance children of each table, but not theirs.
    heirs: Mapping[TableKey, Collection[TableKey]] = field(default_factory=dict)
    policies: Mapping[PolicyKey, Policy] = field(default_factory=dict)
    #: The tables that subqueries of an expression on a table read; unknown for SQL text.
    reads: Mapping[tuple[TableKey, str], Collection[TableKey]] = field(default_factory=dict)
    privileges: frozenset[Privilege] = frozenset()
    #: The owner of each object, as a Privilege begins; it needs no grant.
    owners: frozenset[tuple[str, str | None, str, str]] = frozenset()
    default_privileges: frozenset[DefaultPrivilege] = frozenset()
    #: The sequence of each serial column.
    sequences: frozenset[SequenceKey] = frozenset()
    #: That of each identity column, which whoever inserts needs no privilege on.
    identity_sequences: frozenset[SequenceKey] = frozenset()
    #: Those that others may share.
    called_sequences: frozenset[CalledSequence] = frozenset()
    functions: Mapping[TableKey, SQLFunction] = field(default_factory=dict)
    #: Each after those that it reads.
    views: Mapping[TableKey, View] = field(default_factory=dict)
    #: Whether PUBLIC shall hold none of PUBLIC_PRIVILEGES.
    revokes_public_privileges: bool = False
    #: The tables that declare anything: these are managed whole.
    managed: frozenset[TableKey] = frozenset()
    #: The sequences, functions and views that are managed whole on their own.
    managed_objects: frozenset[ObjectKey] = frozenset()
    #: On a schema, which is shared, that is what these roles hold.
    managed_grantees: frozenset[tuple[ObjectKey, str]] = frozenset()
    #: What kinds of default privileges of which roles are managed whole.
    managed_defaults: frozenset[tuple[str, str]] = frozenset()

    @property
    def owned_sequences(self) -> frozenset[SequenceKey]:
        """Those of the serial columns, and of the identity columns."""
        return self.sequences | self.identity_sequences

    @property
    def sequences_of_columns(self) -> frozenset[SequenceKey]:
        """The same, and those on which privileges are declared by their columns."""
        return self.owned_sequences | {
            SequenceKey(one.schema, one.name, one.column)
            for one in self.privileges
            if one.object_type == "SEQUENCE" and one.column is not None
        }

    def objects_of(self, tables: Collection[TableKey]) -> set[ObjectKey]:
        """*tables*, and the sequences that their columns own."""
        owners = {one.table for one in self.owned_sequences}
        return {
            *(ObjectKey("TABLE", *table) for table in tables),
            *(ObjectKey("SEQUENCE", *table) for table in tables if table in owners),
        }

    def before_making(self, objects: Collection[ObjectKey]) -> Self:
        """As if *objects* weren't there yet."""
        return replace(
            self,
            privileges=frozenset(one for one in self.privileges if one.object not in objects),
            owners=frozenset(one for one in self.owners if ObjectKey(*one[:3]) not in objects),
        )

    def without(self, objects: Collection[ObjectKey]) -> Self:
        """The same, but for the functions and views among *objects*, and what is granted on them."""
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
        """Of PUBLIC_PRIVILEGES, which there are."""
        held = {one._replace(grantor=None) for one in self.privileges}
        return tuple(sorted(one.privilege for one in PUBLIC_PRIVILEGES & held))

    def heirs_of(self, tables: Collection[TableKey]) -> dict[TableKey, set[TableKey]]:
        """The partitions and heirs of *tables*, however deep, each with those of *tables* that it is one of.

        One of *tables* itself is left out, and so is what it alone has.
        """
        found: dict[TableKey, set[TableKey]] = {}
        waiting = [(table, heir) for table in tables for heir in self.heirs.get(table, ())]
        for table, heir in waiting:  # which grows
            if heir not in tables and table not in found.setdefault(heir, set()):
                found[heir].add(table)
                waiting += [(table, one) for one in self.heirs.get(heir, ())]
        return found

    def groups_of(self, roles: Collection[str]) -> set[str]:
        """*roles*, and those that they are members of, however far."""
        found = {*roles}
        while more := {one.role for one in self.memberships if one.member in found} - found:
            found |= more
        return found

    def policies_of(self, table: TableKey) -> list[Policy]:
        return [policy for policy in self.policies.values() if policy.table == table]

    def with_policies(self, policies: Iterable[Policy]) -> Snapshot:
        return replace(self, policies={policy.key: policy for policy in policies})


def may_read(sql: str) -> bool:
    """Whether there may be a subquery in *sql* that reads a table: none does without either word."""
    return any(word in sql.lower() for word in ("from", "table"))


def members_last(roles: Mapping[str, Role]) -> list[Role]:
    """*roles*, each after those that it is a member of."""
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


def callers(roles: Iterable[Role | str]) -> set[str]:
    """The roles of those who call an application whose policies name *roles*; everyone is in PUBLIC."""
    return {PUBLIC, *BROUGHT_ALONG, *BROUGHT_ALONG.values(), *map(str, roles)}
