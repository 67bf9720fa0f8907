"""The roles of a scratch server: their attributes, memberships and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import psycopg
from psycopg import sql

_ATTRIBUTES: Final = ("superuser", "inherit", "createrole", "createdb", "login", "replication", "bypassrls")

_Connection = psycopg.Connection[Any]


def create_roles(connection: _Connection, roles: Sequence[Mapping[str, Any]], left_out: list[str]) -> None:
    """Create the roles that the server lacks, as a dump has them, with their memberships and settings."""
    known = _names(connection)
    new = [role for role in roles if role["name"] not in known]
    for role in new:
        attributes = [sql.SQL("" if role[one] else "NO") + sql.SQL(one.upper()) for one in _ATTRIBUTES]
        name = sql.Identifier(role["name"])
        try:
            connection.execute(sql.SQL("CREATE ROLE {} {}").format(name, sql.SQL(" ").join(attributes)))
        except psycopg.Error as error:
            # A provider may have made a role whose name is reserved.
            reason = error.diag.message_primary
            left_out.append(f"Role {role['name']} can't be created here: {reason}.")
    known = _names(connection)
    for role in (one for one in new if one["name"] in known):
        join_groups(connection, role)
        for setting, value in role["settings"].items():
            alter = sql.SQL("ALTER ROLE {} SET ").format(sql.Identifier(role["name"]))
            set_default(connection, alter, setting, value)


def join_groups(connection: _Connection, role: Mapping[str, Any]) -> None:
    """Make the role a member of its groups."""
    known = _names(connection)
    for group in role["member_of"]:
        # An older or newer server has other predefined roles.
        if group["role"] in known:
            connection.execute(_membership(connection, role["name"], group))


def set_default(connection: _Connection, alter: sql.Composed, setting: str, value: str) -> None:
    """Set the default of a setting by *alter*, which is ``ALTER … SET``, if the server has the setting."""
    # The catalog has the value as text; a list of names comes quoted, as in SET.
    is_list = setting in ("search_path", "session_preload_libraries", "local_preload_libraries")
    attempt(
        connection,
        alter
        + sql.Identifier(setting)
        + sql.SQL(" TO ")
        + (as_sql(value or "''") if is_list else sql.Literal(value)),
    )


def attempt(connection: _Connection, statement: sql.Composed) -> None:
    """Run *statement*, unless the server refuses: one of another version may lack a role or a setting."""
    with suppress(psycopg.Error):
        connection.execute(statement)


def as_sql(text: Any) -> sql.SQL:
    return sql.SQL(text)


def _names(connection: _Connection) -> set[str]:
    return {row[0] for row in connection.execute("SELECT rolname FROM pg_catalog.pg_roles")}


def _membership(connection: _Connection, member: str, group: Mapping[str, Any]) -> sql.Composed:
    options = [f"ADMIN {_boolean(group['admin'])}"]
    if connection.info.server_version >= 160000:
        options += [f"INHERIT {_boolean(group['inherit'])}", f"SET {_boolean(group['set'])}"]
    elif not group["admin"]:
        options = []
    grant = sql.SQL("GRANT {} TO {}").format(sql.Identifier(group["role"]), sql.Identifier(member))
    if not options:
        return grant
    if connection.info.server_version < 160000:
        options = ["ADMIN OPTION"]
    return grant + sql.SQL(" WITH ") + sql.SQL(", ").join(map(as_sql, options))


def _boolean(value: bool) -> str:
    return "TRUE" if value else "FALSE"
