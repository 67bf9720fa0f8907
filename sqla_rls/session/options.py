"""How callers are bound, and what that takes of a connection."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from sqlalchemy import Connection, Engine

from sqla_rls.driver import server_info as origin
from sqla_rls.driver.base import Modes, Way
from sqla_rls.driver.connect import ORIGIN, SIGNER, install
from sqla_rls.driver.server_info import Origin
from sqla_rls.exc import DeclarationError, SignedBindingUnavailable, UnsupportedTransaction
from sqla_rls.tokens.signing import Ed25519Signer, HS256Signer, Signer, SigningKey

#: Whether the database believes the claims that it is told, or verifies who has signed them.
Strength: TypeAlias = Literal["auto", "claims", "signed"]

#: Where ``record_info`` keeps that it was tried.
_REPLACED: Final = "sqla_rls.replaced"

#: What no transaction of an application's makes itself.
_TAKEN: Final = frozenset(
    {"client_encoding", "pg_session_jwt.jwt", "request.jwt.claims", "role", "session_authorization"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """By what callers are bound on one connection."""

    #: The strongest that it can have; None if nothing signs.
    signer: Signer | None
    #: Of every transaction, whoever the caller is.
    settings: Mapping[str, str]
    #: None leaves them to the connection, and to what the last caller did to it.
    modes: Modes | None
    #: No pooler is in between; False also if that isn't known.
    direct: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class Rules:
    """What ``enforce_row_security()`` was told about binding."""

    strength: Strength = "claims"
    signing_key: SigningKey | None = None
    set_role: bool = True
    way: Way = "statement"
    clean: bool = False
    strict: bool = False
    settings: Mapping[str, str] = field(default_factory=dict[str, str])
    #: The claims that make up a person besides ``iss`` and ``sub``; None for all that one sign-in keeps.
    person_claims: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name, value in self.settings.items():
            if not re.fullmatch(r"[A-Za-z_][\w$.]*", name, re.ASCII) or not isinstance(value, str):
                raise DeclarationError(f"settings= takes names of settings and text, not {name!r}: {value!r}")
            if name.lower() in _TAKEN:
                raise DeclarationError(
                    f"{name} isn't for settings=: the driver has an argument for client_encoding; the others "
                    "are what an identity is bound by"
                )

        # As Postgres takes them: in any case.
        lowered = {name.lower(): value for name, value in self.settings.items()}
        object.__setattr__(self, "settings", lowered)

    @property
    def is_carried(self) -> bool:
        """Whether a binding goes with BEGIN, where the connection can do so."""
        return self.way != "statement" and self.set_role

    def install(self, engine: Engine) -> bool:
        """Let *engine* open the connections that it takes; False if they are as any."""
        sign = self.strength != "claims"
        if sign or self.clean or self.strict or self.way != "statement":
            return install(engine, sign=sign, clean=self.clean, strict=self.strict)
        return False

    def origin(self, connection: Connection) -> Origin | None:
        """What *connection* is, if it matters.  One that was opened in another way is asked: one SELECT.

        Raises UnsupportedTransaction if it isn't to Postgres.
        """
        if connection.dialect.name != "postgresql":
            raise UnsupportedTransaction(f"row security is enforced, and {connection.dialect.name} has none")
        if self.strength == "claims" and not self.clean:
            return None
        proxied = connection.connection
        if (found := proxied.info.get(ORIGIN)) is None:
            self.replace(connection)
            answer: str = connection.exec_driver_sql(origin.QUERY).scalar_one()
            found = proxied.info[ORIGIN] = origin.read(answer, proxied.driver_connection)
        return found

    def replace(self, connection: Connection) -> None:
        """Have the pool open another when *connection* is back: it was opened before its engine was known."""
        kept = connection.connection.record_info
        if self.install(connection.engine) and kept is not None and not kept.get(_REPLACED):
            # Once: a creator of the application's own makes the next one like it.
            kept[_REPLACED] = True
            connection.connection.invalidate(soft=True)

    def means(self, connection: Connection) -> Means:
        """By what callers are bound on *connection*, which is asked as in ``origin()``.

        Raises SignedBindingUnavailable where these rules want a signature, and nothing can sign.
        """
        if (found := self.origin(connection)) is None:
            return Means(signer=None, settings=self.settings, modes=None, direct=False)
        info = connection.connection.info
        if self not in info:
            signer = self._choose(found, info.get(SIGNER))
            if self.clean:
                path = self.settings.get("search_path", found.search_path)
                # Where it isn't named, pg_temp is searched first.
                ours = {"search_path": f"{path}, pg_temp" if path else "pg_temp"}
                settings = {**found.lent, **self.settings, **ours}
                info[self] = Means(signer=signer, settings=settings, modes=found.modes, direct=found.direct)
            else:
                info[self] = Means(signer=signer, settings=self.settings, modes=None, direct=found.direct)
        means: Means = info[self]
        return means

    def _choose(self, found: Origin, own: Ed25519Signer | None) -> Signer | None:
        verifies = found.extension and own is not None and found.jwk == own.jwk
        if found.extension and found.jwk and not verifies:
            raise SignedBindingUnavailable(
                "pg_session_jwt has a key that isn't this connection's: take pg_session_jwt.jwk out of its "
                "options and the server's configuration, and let binding='signed' or 'auto' set it"
            )
        if self.strength == "claims":
            return None
        if verifies:
            return own
        if found.verifier and self.signing_key is not None:
            return HS256Signer(self.signing_key, found.backend_pid if found.direct else None)
        if self.strength == "auto" and self.signing_key is None:
            return None
        raise SignedBindingUnavailable(f"{_obstacle(found)}; or let binding='claims' trust what it is told")


def _obstacle(found: Origin) -> str:
    if found.extension and not found.direct:
        return (
            "pg_session_jwt takes its key from a connection's startup parameters, which the pooler in "
            "between drops: connect to the server directly"
        )
    if found.extension:
        return (
            "pg_session_jwt takes its key from a connection's startup parameters, and this one was opened "
            "without: before enforce_row_security() knew its engine, by a creator= of the engine's, or by "
            "another driver than psycopg and asyncpg"
        )
    if found.verifier:
        return (
            "the database verifies signed identities: give the application its key, as signing_key= or in "
            "SQLA_RLS_SIGNING_KEY"
        )
    return (
        "the database verifies no signatures: let a migration install what does, by "
        "op.create_auth_functions(), where the server has pg_session_jwt, or with signed=True"
    )
