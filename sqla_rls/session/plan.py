"""Decides once for a connection how callers are bound on it, by the options and the server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, repeat
from os import urandom
from struct import Struct
from typing import TYPE_CHECKING, Any, Final
from weakref import ReferenceType, WeakKeyDictionary, ref

from sqlalchemy import Connection, Engine, SingletonThreadPool, StaticPool

from sqla_rls.driver import connect, returned, server_info
from sqla_rls.driver.base import (
    CLAIMS,
    MARK,
    PATH,
    SEPARATE_CLAIMS,
    BindingTemplate,
    DriverConnection,
    Modes,
    can_be_set_locally,
)
from sqla_rls.driver.connect import SERVER_INFO, SIGNER
from sqla_rls.driver.reports import reported_mark
from sqla_rls.driver.server_info import ServerInfo
from sqla_rls.driver.unprepared import unprepared
from sqla_rls.exc import DeclarationError, SignedBindingUnavailable, UnsupportedTransaction
from sqla_rls.session.options import PoolFacts, SessionOptions

if TYPE_CHECKING:
    from sqla_rls.tokens.signing import Ed25519Signer, Signer

#: The key of ``record_info`` for a connection that was replaced.
_REPLACED: Final = "sqla_rls.replaced"


SEED: Final = "seed"
_NUMBERS: Final = Struct("32Q")


def seeds() -> Callable[[], str]:
    """Return a function that returns a random value for SEED, which no other transaction gets.

    It serves one connection, which belongs to one process: no other process has the values after a fork.
    """
    # A call of the system takes longer than the rest of a seed, and returns 32 numbers.
    numbers = chain.from_iterable(map(_NUMBERS.unpack, map(urandom, repeat(_NUMBERS.size))))
    # A float keeps 53 of the 64 bits.  The digits of a float would take ten times as long.
    return map(".{}".format, numbers).__next__


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionPlan:
    """How callers are bound on one connection."""

    options: SessionOptions
    #: None without a signature and without a reset.
    server: ServerInfo | None
    #: The strongest signer that the connection supports; None without a signature.
    signer: Signer | None
    #: Settings of every transaction, in addition to the caller's.
    settings: Mapping[str, str]
    #: The modes of BEGIN; None leaves them to the connection and the last caller.
    modes: Modes | None
    #: The facts of the connection's pool.
    pool: PoolFacts = field(default_factory=PoolFacts)
    #: The driver's connection, if it sends bindings.
    driver_connection: DriverConnection | None = None
    #: The value of MARK in transactions of another connection; None if the driver doesn't expose it.
    own_mark: str | None = None
    #: Whether a transaction resets every setting, and not only those that a binding makes.
    resets_all: bool = False
    #: The driver's connection, if it sends bindings ahead of the first statement.
    sender: DriverConnection | None = field(init=False)
    #: Whether DISCARD ALL goes before the bindings of another caller.
    discards: bool = field(init=False)
    #: Whether functions of the database may read claims one by one; True if that is unknown.
    has_separate_claims: bool = field(init=False)
    #: The template for the transactions that a session begins, and the one for those that it joins.
    template: BindingTemplate = field(init=False)
    joined_template: BindingTemplate = field(init=False)
    #: The template for the bindings of ``sender``.
    sent_template: BindingTemplate = field(init=False)

    def __post_init__(self) -> None:
        server, signer, settings = self.server, self.signer, self.settings
        discards = self.options.binding.reset == "all"
        sends = self.options.goes_with_begin and (self.is_direct or not discards)
        object.__setattr__(self, "discards", discards)
        object.__setattr__(self, "sender", self.driver_connection if sends else None)
        separate = server is None or server.separate_claims
        # The last caller may know the next values of random(): RESET ALL and DISCARD ALL keep the seed.
        seed = self.modes is not None and SEED not in settings
        object.__setattr__(self, "has_separate_claims", separate)
        # In the order of Binding.own_values().
        names = (
            CLAIMS,
            *(SEPARATE_CLAIMS if separate else ()),
            *(() if signer is None else ("pg_session_jwt.jwt",)),
            *((SEED,) if seed else ()),
        )
        template = BindingTemplate(
            names=names,
            fixed=settings,
            modes=self.modes,
            confidential=signer is not None,
            transferable=signer is not None and not signer.bound,
            # The other servers of a pooler may have another version.
            sets_locally=(
                server is not None and server.direct and can_be_set_locally(settings, server.version)
            ),
            unbound={
                name: value
                for name, value in settings.items()
                if (name in self.options.settings if name == PATH else self.resets_all)
            },
            resets_all=self.resets_all,
            pooled=not self.is_direct,
            seed=seeds() if seed else None,
            resets_at_end=(
                self.is_direct
                and self.modes is not None
                and self.resets_all
                and self.options.binding.reset == "settings"
            ),
        )
        object.__setattr__(self, "joined_template", template)
        # Behind a pooler, the server may report a change to another client.
        mark = self.own_mark if self.driver_connection is None else self.driver_connection.mark
        if self.is_direct and mark is not None and MARK not in settings:
            template = replace(template, mark=mark, fixed={MARK: mark, **settings})
        object.__setattr__(self, "template", template)
        if (
            server is not None
            and server.starts_without_claims
            and signer is not None
            and self.modes is not None
            and self.resets_all
            and not separate
        ):
            # RESET ALL, right before the transaction, leaves no claims beside the token.
            template = replace(template, names=names[1:])
        object.__setattr__(self, "sent_template", template)

    @property
    def is_direct(self) -> bool:
        """Whether no pooler is in between; False if that is unknown."""
        return self.server is not None and self.server.direct


def plan_of(connection: Connection, options: SessionOptions) -> ConnectionPlan:
    """Return the plan of *connection*.

    Raises:
        DeclarationError: another borrower may use the driver's connection at the same time.
        UnsupportedTransaction: the connection isn't one to Postgres.
        SignedBindingUnavailable: the options require a signature, and nothing can sign.

    Emits:
        One SELECT, the first time on a connection that the engine opened before it was enforced.
    """
    info = connection.connection.info
    if options not in info:
        info[options] = _decide(connection, options)
    plan: ConnectionPlan = info[options]
    return plan


def install(engine: Engine, options: SessionOptions) -> bool:
    """Let *engine* open connections that send bindings; return False if the options need none."""
    sign, reset = options.binding.signing != "off", options.binding.reset
    if sign or reset != "none" or options.binding.transport != "statement":
        return connect.install(engine, sign=sign, reset=reset, leftovers=partial(_of_others, options))
    return False


def _of_others(options: SessionOptions, server: ServerInfo) -> BindingTemplate:
    """Return the template by which a connection resets what the caller of another client has left."""
    settings = _with_path(server, options)
    template = ConnectionPlan(
        options=options,
        server=server,
        signer=None,
        settings=settings,
        modes=server.modes,
        resets_all=options.goes_with_begin,
    ).joined_template
    return replace(template, names=(*template.names, "pg_session_jwt.jwt"))


#: The pools that lend one connection several times.  Each return ends the transaction of all borrowers.
_LENDING_TWICE: Final = (StaticPool, SingletonThreadPool)
#: The entry of a pool that holds each driver connection.
_HOLDERS: Final[WeakKeyDictionary[Any, ReferenceType[Any]]] = WeakKeyDictionary()


def require_own_connections(engine: Engine) -> None:
    """Check that the pool of *engine* lends each connection once.

    Raises:
        DeclarationError: it lends one connection several times.
    """
    if engine.dialect.name != "postgresql":
        # Its first transaction says so.
        return
    if isinstance(engine.pool, _LENDING_TWICE):
        name = type(engine.pool).__name__
        queue = "AsyncAdaptedQueuePool" if engine.dialect.is_async else "QueuePool"
        raise DeclarationError(
            f"row security can't be enforced: {name} lends one connection several times, and a "
            f"transaction has one caller. Use {queue} or NullPool, as poolclass="
        )


def _require_one_holder(connection: Connection) -> None:
    """Check that no other entry of a pool holds the driver's connection of *connection*."""
    proxied: Any = connection.connection
    driver_connection, entry = proxied.driver_connection, proxied._connection_record
    if entry is None:  # detached from its pool
        return
    known = _HOLDERS.get(driver_connection)
    other = None if known is None else known()
    if other is not None and other is not entry and other.driver_connection is driver_connection:
        raise DeclarationError(
            "the caller can't be bound: the creator= of the engine has returned a connection that is in use "
            "already, and a transaction has one caller. Open a new connection each time"
        )
    _HOLDERS[driver_connection] = ref(entry)


def replace_later(connection: Connection, options: SessionOptions) -> None:
    """Let the pool replace *connection* later: it was opened before its engine was enforced."""
    kept = connection.connection.record_info
    if install(connection.engine, options) and kept is not None and not kept.get(_REPLACED):
        # Once: with a creator of the application, the next connection is like this one.
        kept[_REPLACED] = True
        connection.connection.invalidate(soft=True)


def _decide(connection: Connection, options: SessionOptions) -> ConnectionPlan:
    if connection.dialect.name != "postgresql":
        raise UnsupportedTransaction(
            f"row security can't be enforced: {connection.dialect.name} has none. Connect to Postgres"
        )
    require_own_connections(connection.engine)
    _require_one_holder(connection)
    resets = options.binding.reset != "none"
    proxied: Any = connection.connection
    driver_connection = proxied.driver_connection
    of_connection: dict[str, Any] = {
        "options": options,
        "pool": options.pools.setdefault(connection.engine.pool, PoolFacts()),
        "own_mark": {"on": "off", "off": "on"}.get(reported_mark(driver_connection) or ""),
    }
    if isinstance(driver_connection, DriverConnection):
        of_connection |= {
            "driver_connection": driver_connection,
            "resets_all": options.goes_with_begin,
        }
    if options.binding.signing == "off" and not resets:
        return ConnectionPlan(
            **of_connection, server=None, signer=None, settings=options.settings, modes=None
        )
    server = _server_of(connection, options)
    signer = _choose(server, connection.connection.info.get(SIGNER), options)
    if not resets:
        return ConnectionPlan(
            **of_connection, server=server, signer=signer, settings=options.settings, modes=None
        )
    if not isinstance(driver_connection, DriverConnection):
        returned.listen(connection)
    return ConnectionPlan(
        **of_connection,
        server=server,
        signer=signer,
        settings=_with_path(server, options),
        modes=server.modes,
    )


def _with_path(server: ServerInfo, options: SessionOptions) -> dict[str, str]:
    """Return the settings of every transaction, with a search_path that ends with pg_temp."""
    path = options.settings.get("search_path", server.search_path)
    # Postgres searches pg_temp first, unless the path names it.
    ours = {"search_path": f"{path}, pg_temp" if path else "pg_temp"}
    return {**server.pooler_settings, **options.settings, **ours}


def _server_of(connection: Connection, options: SessionOptions) -> ServerInfo:
    proxied = connection.connection
    if (found := proxied.info.get(SERVER_INFO)) is None:
        replace_later(connection, options)
        with unprepared(connection):
            answer: str = connection.exec_driver_sql(server_info.QUERY).scalar_one()
        found = proxied.info[SERVER_INFO] = server_info.read(answer, proxied.driver_connection, is_new=False)
    server: ServerInfo = found
    return server


def _choose(server: ServerInfo, own: Ed25519Signer | None, options: SessionOptions) -> Signer | None:
    signing = options.binding.signing
    verifies = server.extension and own is not None and server.jwk == own.jwk
    if server.extension and server.jwk and not verifies:
        raise SignedBindingUnavailable(
            "callers can't be signed: pg_session_jwt has a key that isn't this connection's. Remove "
            "pg_session_jwt.jwk from the connection's options and the server's configuration, and let "
            "signing='required' or 'auto' set it"
        )
    if signing == "off":
        return None
    if verifies:
        return own
    if server.verifier and options.signing_key is not None:
        # Imported here, since an app without signatures needs neither PyJWT nor cryptography.
        from sqla_rls.tokens.signing import HS256Signer

        return HS256Signer(options.signing_key, server.backend_pid if server.direct else None)
    if signing == "auto" and options.signing_key is None:
        return None
    raise SignedBindingUnavailable(f"{_obstacle(server)}; or set signing='off' to trust the application")


def _obstacle(server: ServerInfo) -> str:
    if server.extension and not server.direct:
        return (
            "callers can't be signed: pg_session_jwt takes its key from a connection's startup parameters, "
            "and the pooler drops them. Connect to the server directly"
        )
    if server.extension:
        return (
            "callers can't be signed: pg_session_jwt takes its key from a connection's startup parameters, "
            "and this connection has none. Call enforce_row_security() before the engine connects, and use "
            "psycopg or asyncpg without a creator= of your own"
        )
    if server.verifier:
        return (
            "callers can't be signed: the database verifies signatures, and the application has no key. "
            "Give it the key, as signing_key= or in SQLA_RLS_SIGNING_KEY"
        )
    return (
        "callers can't be signed: the database verifies no signatures. Run a migration with "
        "op.create_auth_functions(), where the server has pg_session_jwt, or with signed=True"
    )
