"""Statements about the privileges that PUBLIC holds on the database and on schema public."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import String
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql.compiler import DDLCompiler

from sqla_rls.ddl.script import filled_script
from sqla_rls.exc import DeclarationError
from sqla_rls.snapshot import PUBLIC_PRIVILEGES

#: A revision revokes all of them, independent of the privileges that PUBLIC has in this database.
PUBLIC_PRIVILEGE_NAMES = tuple(sorted(one.privilege for one in PUBLIC_PRIVILEGES))


class PublicPrivileges(ExecutableDDLElement):
    """Grants *privileges*, some of PUBLIC_PRIVILEGES, to PUBLIC; or revokes them."""

    def __init__(self, privileges: Iterable[str], *, revoke: bool = False) -> None:
        self.privileges, self.revoke = sorted(privileges), revoke
        if unknown := {*self.privileges} - {*PUBLIC_PRIVILEGE_NAMES}:
            verb = "revoke" if revoke else "grant"
            raise DeclarationError(
                f"op.{verb}_public_privileges() doesn't take {', '.join(sorted(unknown))}: it takes "
                f"{' and '.join(PUBLIC_PRIVILEGE_NAMES)}. Use op.{verb}() for other privileges"
            )


@compiles(PublicPrivileges, "postgresql")
def _public_privileges(statement: PublicPrivileges, compiler: DDLCompiler, **kw: Any) -> str:
    literal = compiler.sql_compiler.render_literal_value
    verb, preposition = ("REVOKE", "FROM") if statement.revoke else ("GRANT", "TO")
    return filled_script(
        "public_privileges.sql",
        compiler,
        f"{verb} {', '.join(statement.privileges)} {preposition} PUBLIC",
        verb=verb,
        preposition=preposition,
        privileges=", ".join(literal(privilege, String()) for privilege in statement.privileges),
        held=str(statement.revoke).lower(),
    )
