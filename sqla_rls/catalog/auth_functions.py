"""Reads the functions of schema ``auth``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sqlalchemy import Connection

from sqla_rls.catalog.query import fetch_rows, schemas_of, sql_file, trying
from sqla_rls.ddl.auth_functions import ExpectedAuthFunctions
from sqla_rls.snapshot import AUTH_FUNCTIONS, KEYHOLDER, TableKey


class AuthFunctions(NamedTuple):
    """The functions of schema ``auth``, of the extension or of sqla_rls."""

    extension: bool
    foreign: frozenset[str]  # created by another program
    missing: frozenset[str]
    managed: frozenset[str]
    verifier: bool  # whether they verify callers
    keyholder: str | None  # the owner of the signing key; None without a key
    may_create: bool  # whether the connected role may create the missing ones
    #: The managed functions that were edited; None if they couldn't be compared.
    edited: frozenset[str] | None = frozenset()

    @property
    def signed(self) -> bool:
        return self.verifier or self.keyholder is not None

    @property
    def verifies_in_part(self) -> bool:
        return (
            not self.extension
            and bool(self.managed)
            and self.signed
            and not (self.verifier and self.keyholder)
        )

    @property
    def as_made(self) -> bool:
        """Whether no function must be created or replaced."""
        return self.settled and not self.verifies_in_part and self.edited == frozenset()

    @property
    def settled(self) -> bool:
        """Whether ``create_auth_functions`` would do nothing, or isn't allowed to."""
        return self.extension or not self.missing or not self.may_create

    def remarks(self) -> Iterator[str]:
        """Yield warnings about foreign functions, and about the key's owner."""
        if self.foreign and not self.extension:
            missing = ", ".join(sorted(self.missing)) or "none"
            yield (
                "functions of schema auth stay as they are: another program created "
                f"{', '.join(sorted(self.foreign))}; missing: {missing}. Drop them to let "
                "op.create_auth_functions() create its own"
            )
        if self.keyholder not in (None, KEYHOLDER):
            yield (
                f"{self.keyholder} and its members can sign as any caller: they can read the signing key, "
                f"which {KEYHOLDER} can't own. Never let an application log in as such a role, or have a "
                "superuser run the output of sqla-rls auth-functions --signed"
            )

    def remarks_on_edits(self) -> Iterator[str]:
        """Yield warnings about edited functions."""
        if self.verifies_in_part:
            yield "only some functions of schema auth verify callers: others were edited by hand"
        elif self.edited:
            yield f"functions of schema auth were edited by hand: {', '.join(sorted(self.edited))}"


def auth_functions(connection: Connection) -> AuthFunctions:
    """Return the functions of schema ``auth``."""
    (row,) = fetch_rows(connection, sql_file("auth_functions"), {"functions": list(AUTH_FUNCTIONS)})
    present = frozenset(row["present"])
    managed = frozenset(row["managed"])
    return AuthFunctions(
        row["extension"],
        present - managed,
        frozenset(AUTH_FUNCTIONS) - present,
        managed,
        row["verifier"],
        row["keyholder"],
        row["may_create"],
    )


def auth_in_use(
    connection: Connection,
    *,
    default_schema: str,
    tables: Iterable[TableKey],
    functions: Iterable[TableKey],
) -> bool:
    """Return whether any of *tables* or *functions* in the database calls a function of schema ``auth``."""
    named, called = list(tables), list(functions)
    parameters = {
        "schemas": schemas_of(named, default_schema),
        "tables": [key.name for key in named],
        "function_schemas": schemas_of(called, default_schema),
        "functions": [key.name for key in called],
    }
    (row,) = fetch_rows(connection, sql_file("auth_in_use"), parameters)
    return bool(row["in_use"])


def with_edits(connection: Connection, auth: AuthFunctions) -> AuthFunctions:
    """Return *auth* with the edited functions; Postgres compares them."""
    if auth.extension or not auth.managed or auth.verifies_in_part:
        return auth
    names = [*auth.managed, *["rotate_signing_key"] * auth.signed]
    edited: frozenset[str] | None = None
    with trying(connection, "the functions of schema auth count as changed"):
        connection.execute(ExpectedAuthFunctions(signed=auth.signed))
        found = fetch_rows(connection, sql_file("edited_auth_functions"), {"names": names})
        edited = frozenset(row["proname"] for row in found)
    return auth._replace(edited=edited)
