"""The privileges to grant and to revoke.

All privileges on a table with declarations are managed, also those on the sequences that its columns own.
Undeclared privileges are revoked, unless a policy implies them.  Schemas, and sequences that no column owns,
are shared: only the privileges that dropped policies implied are revoked there.  Those of a role of another
program stay, and are granted only if they are missing.

The declarations of a parent cover its partitions and inheritance children without declarations.  Access
through the parent needs no privilege on them, and direct access bypasses the policies of the parent.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from sqla_rls.diff.implied import implied_privileges, wanted_privileges
from sqla_rls.snapshot import (
    AUTH_SCHEMA,
    BROUGHT_ALONG,
    BUILT_IN_DEFAULTS,
    PUBLIC,
    ROLE_KEYWORDS,
    DefaultPrivilege,
    ObjectKey,
    Policy,
    Privilege,
    SequenceKey,
    Snapshot,
    TableKey,
    callers,
    named_by,
)

#: PUBLIC has it in a new database.
BUILT_IN = Privilege("SCHEMA", None, "public", PUBLIC, "USAGE")
ON_AUTH = ObjectKey("SCHEMA", None, AUTH_SCHEMA)


class PrivilegeChanges(NamedTuple):
    """The changes of privileges, with what the next database may need."""

    grants: frozenset[Privilege]
    revokes: frozenset[Privilege]
    #: The effects of default privileges on objects that don't exist yet.
    revokes_on_new: frozenset[Privilege]
    #: The PUBLIC_PRIVILEGES to revoke.
    public_revokes: tuple[str, ...]
    default_grants: frozenset[DefaultPrivilege]
    default_revokes: frozenset[DefaultPrivilege]
    #: The privileges that only the owner of a schema can grant.
    left_out: frozenset[Privilege]
    #: The privileges on schemas that a new role needs, by grantee, even if this database has them.
    on_schemas: Mapping[str, frozenset[Privilege]]

    def with_new_roles(self, roles: Collection[str]) -> PrivilegeChanges:
        """Return the changes with all privileges on schemas that the new *roles* need."""
        return self._replace(grants=self.grants.union(*(self.on_schemas.get(role, ()) for role in roles)))


def diff_privileges(
    live: Snapshot,
    declared: Snapshot,
    *,
    policies_before: Collection[Policy],
    policies_elsewhere: Collection[Policy],
    default_schema: str,
    current_user: str | None,
    dropped: Collection[TableKey],
    made_auth_functions: bool,
    out_of_reach: Collection[str],
) -> PrivilegeChanges:
    """Return the changes of privileges that turn *live* into *declared*.

    A privilege on a schema is granted when the first policies need it, even if this database has it: another
    database may not.  On a schema *out_of_reach* of the migrating role, only these grants are part of the
    result.

    Args:
        live: the database.
        declared: the models.
        policies_before: the live policies on tables that the models manage.
        policies_elsewhere: the other live policies.
        default_schema: the default schema.
        current_user: the migrating role, which needs no grants.
        dropped: the tables that the migration drops.
        made_auth_functions: whether an earlier revision creates the auth functions.
        out_of_reach: the schemas on which the migrating role may not grant.
    """
    auth_functions = declared.auth_functions or live.auth_functions

    def implied(
        policies: Collection[Policy], *, auth_functions: bool = auth_functions, on_tables: bool = True
    ) -> frozenset[Privilege]:
        if not policies:
            return frozenset()
        return frozenset(
            implied_privileges(
                policies,
                declared,
                default_schema=default_schema,
                auth_functions=auth_functions,
                on_tables=on_tables,
            )
        )

    there = {owner[:3] for owner in live.owners}
    managed = (
        live.objects_of(declared.managed) | declared.objects_of(declared.managed) | declared.managed_objects
    )
    new = {ObjectKey("TABLE", *table) for table in declared.managed - live.row_security.keys()}
    new |= declared.managed_objects - there
    # The next database may have default privileges that this one has revoked, or that are declared now.
    given = given_by_default(
        live.default_privileges | declared.default_privileges | BUILT_IN_DEFAULTS,
        new,
        declared.sequences_of_columns - live.owned_sequences,
        default_schema,
    )
    # DROP TABLE drops the sequences of the table, and all privileges on them.
    gone = live.objects_of(dropped)
    heirs = live.heirs_of(declared.managed)
    covered = {ObjectKey("TABLE", *heir) for heir in heirs}
    held = _held(live, declared, managed | covered)
    wanted = wanted_privileges(declared, default_schema=default_schema)
    allowed = implied(policies_elsewhere)

    def undeclared(privileges: Iterable[Privilege]) -> set[Privilege]:
        return {
            one
            for one in set(privileges) - wanted
            if (one[:3] in managed or (one.object, one.grantee) in declared.managed_grantees)
            and not one.grantee.startswith("pg_")
            and _plain(one) not in allowed
        }

    reached = _reached(live, declared) - {current_user}
    past_parents = {
        one
        for one in (held if covered else ())
        if one[:3] in covered
        and one.grantee in reached
        and _passes_parent(one, heirs[TableKey(one.schema, one.name)], live, declared, wanted)
    }
    implying_nothing = {policy.key for policy in declared.policies.values() if not policy.imply_privileges}
    # Only shared objects need the privileges of before.
    before = implied(
        [one for one in policies_before if not implying_nothing or one.key not in implying_nothing],
        on_tables=False,
    )
    obsolete = {
        one
        for one in (_with_those_brought_along(before) & held)
        - _with_those_brought_along(implied(policies_elsewhere))
        - wanted
        - {BUILT_IN}
        if one.object_type in ("SCHEMA", "SEQUENCE")
        and one.object not in managed
        and one.grantee not in declared.roles_of_others
    }
    on_schemas = {one for one in wanted - {BUILT_IN} if one.object_type == "SCHEMA"}
    needed_before = (
        before
        if not implying_nothing and made_auth_functions
        else implied(policies_before, auth_functions=auth_functions and made_auth_functions, on_tables=False)
    )
    new_on_schemas = on_schemas - _with_those_brought_along(needed_before)
    first = {
        one
        for one in new_on_schemas
        & (implied(declared.policies.values(), on_tables=False) if new_on_schemas else set())
        if one.grantee not in declared.roles_of_others
    }
    to_grant = {
        one
        for one in (wanted - held) | on_schemas
        if one.grantee != current_user and one[:4] not in live.owners
    }
    beyond = {ObjectKey("SCHEMA", None, name) for name in out_of_reach}
    left_out = {one for one in to_grant - held - first if one.object in beyond}
    grants = (to_grant & ((wanted - held) | first)) - left_out
    revokes = {one for one in undeclared(held) | past_parents | obsolete if one.object not in gone | beyond}
    revokes = _of_every_grantor(revokes, live)
    again = _revoked_along(held & wanted, grants, revokes)
    return PrivilegeChanges(
        grants=frozenset(grants | again),
        revokes=frozenset(revokes | again),
        revokes_on_new=frozenset(one for one in undeclared(given) if one.grantee != current_user),
        public_revokes=live.held_by_public if declared.revokes_public_privileges else (),
        default_grants=declared.default_privileges - live.default_privileges,
        default_revokes=frozenset(
            one
            for one in live.default_privileges - declared.default_privileges
            if (one.object_type, one.grantee) in declared.managed_defaults
        ),
        left_out=frozenset(left_out),
        on_schemas={
            grantee: frozenset(one for one in to_grant & on_schemas if one.grantee == grantee)
            for grantee in {one.grantee for one in on_schemas}
        },
    )


def _held(live: Snapshot, declared: Snapshot, whole_objects: Collection[ObjectKey]) -> set[Privilege]:
    """Return the privileges of the database, as far as the models decide about them.

    On shared objects, grantors are left to the owner, and so are the grant options of undeclared roles.
    """
    return {
        one
        if one[:3] in whole_objects
        else one._replace(grantor=None)
        if (one.object, one.grantee) in declared.managed_grantees
        else _plain(one)
        for one in live.privileges
    }


def _revoked_along(
    kept: Collection[Privilege], grants: Collection[Privilege], revokes: Collection[Privilege]
) -> set[Privilege]:
    """Return those of *kept* that the statements of the others revoke, too."""
    # REVOKE on a table also revokes the privilege on each column, and so does the downgrade of a GRANT.
    whole = {one[:5] for one in (*grants, *revokes) if one.column is None}
    # The revoke of what another role has granted also revokes what the owner has granted.
    granted_twice = {_plain(one) for one in revokes if one.grantor is not None}
    return {
        one
        for one in (kept if whole or granted_twice else ())
        if _plain(one) in granted_twice or (one.column is not None and one[:5] in whole)
    }


def _passes_parent(
    one: Privilege,
    parents: Iterable[TableKey],
    live: Snapshot,
    declared: Snapshot,
    wanted: Collection[Privilege],
) -> bool:
    """Return whether a privilege on a table gives rows that a parent of the table hides."""
    return not all(
        _is_open_to(one.grantee, parent, live, declared) and _is_wanted_on(parent, one, wanted)
        for parent in parents
    )


def _reached(live: Snapshot, declared: Snapshot) -> set[str]:
    """Return the roles that must not hold privileges on covered tables: declared ones, and their groups."""
    named = {
        *declared.roles,
        *(named_by(declared.policies.values()) - ROLE_KEYWORDS),
        *(one.grantee for one in declared.privileges),
        *(role for _, role in (*declared.managed_defaults, *declared.managed_grantees)),
    }
    return {role for role in live.groups_of(callers(named)) if not role.startswith("pg_")}


def _is_open_to(role: str, table: TableKey, live: Snapshot, declared: Snapshot) -> bool:
    """Return whether *role* sees every row of *table*."""
    flags = declared.row_security.get(table) or live.row_security.get(table)
    if flags is None or not flags.enabled:
        return True
    return role in live.roles and bool(live.roles[role].bypassrls)


def _is_wanted_on(table: TableKey, one: Privilege, wanted: Collection[Privilege]) -> bool:
    on_table = _plain(one)._replace(schema=table.schema, name=table.name)
    return on_table in wanted or on_table._replace(column=None) in wanted


def _with_those_brought_along(implied: frozenset[Privilege]) -> frozenset[Privilege]:
    """Return *implied*, and USAGE on schema ``auth`` for the roles that are declared with its grantees."""
    return implied | {
        one._replace(grantee=BROUGHT_ALONG[one.grantee])
        for one in implied
        if one[:3] == ON_AUTH and one.grantee in BROUGHT_ALONG
    }


def _of_every_grantor(revokes: Iterable[Privilege], live: Snapshot) -> set[Privilege]:
    """Return *revokes* with those of other grantors: on shared objects, the comparison ignores grantors."""
    grantors: dict[Privilege, list[str]] = {}
    for one in live.privileges:
        if one.grantor is not None:
            grantors.setdefault(_plain(one), []).append(one.grantor)
    return {
        found
        for one in revokes
        for found in (one, *(one._replace(grantor=name) for name in grantors.get(_plain(one), ())))
    }


def _plain(privilege: Privilege) -> Privilege:
    return privilege._replace(grantable=False, grantor=None)


def given_by_default(
    defaults: Collection[DefaultPrivilege],
    objects: Iterable[ObjectKey],
    sequences: Iterable[SequenceKey],
    default_schema: str,
) -> Iterator[Privilege]:
    """Yield the privileges that *defaults* give on new *objects*, and on new *sequences* of columns."""
    owned = [(ObjectKey("SEQUENCE", *one.table), one.column) for one in sequences]
    by_column = {found for found, _ in owned}
    made: list[tuple[ObjectKey, str | None]] = [*owned]
    made += [(found, None) for found in objects if found not in by_column]
    for one in defaults:
        for found, column in made:
            if one.object_type == f"{found.object_type}S" and one.schema in (
                None,
                found.schema or default_schema,
            ):
                yield Privilege(*found, one.grantee, one.privilege, column)
