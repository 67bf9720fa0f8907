"""Supabase: its roles, the functions of its schema ``auth``, and its tables of Storage and Realtime.

Everything here belongs to Supabase.  Migrations use it, and neither create, alter nor drop it.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Boolean, Column, DateTime, MetaData, Table, Text, Uuid, cast
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import operators
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import Function

from sqla_rls.declare import expressions, ignore
from sqla_rls.declare.auth import AuthFunction, scalar_subquery
from sqla_rls.declare.base import keep_on
from sqla_rls.declare.expressions import family_of
from sqla_rls.declare.policies_only import keep_policies_only
from sqla_rls.exc import DeclarationError
from sqla_rls.snapshot import AUTH_SCHEMA, Role

__all__ = [
    "anon",
    "auth",
    "auth_uid",
    "authenticated",
    "leave_alone",
    "login_role",
    "realtime_messages",
    "realtime_topic",
    "service_role",
    "storage_objects",
    "users",
]

#: The role of callers without a token.
anon: Final = Role("anon", managed=False)
#: The role of signed-in callers.
authenticated: Final = Role("authenticated", managed=False)
#: The role of Supabase's secret keys.  It bypasses row security, so that no caller may have it.
service_role: Final = Role("service_role", managed=False)

#: The role that owns a project's database and its tables.  It bypasses row security, too.
_postgres: Final = Role("postgres", managed=False)
#: The roles of Supabase that hold privileges on the tables of a project.
_ROLES: Final = (
    "service_role",
    "postgres",
    "supabase_*",
    "authenticator",
    "dashboard_user",
    "pgbouncer",
    "pgsodium_*",
    "cli_login_*",
)
#: The schemas of Supabase, and those of the extensions that it installs.
_SCHEMAS: Final = (
    *("auth", "storage", "realtime", "_realtime", "vault", "extensions", "graphql", "graphql_public"),
    *("pgbouncer", "supabase_*", "_analytics", "_supavisor", "etl", "cron", "net", "dbdev", "repack"),
    *("pgmq", "pgmq_public", "pgsodium", "pgsodium_masks", "pgtle"),
    *("tiger", "tiger_data", "topology", "timescaledb_*", "_timescaledb_*"),
)
#: The function of the event trigger that enables row security on new tables.
_FUNCTIONS: Final = ("rls_auto_enable",)

#: The table of Supabase Auth, for foreign keys: ``ForeignKey(supabase.users.c.id)``.  Neither Alembic nor
#: ``create_all()`` creates it.
users: Final = Table("users", MetaData(), Column("id", Uuid, primary_key=True), schema=AUTH_SCHEMA)


def leave_alone(metadata: MetaData) -> None:
    """Leave all that belongs to Supabase alone, and let policies name its roles.

    It is ``ignore()`` with the schemas and the other roles of Supabase.  The roles ``anon`` and
    ``authenticated``, also by their names, are those of Supabase: no migration creates or alters them, or
    adds role ``anonymous``.

    Args:
        metadata: the MetaData of the models.
    """
    ignore.ignore(metadata, roles=_ROLES, schemas=_SCHEMAS, functions=_FUNCTIONS)
    keep_on(metadata, anon, authenticated, service_role, _postgres)
    # Without declarations, a migration still drops the policies that an earlier one has created there.
    storage_objects(metadata)
    realtime_messages(metadata)


def login_role(name: str) -> Role:
    """Return the role of an app: LOGIN, NOINHERIT, member of ``authenticated`` and ``anon`` only.

    Pass it to ``declare_roles()``.  A migration creates it without a password; ``sqla-rls set-password`` sets
    one.  Supabase's own ``authenticator`` is also a member of ``service_role``, which bypasses row security.
    """
    return Role(name, login=True, inherit=False, member_of=[authenticated, anon])


class auth:
    """The functions of Supabase's schema ``auth``, for server defaults and queries.

    Emits:
        ``auth.uid()``, ``auth.jwt()``, ``auth.role()``, ``auth.email()``
    """

    @staticmethod
    def uid() -> AuthFunction[Any]:
        """Return the ``sub`` claim as uuid; NULL without a token."""
        return AuthFunction("uid", packagenames=(AUTH_SCHEMA,), type_=Uuid())

    @staticmethod
    def jwt() -> AuthFunction[Any]:
        """Return all claims as jsonb; NULL without a token.  ``sqla_rls.jwt_claim()`` reads one of them."""
        return AuthFunction("jwt", packagenames=(AUTH_SCHEMA,), type_=JSONB())

    @staticmethod
    def role() -> AuthFunction[str]:
        """Return the ``role`` claim; NULL without a token.  For a policy, ``roles=`` is safer."""
        return AuthFunction("role", packagenames=(AUTH_SCHEMA,), type_=Text())

    @staticmethod
    def email() -> AuthFunction[str]:
        """Return the ``email`` claim; NULL without a token."""
        return AuthFunction("email", packagenames=(AUTH_SCHEMA,), type_=Text())


class auth_uid(expressions.auth_uid):
    """A condition for the rows of the caller: the column holds ``auth.uid()``.

    ``sqla_rls.auth_uid()`` is the same on uuid columns.  On text columns it calls ``auth.user_id()``, which
    Supabase lacks.

    Args:
        column_: a column of uuid or text type in a class body, or its name.

    Raises:
        DeclarationError: the argument isn't a column.  A column of another type raises it when the condition
            is compiled.

    Emits:
        By the type of the column::

            (SELECT auth.uid()) = todos.user_id                      uuid
            (SELECT CAST(auth.uid() AS TEXT)) = objects.owner_id     text, varchar
    """

    inherit_cache = True


_CALLERS: Final = {
    "uuid": scalar_subquery(auth.uid()),
    "text": scalar_subquery(cast(auth.uid(), Text())),
}


@compiles(auth_uid)
def _auth_uid(element: auth_uid, compiler: SQLCompiler, **kw: Any) -> str:
    caller = _CALLERS.get(family_of(element.column) or "")
    if caller is None:
        raise DeclarationError(
            f"supabase.auth_uid() failed: {element.column} is {element.column.type!r}, and the ids of "
            "Supabase Auth are uuids. Make the column Uuid() or Text(), or compare it with jwt_claim()"
        )
    sides = caller, element.column.self_group(operators.eq)
    return " = ".join(compiler.process(side, **kw) for side in sides)


def storage_objects(metadata: MetaData) -> Table:
    """Return the table ``storage.objects``, whose policies decide about files.

    Migrations of *metadata* manage the policies that ``declare_on()`` adds to it.  They don't change the
    table, its grants, and policies of other origin.  ``create_all()`` ignores the policies.

    Args:
        metadata: the MetaData of the models.
    """
    return keep_policies_only(
        metadata,
        Table(
            "objects",
            MetaData(),
            Column("id", Uuid, primary_key=True),
            Column("bucket_id", Text),
            Column("name", Text),
            Column("owner_id", Text),
            Column("created_at", DateTime(timezone=True)),
            Column("updated_at", DateTime(timezone=True)),
            Column("last_accessed_at", DateTime(timezone=True)),
            Column("metadata", JSONB),
            Column("path_tokens", ARRAY(Text)),
            Column("version", Text),
            Column("user_metadata", JSONB),
            schema="storage",
        ),
    )


def realtime_messages(metadata: MetaData) -> Table:
    """Return the table ``realtime.messages``, whose policies decide about private channels.

    Migrations manage its policies as those of ``storage_objects()``.

    Args:
        metadata: the MetaData of the models.
    """
    return keep_policies_only(
        metadata,
        Table(
            "messages",
            MetaData(),
            Column("id", Uuid, primary_key=True),
            Column("topic", Text),
            Column("extension", Text),
            Column("payload", JSONB),
            Column("event", Text),
            Column("private", Boolean),
            Column("updated_at", DateTime),
            Column("inserted_at", DateTime, primary_key=True),
            schema="realtime",
        ),
    )


def realtime_topic() -> Function[str]:
    """Return the topic of the channel that a caller joins, for policies of ``realtime_messages()``.

    Emits:
        ``realtime.topic()``
    """
    return Function("topic", packagenames=("realtime",), type_=Text())
