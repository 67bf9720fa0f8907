"""Objects of other owners: ``ignore(Base.metadata, policies=…, roles=…, schemas=…)`` and more."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import NamedTuple, TypeVar

from sqlalchemy import MetaData

from sqla_rls.declare.base import keep_on, kept_on
from sqla_rls.exc import DeclarationError
from sqla_rls.snapshot import AUTH_SCHEMA, PUBLIC, PUBLIC_PRIVILEGES, Snapshot, TableKey

_S = TypeVar("_S", bound=Snapshot)


def ignore(
    metadata: MetaData,
    *,
    policies: Iterable[str] = (),
    roles: Iterable[str] = (),
    schemas: Iterable[str] = (),
    functions: Iterable[str] = (),
    views: Iterable[str] = (),
) -> None:
    """Leave the objects of other owners alone: names, or patterns of a shell (``fnmatch``).

    Autogenerate neither drops nor alters the *policies*, and they imply no privileges.  It leaves alone the
    *roles* with their privileges, and all objects in the *schemas*, with ``include_schemas`` also
    the tables that no model declares.  A policy may name such a role if it is
    declared with ``Role(…, managed=False)``.  It leaves alone the *functions* and
    *views*, also those that a revision made, without a warning.

    Args:
        metadata: the MetaData of the models.
        policies: names or patterns of policies.
        roles: names or patterns of roles.
        schemas: names or patterns of schemas.
        functions: names or patterns of functions.
        views: names or patterns of views.

    Raises:
        DeclarationError: a pattern of *roles* isn't text.  Autogenerate raises it for an object that the
            models declare, too.
    """
    kinds = (policies, roles, schemas, functions, views)
    given = [[one] if isinstance(one, str) else list(one) for one in kinds]
    if any(not isinstance(pattern, str) for pattern in given[1]):
        raise DeclarationError(
            "the roles can't be ignored: ignore(roles=…) takes names and patterns. Write a role by its name"
        )
    keep_on(metadata, Ignored(*map(tuple, given)))


class Ignored(NamedTuple):
    """The patterns of a MetaData, or of several."""

    policies: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    schemas: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    views: tuple[str, ...] = ()

    @classmethod
    def by(cls, metadatas: Iterable[MetaData]) -> Ignored:
        found = kept_on(metadatas, cls)
        kinds = zip(
            *((one.policies, one.roles, one.schemas, one.functions, one.views) for one in found), strict=True
        )
        return cls(*(sum(patterns, ()) for patterns in kinds))

    def role(self, name: str | None) -> bool:
        return name is not None and name != PUBLIC and _matches(name, self.roles)

    def schema(self, name: str) -> bool:
        return _matches(name, self.schemas)

    def function(self, name: str) -> bool:
        return _matches(name, self.functions)

    def view(self, name: str) -> bool:
        return _matches(name, self.views)

    def refuse(self, declared: Snapshot, default_schema: str) -> None:
        """Raise DeclarationError for an object that is ignored and *declared*."""
        if self == Ignored():
            return
        for kind, name in self._declared(declared, default_schema):
            raise DeclarationError(
                f"{kind} {name!r} can't be compared: it is declared, and matches a pattern of ignore(). "
                "Remove the declaration or the pattern"
            )

    def _declared(self, declared: Snapshot, default_schema: str) -> Iterator[tuple[str, str]]:
        yield from (("policy", key.name) for key in declared.policies if _matches(key.name, self.policies))
        yield from (("function", key.name) for key in declared.functions if self.function(key.name))
        yield from (("view", key.name) for key in declared.views if self.view(key.name))
        roles = {
            *declared.roles,
            *(role for policy in declared.policies.values() for role in policy.roles - declared.ungranted),
            *(privilege.grantee for privilege in declared.privileges),
            *(role for _, role in (*declared.managed_defaults, *declared.managed_grantees)),
            *(str(group) for role in declared.roles.values() for group in role.member_of or ()),
        }
        yield from (("role", role) for role in sorted(roles) if self.role(role))
        schemas = {
            *(table.schema or default_schema for table in declared.managed),
            *(one.schema or default_schema for one in declared.managed_objects),
            *(one.name for one, _ in declared.managed_grantees),
            *(["public"] if declared.revokes_public_privileges else []),
        }
        yield from (("schema", schema) for schema in sorted(schemas) if self.schema(schema))

    def without(self, snapshot: _S, *, keep: Collection[TableKey] = ()) -> _S:
        """Return *snapshot* without the ignored objects; those on tables to *keep* stay."""
        if self == Ignored():
            return snapshot
        kept = snapshot.objects_of(keep)
        return replace(
            snapshot,
            auth_functions=snapshot.auth_functions and not self.schema(AUTH_SCHEMA),
            memberships=frozenset(one for one in snapshot.memberships if not self.role(one.role)),
            policies={
                key: policy
                for key, policy in snapshot.policies.items()
                if key.table in keep or not _matches(key.name, self.policies)
            },
            privileges=frozenset(
                one
                for one in snapshot.privileges
                if one.object in kept
                or one._replace(grantor=None) in PUBLIC_PRIVILEGES
                or not (
                    self.role(one.grantee)
                    or self.role(one.grantor)
                    or (one.object_type == "SCHEMA" and self.schema(one.name))
                )
            ),
            default_privileges=frozenset(
                one for one in snapshot.default_privileges if not self.role(one.grantee)
            ),
        )


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
