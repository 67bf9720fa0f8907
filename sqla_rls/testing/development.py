"""A database for development, with the roles of a hosted Postgres.

The owner of the database isn't a superuser, and runs the migrations.  The login role of the app owns nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from secrets import token_hex
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.errors import DependentObjectsStillExist
from sqlalchemy import URL

from sqla_rls.testing.postgres import Server

__all__ = ["DevelopmentDatabase", "development_database"]

CALLERS: Final = ("authenticated", "anonymous")


@dataclass(frozen=True, slots=True, kw_only=True)
class DevelopmentDatabase:
    """The URLs of one database, for SQLAlchemy with psycopg.

    Attributes:
        superuser: for statements that only a superuser can run.
        owner: for Alembic.
        app: for the sessions of the app.
    """

    superuser: URL
    owner: URL
    app: URL


@contextmanager
def development_database(server: Server) -> Iterator[DevelopmentDatabase]:
    """Create a database, its owner and a login role for the app; drop them at the end.

    On a shared server, the names have a random suffix, and the roles have a random password.  On a server
    that this program has started, the names have a suffix only if one of them exists already.  The function
    creates the roles ``authenticated`` and ``anonymous`` if they are missing, and drops them unless other
    objects or members use them.

    Args:
        server: the server, with the URL of a superuser.

    Yields:
        The URLs.

    Raises:
        psycopg.Error: Postgres refuses a statement, for example if the URL isn't a superuser's.

    Emits:
        As the superuser, ``CREATE ROLE owner LOGIN CREATEROLE`` and ``CREATE DATABASE app OWNER owner``;
        from PostgreSQL 16 on, also ``ALTER ROLE owner SET createrole_self_grant = 'set'``.  As the owner,
        ``CREATE ROLE app LOGIN NOINHERIT``, ``CREATE ROLE authenticated`` and ``GRANT authenticated TO app``,
        ``WITH INHERIT FALSE`` from PostgreSQL 16 on; before, also ``GRANT authenticated TO owner``.  The
        superuser grants the roles that exist already, to the owner, too.  Where the server has
        pg_session_jwt, the superuser creates it and grants USAGE on its schema to the owner.
    """
    is_shared = server.socket_directory is None
    created: list[str] = []
    logins: list[str] = []
    with ExitStack() as undo:
        superuser = undo.enter_context(_connected(server.url()))
        suffix = f"_{token_hex(3)}" if is_shared or _is_taken(superuser) else ""
        database, owner, app = (f"{name}{suffix}" for name in ("app", "owner", "app"))
        urls = DevelopmentDatabase(
            superuser=server.url(database),
            owner=server.url(database, user=owner, password=token_hex() if is_shared else None),
            app=server.url(database, user=app, password=token_hex() if is_shared else None),
        )
        # Runs last, since the owner is a member of the roles that it creates.
        undo.callback(_drop_unused, superuser, created)
        # Runs after the database is dropped, since grants in it prevent DROP ROLE.
        undo.callback(_drop_logins, superuser, logins)
        _create_login(superuser, urls.owner, sql.SQL("LOGIN CREATEROLE"))
        logins.append(owner)
        if server.version >= 16:
            # The owner may SET ROLE to the roles that it creates, for commands such as sqla-rls why.
            self_grant = sql.SQL("ALTER ROLE {} SET createrole_self_grant = 'set'")
            superuser.execute(self_grant.format(sql.Identifier(owner)))
        server.create_database(database, owner=owner)
        undo.callback(server.drop_database, database)
        _offer_extension(urls)
        with _connected(urls.owner) as creator:
            _create_login(creator, urls.app, sql.SQL("LOGIN NOINHERIT"))
            logins.append(app)
            for role in CALLERS:
                if _exists(creator, role):
                    _grant(superuser, role, [app, owner], server.version)
                    continue
                creator.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(role)))
                created.append(role)
                # Before PostgreSQL 16, the owner isn't a member of the roles that it creates either.
                _grant(creator, role, [app] if server.version >= 16 else [app, owner], server.version)
        yield urls


def _grant(grantor: psycopg.Connection[Any], role: str, logins: Sequence[str], version: int) -> None:
    for login in logins:
        statement = sql.SQL("GRANT {} TO {}").format(sql.Identifier(role), sql.Identifier(login))
        if version >= 16:
            statement += sql.SQL(" WITH INHERIT FALSE")
        grantor.execute(statement)


def _connected(url: URL) -> psycopg.Connection[Any]:
    arguments, options = url.get_dialect()().create_connect_args(url)
    return psycopg.connect(*arguments, autocommit=True, **options)


def _offer_extension(urls: DevelopmentDatabase) -> None:
    # If the owner created the extension, only superusers could use its schema.
    with _connected(urls.superuser) as superuser:
        found = superuser.execute("SELECT FROM pg_available_extensions WHERE name = 'pg_session_jwt'")
        if found.rowcount:
            superuser.execute("CREATE EXTENSION IF NOT EXISTS pg_session_jwt")
            grant = sql.SQL("GRANT USAGE ON SCHEMA auth TO {} WITH GRANT OPTION")
            superuser.execute(grant.format(sql.Identifier(urls.owner.username or "")))


def _create_login(creator: psycopg.Connection[Any], url: URL, options: sql.SQL) -> None:
    statement = sql.SQL("CREATE ROLE {} {}").format(sql.Identifier(url.username or ""), options)
    if url.password:
        statement += sql.SQL(" PASSWORD {}").format(sql.Literal(url.password))
    creator.execute(statement)


def _exists(connection: psycopg.Connection[Any], role: str) -> bool:
    return bool(connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).rowcount)


def _is_taken(superuser: psycopg.Connection[Any]) -> bool:
    found = superuser.execute("SELECT FROM pg_database WHERE datname = 'app'")
    return bool(found.rowcount) or any(_exists(superuser, role) for role in ("app", "owner"))


def _drop_logins(superuser: psycopg.Connection[Any], names: list[str]) -> None:
    for name in reversed(names):
        # From PostgreSQL 16 on, memberships that the role has granted prevent DROP ROLE.
        superuser.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
        superuser.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def _drop_unused(superuser: psycopg.Connection[Any], roles: list[str]) -> None:
    for role in roles:
        members = superuser.execute(
            "SELECT FROM pg_auth_members WHERE roleid = (SELECT oid FROM pg_roles WHERE rolname = %s)", [role]
        )
        # DROP ROLE would end the memberships of others, without an error.
        if not members.rowcount:
            with suppress(DependentObjectsStillExist):
                superuser.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))
