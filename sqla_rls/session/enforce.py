"""Sessions that run as somebody: the hook that binds a caller to every transaction.

It listens to ``Session.after_begin``, which AsyncSession shares, so that there is one implementation
for both.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias, TypeVar, overload
from weakref import WeakKeyDictionary, WeakSet, ref

from sqlalchemy import Connection, Engine, Pool, event
from sqlalchemy.orm import Mapper, Session, SessionTransaction, object_mapper, scoped_session, sessionmaker

from sqla_rls.driver.base import ENDED, DriverConnection, Way
from sqla_rls.exc import (
    BindingError,
    DeclarationError,
    IdentityChanged,
    IdentityRequired,
    TransactionInProgress,
    TransactionRefused,
    UnsupportedTransaction,
)
from sqla_rls.session.binding import Caller, ServiceAccess, bind, person
from sqla_rls.session.checks import (
    explain_rejections,
    require_declared_settings,
    require_safe_roles,
    require_verified,
)
from sqla_rls.session.options import Rules, Strength
from sqla_rls.session.sharing import REFUSED, Share, Sharers
from sqla_rls.tokens.signing import SigningKey
from sqla_rls.tokens.verifier import Identity, Verifier

if TYPE_CHECKING:
    # Not at run time: the asyncio extension needs greenlet, which sync applications may not have.
    from sqlalchemy.engine.interfaces import CoreExecuteOptionsParameter
    from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker
    from sqlalchemy.orm.session import _BindArguments

    Factory: TypeAlias = (
        sessionmaker[Any] | async_sessionmaker[Any] | scoped_session[Any] | async_scoped_session[Any]
    )
    AnySession: TypeAlias = Session | AsyncSession | scoped_session[Any] | async_scoped_session[Any]
    _S = TypeVar("_S", bound=Session)
    _AS = TypeVar("_AS", bound=AsyncSession)

_O = TypeVar("_O")
_Answer: TypeAlias = str | Identity | None
TokenCallback: TypeAlias = Callable[[], _Answer | Awaitable[_Answer]]
BindHook: TypeAlias = Callable[[Session, Connection, Caller], object]

_UNIDENTIFIED: Final = (
    "this session has no identity; call identify(session, identity), "
    "or identify(session, ANONYMOUS) for public access"
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rules:
    """What ``enforce_row_security()`` was told."""

    verifier: Verifier | None
    token: TokenCallback | None
    binding: Rules
    check_login_role: bool
    member_of: Mapping[str, Collection[str]]
    on_bind: BindHook | None
    #: Pools whose connections were looked at before their first caller.
    known: WeakSet[Pool] = field(default_factory=WeakSet[Pool])
    #: The roles that were found to be safe, by the pool of their connections.
    safe: WeakKeyDictionary[Pool, set[str]] = field(default_factory=WeakKeyDictionary[Pool, set[str]])


class RowSecuritySession(Session):
    """A Session that runs each transaction as its caller, and none without one.

    ``enforce_row_security()`` derives it from the session class of a factory.  *token* is verified when a
    transaction begins, and again for each one that follows; a verified token is remembered.  If it is a
    callable (under asyncio it may be a coroutine function), each transaction asks it for the token, or
    for an Identity.
    """

    _rules: ClassVar[_Rules]
    _caller: Caller | str | TokenCallback | None = None
    #: That of the transaction in progress, and of the last one.
    _bound: Caller | None = None
    _last: Caller | None = None
    #: The transaction in progress, and whether it was refused.
    _root: SessionTransaction | None = None
    _refused: bool = False

    def __init__(self, *args: Any, token: str | TokenCallback | None = None, **kw: Any) -> None:
        super().__init__(*args, **kw)
        if token is not None and not callable(token):
            _require(self._rules.verifier)
        self._caller = token
        self._me = ref(self)
        #: Of each connection of the transaction in progress.
        self._shares: list[Share] = []
        #: Connections that the application gave, and whether each was in a transaction before the session's.
        self._given: WeakKeyDictionary[Connection, bool] = WeakKeyDictionary()

    def close(self) -> None:
        """Close the session, and forget the caller, also if that fails."""
        try:
            super().close()
        finally:
            self._forget()

    def reset(self) -> None:
        """Reset the session, and forget the caller, also if that fails."""
        try:
            super().reset()
        finally:
            self._forget()

    def invalidate(self) -> None:
        """Close the session and its connections, and forget the caller, also if that fails."""
        try:
            super().invalidate()
        finally:
            self._forget()

    def get_bind(self, *args: Any, **kw: Any) -> Engine | Connection:
        """As in Session, which asks it before whatever it sends.

        Raises TransactionRefused in a transaction that is not, or no longer, bound.
        """
        self._require_bound()
        bind = super().get_bind(*args, **kw)
        if isinstance(bind, Connection):
            self._given[bind] = bind.in_transaction()
        return bind

    def connection(
        self,
        bind_arguments: _BindArguments | None = None,
        execution_options: CoreExecuteOptionsParameter | None = None,
    ) -> Connection:
        """As in Session.

        Raises TransactionRefused in a transaction that is not, or no longer, bound.
        """
        # Session doesn't ask get_bind() about a bind that it is given.
        self._require_bound()
        if isinstance(bind := (bind_arguments or {}).get("bind"), Connection):
            self._given[bind] = bind.in_transaction()
        return super().connection(bind_arguments, execution_options)

    def merge(self, instance: _O, **kw: Any) -> _O:
        """As in Session; raises IdentityChanged if what was loaded is another caller's."""
        self._require_same_caller(mapper=object_mapper(instance))
        return super().merge(instance, **kw)

    def merge_all(self, instances: Iterable[_O], **kw: Any) -> Sequence[_O]:
        """As in Session of SQLAlchemy 2.1; raises IdentityChanged if what was loaded is another caller's."""
        listed = list(instances)
        if listed:
            self._require_same_caller(mapper=object_mapper(listed[0]))
        return super().merge_all(listed, **kw)

    def _identity_lookup(self, mapper: Mapper[Any], *args: Any, **kw: Any) -> Any:
        # What get() and lazy loads ask for an object that is loaded; they send nothing if it is there.
        self._require_same_caller(**{**(kw.get("bind_arguments") or {}), "mapper": mapper})
        return super()._identity_lookup(mapper, *args, **kw)

    def _require_same_caller(self, **bind_arguments: Any) -> None:
        """Begin a transaction where a callback may tell another caller than the last one."""
        caller = self._rules.token if self._caller is None else self._caller
        if self._last is not None and callable(caller) and self._bound_now() is None:
            self.connection(bind_arguments=bind_arguments)

    def _require_bound(self) -> None:
        if self._root is None or self._has_ended():
            return
        if self._refused:
            raise TransactionRefused(REFUSED)
        for share in self._shares:
            if not share.is_in_force:
                raise TransactionRefused(ENDED)

    def _bound_now(self) -> Caller | None:
        self._has_ended()
        return self._bound

    def _has_ended(self) -> bool:
        """Whether the transaction has ended; if an error kept the event from saying so, it is said now."""
        if self._root is not None and self.get_transaction() is not self._root:
            self._end()
        return self._root is None

    def _end(self) -> None:
        self._root, self._bound, self._refused = None, None, False
        while self._shares:
            self._shares.pop().end()

    def _forget(self) -> None:
        # Who uses the session next identifies it first.
        self._caller = self._last = None
        self._has_ended()

    def _begin(self, transaction: SessionTransaction, connection: Connection) -> Share:
        self._has_ended()
        self._root = transaction
        # Until all has gone well: the session keeps the connection, for whoever goes on after an error.
        self._refused = True
        joined = self._given.pop(connection, False)
        share = Share(self._me, connection, joined, Sharers.of(connection, joined=joined))
        self._shares.append(share)
        return share

    def _ask(self, connection: Connection) -> Caller:
        """Who the caller is, now."""
        caller: Caller | Any = self._rules.token if self._caller is None else self._caller
        if callable(caller):
            caller = caller()
            if inspect.isawaitable(caller):
                caller = _wait(connection, caller)
        if caller is None:
            raise IdentityRequired(_UNIDENTIFIED)
        if not isinstance(caller, Identity | ServiceAccess):
            verifier = _require(self._rules.verifier)
            if connection.dialect.is_async:
                caller = _wait(connection, verifier.verify_async(caller))
            else:
                caller = verifier.verify(caller)
        return caller


def enforce_row_security(
    factory: Factory,
    *,
    verifier: Verifier | None = None,
    token: TokenCallback | None = None,
    binding: Strength = "auto",
    signing_key: SigningKey | None = None,
    clean: bool = True,
    strict: bool = False,
    settings: Mapping[str, str] | None = None,
    set_role: bool = True,
    way: Way = "auto",
    check_login_role: bool = True,
    member_of: Mapping[str, Collection[str]] | None = None,
    on_bind: BindHook | None = None,
    person_claims: Sequence[str] | None = None,
) -> None:
    """Make every session of *factory* run as a caller, and refuse to run without one.

    *factory* is a sessionmaker, an async_sessionmaker, or a scoped session of one.  Its sessions take
    ``token=…``, or are given an identity by ``identify()``.  Each transaction begins with one SELECT of
    ``set_config(…, true)``.  Raises DeclarationError for a factory that has it
    already.

    - ``verifier``: verifies the tokens.
    - ``token``: asked by sessions that have neither token nor identity, as ``Session(token=…)`` is.
    - ``binding``: "signed" has the database verify who is bound, so that no SQL of a caller's can become
      somebody else; it takes the extension pg_session_jwt, on a direct connection of psycopg or asyncpg, or
      ``op.create_auth_functions(signed=True)`` and its key.  "claims" trusts what it is told.  "auto" is the
      strongest that a connection offers, logged once at INFO.
    - ``signing_key``: as ``sqla-rls rotate-key`` prints it, or what returns the one of now; None is that of
      the environment variable SQLA_RLS_SIGNING_KEY.  Who has one is never bound by claims, unless told so.
    - ``clean``: what the last caller may have left on the connection doesn't count: the search_path ends with
      pg_temp; with "message" and "pipeline" BEGIN has explicit modes, and RESET ALL follows.
    - ``strict``: no statement stays prepared, and DISCARD ALL goes before another person's transaction, in a
      round trip of its own.  Direct connections of psycopg and asyncpg only.
    - ``settings``: of the application's own, for every transaction: ``{"statement_timeout": "10s"}``.
    - ``set_role``: the login role switches to the caller's (``SET LOCAL ROLE``); without, it must be
      that role.
    - ``way``: how the binding travels.  "message" (psycopg, asyncpg): in one message with BEGIN.
      "pipeline" (psycopg): in one flush with BEGIN and the first statement.  "statement" (any driver): as a
      statement of its own.  "auto": the first of pipeline, message and statement that the driver has.
    - ``check_login_role``: the first time that a pool's connection takes on a role, one SELECT asks whether
      row security holds for it; raises UnsafeRole.
    - ``member_of``: by the role of callers, the roles of policies that it is a member of on purpose:
      ``{"admin": ["editor"]}``.  Its callers have their policies.  Any other such membership raises
      UnsafeRole, unless it is in "authenticated" or "anonymous".
    - ``on_bind``: called with the Session, its Connection, and the Identity or ServiceAccess that is bound to
      their transaction now, to audit or trace it.  What it raises refuses the transaction.
    - ``person_claims``: the claims by which a session tells two people apart, besides ``iss``, ``sub`` and
      the role.  None: all claims but those that differ between two tokens of one sign-in, such as ``exp``.
    """
    if isinstance(person_claims, str):
        raise DeclarationError("person_claims is a sequence of names, such as ['org_id']")
    outer: Any = getattr(factory, "session_factory", factory)
    maker = outer
    if isinstance(inner := getattr(maker, "kw", {}).get("sync_session_class"), sessionmaker):
        # An async_sessionmaker of which the inner sessions come from a factory, as in advanced-alchemy.
        maker = inner
    is_sync = isinstance(maker, sessionmaker)
    base: type[Session] = (
        maker.class_ if is_sync else maker.kw.get("sync_session_class", maker.class_.sync_session_class)
    )
    if issubclass(base, RowSecuritySession):
        raise DeclarationError("row security is enforced on this session factory already")
    rules = _Rules(
        verifier=verifier,
        token=token,
        binding=Rules(
            strength=binding,
            signing_key=signing_key or os.environ.get("SQLA_RLS_SIGNING_KEY"),
            clean=clean or strict,
            strict=strict,
            settings=dict(settings or {}),
            set_role=set_role,
            way=way,
            person_claims=None if person_claims is None else tuple(person_claims),
        ),
        check_login_role=check_login_role,
        member_of=member_of or {},
        on_bind=on_bind,
    )
    outer.begin = _without_arguments(outer.begin)
    enforced = type(base.__name__, (RowSecuritySession, base), {"_rules": rules})
    # First: what another listener executes is bound, too.
    event.listen(enforced, "after_begin", _after_begin, insert=True)
    event.listen(enforced, "after_transaction_end", _after_transaction_end)
    if is_sync:
        maker.class_ = enforced
    else:
        # async_sessionmaker takes no events; the session that it wraps does.
        maker.configure(sync_session_class=enforced)
    for bound_to in (maker.kw.get("bind"), *(maker.kw.get("binds") or {}).values()):
        if isinstance(engine := getattr(bound_to, "sync_engine", bound_to), Engine):
            rules.binding.install(engine)


def _without_arguments(begin: Callable[[], Any]) -> Callable[..., Any]:
    """A factory's ``begin()``, which takes no token: it says how to give one."""

    def explained(*args: Any, **kw: Any) -> Any:
        if args or kw:
            raise DeclarationError(
                "begin() of a session factory takes no arguments: write `with SessionLocal(token=…) as "
                "session, session.begin():`, under asyncio with `async with`"
            )
        return begin()

    return explained


def identify(session: AnySession, identity: Identity) -> None:
    """Run the transactions of *session* as *identity* from now on.

    Raises BindingError if row security isn't enforced on the session's factory, TransactionInProgress
    while a transaction is bound to another identity, and IdentityChanged while its changes wait to be
    flushed.
    """
    target = _enforced(session)
    if not isinstance(identity, Identity):
        raise IdentityRequired(
            f"identify() takes an Identity, not {type(identity).__name__}; verify the token first"
        )
    names = target._rules.binding.person_claims
    bound = target._bound_now()
    if bound is not None and person(bound, names) != person(identity, names):
        raise TransactionInProgress(
            "a transaction is in progress as another identity; commit or roll back before identify()"
        )
    known = [caller for caller in (target._caller, target._last) if caller is not None]
    if any(
        not isinstance(caller, Identity) or person(caller, names) != person(identity, names)
        for caller in known
    ):
        if target.new or target.dirty or target.deleted:
            raise IdentityChanged(
                "changes made as another identity wait to be flushed, and would be as this one; "
                "commit or expunge them before identify()"
            )
        # What the other has loaded is not this one's to see.
        target.expire_all()
    target._caller, target._last = identity, None


@overload
def service_session(
    factory: async_sessionmaker[_AS] | async_scoped_session[_AS], *, reason: str, role: str | None = None
) -> _AS: ...
@overload
def service_session(
    factory: sessionmaker[_S] | scoped_session[_S], *, reason: str, role: str | None = None
) -> _S: ...
def service_session(factory: Any, *, reason: str, role: str | None = None) -> Any:
    """A new session of *factory* that runs on nobody's behalf: a job, a repair.

    Its transactions run as *role*, or as the login role itself, which may be above row security;
    ``auth.user_id()`` is NULL.  *reason* is logged at INFO with each transaction, and passed to ``on_bind``.
    Raises DeclarationError without a reason, and BindingError if row security isn't enforced on *factory*.
    """
    access = ServiceAccess(reason=reason, role=role)
    session = getattr(factory, "session_factory", factory)()
    _enforced(session)._caller = access
    return session


def _after_begin(
    session: RowSecuritySession, transaction: SessionTransaction, connection: Connection
) -> None:
    if transaction.nested:
        # A savepoint; its transaction is bound.
        return
    rules = session._rules
    share = session._begin(transaction, connection)
    try:
        if session.twophase:
            raise UnsupportedTransaction(
                "PREPARE TRANSACTION loses what is bound; use a Session without twophase"
            )
        caller = session._bound or session._ask(connection)
        names, last = rules.binding.person_claims, session._last
        who = person(caller, names)
        if last is not None and last is not caller and person(last, names) != who:
            raise IdentityChanged(
                "this session was somebody else's, and holds what they loaded; close it, or call identify()"
            )
        share.require_one_caller(who)
        _look(connection, rules)
        share.bound(who, bind(connection, caller, rules.binding, joined=share.joined))
        if isinstance(caller, ServiceAccess):
            _log.info("service session as role %r: %s", caller.role or "(login role)", caller.reason)
        elif caller.role not in (safe := rules.safe.setdefault(connection.engine.pool, set())):
            _check(connection, caller, rules)
            safe.add(caller.role)
        session._bound = session._last = caller
        session._refused = False
        if rules.on_bind is not None:
            rules.on_bind(session, connection, caller)
    except BaseException as error:
        session._refused = True
        if isinstance(error, Exception):
            share.refuse()
        else:
            # Cancelled: what reached the server isn't known, and nothing more can be waited for.
            connection.invalidate()
        raise


def _look(connection: Connection, rules: _Rules) -> None:
    """Look at the first connection of a pool, before anybody is bound."""
    binding, pool = rules.binding, connection.engine.pool
    if pool in rules.known:
        return
    if (found := binding.origin(connection)) is not None:
        signer = binding.means(connection).signer
        _log.info("identities are bound %s", "as claims" if signer is None else f"signed: {signer.kind}")
        if found.verifier:
            explain_rejections(connection.engine)
        if binding.clean and found.direct:
            driver_connection = connection.connection.driver_connection
            if not (binding.is_carried and isinstance(driver_connection, DriverConnection)):
                require_declared_settings(connection, binding, resets=False)
            elif driver_connection.idle:
                require_declared_settings(connection, binding, resets=True)
            else:
                return
    rules.known.add(pool)


def _check(connection: Connection, identity: Identity, rules: _Rules) -> None:
    """Look at what a role is, when it is bound for the first time on a pool."""
    if rules.check_login_role:
        require_safe_roles(connection, member_of=rules.member_of.get(identity.role, ()))
    if (found := rules.binding.origin(connection)) is not None:
        signed = rules.binding.means(connection).signer is not None
        if signed or (found.verifier and identity.claims):
            require_verified(connection, must_ask=rules.binding.strength == "signed")


def _after_transaction_end(session: RowSecuritySession, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session._end()


def _enforced(session: Any) -> RowSecuritySession:
    unscoped = session.registry() if hasattr(session, "registry") else session
    target: Any = getattr(unscoped, "sync_session", unscoped)
    if not isinstance(target, RowSecuritySession):
        raise BindingError(
            "row security isn't enforced on this session, so that the identity would be ignored; "
            "call enforce_row_security() on its factory"
        )
    return target


def _require(verifier: Verifier | None) -> Verifier:
    if verifier is None:
        raise DeclarationError(
            "a session with a token needs a verifier: enforce_row_security(factory, verifier=Verifier(…))"
        )
    return verifier


def _wait(connection: Connection, answer: Any) -> Any:
    """What the awaitable *answer* comes to, if the session is one of asyncio."""
    if not connection.dialect.is_async:
        if inspect.iscoroutine(answer):
            answer.close()
        raise DeclarationError("this session can't wait for a coroutine: let token= return the token itself")
    driver_connection: Any = connection.connection.dbapi_connection
    return driver_connection.run_async(lambda _: answer)
