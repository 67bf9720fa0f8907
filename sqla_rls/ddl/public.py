"""How it is spelled what PUBLIC holds in the database and no longer shall."""

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

_NAMES = {one.privilege for one in PUBLIC_PRIVILEGES}


class PublicPrivileges(ExecutableDDLElement):
    """Grants PUBLIC what *privileges* name of PUBLIC_PRIVILEGES; or revokes it."""

    def __init__(self, privileges: Iterable[str], *, revoke: bool = False) -> None:
        self.privileges, self.revoke = sorted(privileges), revoke
        if unknown := {*self.privileges} - _NAMES:
            raise DeclarationError(f"{', '.join(unknown)} isn't what was revoked from PUBLIC")


class RevokeFromPublic(PublicPrivileges):
    """Revokes them all."""

    def __init__(self) -> None:
        super().__init__(_NAMES, revoke=True)


@compiles(PublicPrivileges, "postgresql")
def _public_privileges(statement: PublicPrivileges, compiler: DDLCompiler, **kw: Any) -> str:
    literal = compiler.sql_compiler.render_literal_value
    verb, preposition = ("REVOKE", "FROM") if statement.revoke else ("GRANT", "TO")
    return filled_script(
        "public_privileges.sql",
        compiler,
        verb=verb,
        preposition=preposition,
        privileges=", ".join(literal(privilege, String()) for privilege in statement.privileges),
        held=str(statement.revoke).lower(),
    )
