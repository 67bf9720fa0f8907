"""Sessions that bind a caller to every transaction.

The hook listens to ``Session.after_begin``.  AsyncSession has the same event, so both share one
implementation.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias, TypeVar, overload
from weakref import WeakKeyDictionary, ref

from sqlalchemy import Connection, Engine, event
from sqlalchemy.orm import Mapper, Session, SessionTransaction, object_mapper, scoped_session, sessionmaker

from sqla_rls.driver.base import ENDED, DriverConnection
from sqla_rls.exc import (
    BindingError,
    CallerChanged,
    CallerRequired,
    DeclarationError,
    TransactionInProgress,
    TransactionRefused,
    UnsupportedTransaction,
)
from sqla_rls.session.binding import bind
from sqla_rls.session.checks import (
    explain_rejections,
    require_declared_settings,
    require_safe_roles,
    require_verified,
)
from sqla_rls.session.denials import name_denials
from sqla_rls.session.options import BindHook, BindingOptions, SessionOptions, TokenCallback
from sqla_rls.session.plan import ConnectionPlan, install, plan_of
from sqla_rls.session.principal import Principal, ServiceAccess, principal_key
from sqla_rls.session.sharing import REFUSED, Share, Sharers
from sqla_rls.tokens.caller import Caller
from sqla_rls.tokens.signing import SigningKey
from sqla_rls.tokens.verifier import Verifier

if TYPE_CHECKING:
    # The asyncio extension needs greenlet, and a sync application may not have it.
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

_UNIDENTIFIED: Final = (
    "the transaction can't begin: this session has no caller. Call identify(session, caller), "
    "or identify(session, Caller.anonymous()) for public access"
)

_log = logging.getLogger(__name__)


class RowSecuritySession(Session):
    """A Session that runs each transaction as its caller, and refuses to run without one.

    ``enforce_row_security()`` derives it from the session class of a factory.

    Args:
        token: the token of the caller.  Each transaction verifies it when it begins; the verifier caches the
            result.  Or a function that returns the token or a Caller, called by each transaction.  Under
            asyncio it may be a coroutine function.
    """

    _options: ClassVar[SessionOptions]
    _caller: Principal | str | TokenCallback | None = None
    #: The principal of the transaction in progress, and of the last one.
    _bound: Principal | None = None
    _last: Principal | None = None
    #: The transaction in progress, and whether it was refused.
    _root: SessionTransaction | None = None
    _refused: bool = False

    def __init__(self, *args: Any, token: str | TokenCallback | None = None, **kw: Any) -> None:
        super().__init__(*args, **kw)
        if token is not None and not callable(token):
            _require(self._options.verifier)
        self._caller = token
        self._me = ref(self)
        #: One for each connection of the transaction in progress.
        self._shares: list[Share] = []
        #: Connections that the application gave, and whether each was in a transaction before the session's.
        self._given: WeakKeyDictionary[Connection, bool] = WeakKeyDictionary()

    def close(self) -> None:
        """Close the session, and forget the caller, even if closing fails."""
        try:
            super().close()
        finally:
            self._forget()

    def reset(self) -> None:
        """Reset the session, and forget the caller, even if resetting fails."""
        try:
            super().reset()
        finally:
            self._forget()

    def invalidate(self) -> None:
        """Close the session and its connections, and forget the caller, even if closing fails."""
        try:
            super().invalidate()
        finally:
            self._forget()

    def get_bind(self, *args: Any, **kw: Any) -> Engine | Connection:
        """Return the bind, as in Session, which calls this method before each statement.

        Raises:
            TransactionRefused: the transaction in progress has no binding, or has lost it.
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
        """Return the connection, as in Session.

        Raises:
            TransactionRefused: the transaction in progress has no binding, or has lost it.
        """
        # If the arguments name a bind, Session doesn't call get_bind().
        self._require_bound()
        if isinstance(bind := (bind_arguments or {}).get("bind"), Connection):
            self._given[bind] = bind.in_transaction()
        return super().connection(bind_arguments, execution_options)

    def merge(self, instance: _O, **kw: Any) -> _O:
        """Merge *instance*, as in Session.

        Raises:
            CallerChanged: the session holds objects that another caller loaded.
        """
        self._require_same_caller(mapper=object_mapper(instance))
        return super().merge(instance, **kw)

    def merge_all(self, instances: Iterable[_O], **kw: Any) -> Sequence[_O]:
        """Merge *instances*, as in Session of SQLAlchemy 2.1.

        Raises:
            CallerChanged: the session holds objects that another caller loaded.
        """
        listed = list(instances)
        if listed:
            self._require_same_caller(mapper=object_mapper(listed[0]))
        return super().merge_all(listed, **kw)

    def _identity_lookup(self, mapper: Mapper[Any], *args: Any, **kw: Any) -> Any:
        # get() and lazy loads find a loaded object here, and then send no statement.
        self._require_same_caller(**{**(kw.get("bind_arguments") or {}), "mapper": mapper})
        return super()._identity_lookup(mapper, *args, **kw)

    def _require_same_caller(self, **bind_arguments: Any) -> None:
        """Begin a transaction if a callback may return another caller than the last one."""
        caller = self._options.token if self._caller is None else self._caller
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

    def _bound_now(self) -> Principal | None:
        self._has_ended()
        return self._bound

    def _has_ended(self) -> bool:
        """Return whether the transaction has ended, and clean up if an error has suppressed the event."""
        if self._root is not None and self.get_transaction() is not self._root:
            self._end()
        return self._root is None

    def _end(self) -> None:
        self._root, self._bound, self._refused = None, None, False
        while self._shares:
            self._shares.pop().end()

    def _forget(self) -> None:
        # The next user of the session must identify it first.
        self._caller = self._last = None
        self._has_ended()

    def _begin(self, transaction: SessionTransaction, connection: Connection) -> Share:
        self._has_ended()
        self._root = transaction
        # Refused until the binding has succeeded: after an error, the session still holds the connection.
        self._refused = True
        joined = self._given.pop(connection, False)
        share = Share(self._me, connection, joined, Sharers.of(connection, joined=joined))
        self._shares.append(share)
        return share

    def _ask(self, connection: Connection) -> Principal:
        """Return the present principal of the session."""
        caller: Principal | Any = self._options.token if self._caller is None else self._caller
        if callable(caller):
            caller = caller()
            if inspect.isawaitable(caller):
                caller = _wait(connection, caller)
        if caller is None:
            raise CallerRequired(_UNIDENTIFIED)
        if not isinstance(caller, Caller | ServiceAccess):
            verifier = _require(self._options.verifier)
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
    signing_key: SigningKey | None = None,
    settings: Mapping[str, str] | None = None,
    on_bind: BindHook | None = None,
    check_login_role: bool = True,
    options: BindingOptions | None = None,
) -> None:
    """Make every session of *factory* run as a caller, and refuse to run without one.

    The sessions take ``token=…``, or you give them a caller by ``identify()``.

    Args:
        factory: a sessionmaker, an async_sessionmaker, or a scoped session of one.
        verifier: verifies the tokens.
        token: a function that returns the token or the Caller, for sessions that have neither.  Under
            asyncio it may be a coroutine function.
        signing_key: the key that ``sqla-rls rotate-key`` prints, or a function that returns the present one.
            None reads the environment variable SQLA_RLS_SIGNING_KEY.  With a key, callers are always signed,
            unless ``signing="off"``.
        settings: settings of your app for every transaction, such as ``{"statement_timeout": "10s"}``.
        on_bind: a function that audits or traces each transaction.  Its arguments are the Session, its
            Connection, and the Caller or ServiceAccess.  If it raises, the transaction is refused.
        check_login_role: whether one SELECT checks that row security holds for a role, the first time that a
            connection of the pool takes on the role.
        options: how the caller is bound; None is ``BindingOptions()``.

    Raises:
        DeclarationError: row security is enforced on the factory already, or an argument is wrong.

    Emits:
        One SELECT of ``set_config(…, true)`` at the beginning of each transaction.
    """
    maker = _maker_of(factory)
    base = _session_class(maker)
    if issubclass(base, RowSecuritySession):
        raise DeclarationError(
            "row security can't be enforced: it is enforced on this session factory already. "
            "Call enforce_row_security() once"
        )
    known = SessionOptions(
        binding=options or BindingOptions(),
        verifier=verifier,
        token=token,
        signing_key=signing_key or os.environ.get("SQLA_RLS_SIGNING_KEY"),
        settings=dict(settings or {}),
        check_login_role=check_login_role,
        on_bind=on_bind,
    )
    outer: Any = getattr(factory, "session_factory", factory)
    outer.begin = _without_arguments(outer.begin)
    enforced = type(base.__name__, (RowSecuritySession, base), {"_options": known})
    # insert=True: the binding comes before the statements of other listeners.
    event.listen(enforced, "after_begin", _after_begin, insert=True)
    event.listen(enforced, "after_transaction_end", _after_transaction_end)
    if isinstance(maker, sessionmaker):
        maker.class_ = enforced
    else:
        # async_sessionmaker has no events, but its sync session class has.
        maker.configure(sync_session_class=enforced)
    for bound_to in (maker.kw.get("bind"), *(maker.kw.get("binds") or {}).values()):
        if isinstance(engine := getattr(bound_to, "sync_engine", bound_to), Engine):
            install(engine, known)


def is_enforced(factory: Factory) -> bool:
    """Return whether row security is enforced on *factory*."""
    return issubclass(_session_class(_maker_of(factory)), RowSecuritySession)


def _maker_of(factory: Factory) -> Any:
    maker: Any = getattr(factory, "session_factory", factory)
    # In advanced-alchemy, a sessionmaker is the sync_session_class of an async_sessionmaker.
    inner = getattr(maker, "kw", {}).get("sync_session_class")
    return inner if isinstance(inner, sessionmaker) else maker


def _session_class(maker: Any) -> type[Session]:
    found: type[Session] = (
        maker.class_
        if isinstance(maker, sessionmaker)
        else maker.kw.get("sync_session_class", maker.class_.sync_session_class)
    )
    return found


def _without_arguments(begin: Callable[[], Any]) -> Callable[..., Any]:
    """Return a factory's ``begin()`` that explains how to pass a token."""

    def explained(*args: Any, **kw: Any) -> Any:
        if args or kw:
            raise DeclarationError(
                "the session can't begin: begin() of a session factory takes no arguments. Write "
                "`with SessionLocal(token=…) as session, session.begin():`, under asyncio with `async with`"
            )
        return begin()

    return explained


def identify(session: AnySession, caller: Caller) -> None:
    """Run the transactions of *session* as *caller* from now on.

    Raises:
        BindingError: row security isn't enforced on the session's factory.
        CallerRequired: *caller* isn't a Caller.
        TransactionInProgress: a transaction is bound to another caller.
        CallerChanged: changes of another caller aren't flushed yet.
    """
    target = _enforced(session)
    if not isinstance(caller, Caller):
        raise CallerRequired(
            f"the session can't be identified: identify() takes a Caller, not {type(caller).__name__}. "
            "Verify the token first"
        )
    names = target._options.binding.principal_claims
    bound = target._bound_now()
    if bound is not None and principal_key(bound, names) != principal_key(caller, names):
        raise TransactionInProgress(
            "the caller can't change: a transaction of another caller is in progress. "
            "Call commit() or rollback() before identify()"
        )
    known = [one for one in (target._caller, target._last) if one is not None]
    if any(
        not isinstance(one, Caller) or principal_key(one, names) != principal_key(caller, names)
        for one in known
    ):
        if target.new or target.dirty or target.deleted:
            raise CallerChanged(
                "the caller can't change: changes of another caller wait to be flushed, and would run as "
                "this caller. Commit or expunge them before identify()"
            )
        # Row security may hide from this caller the values that the other one has loaded.
        target.expire_all()
    target._caller, target._last = caller, None


@overload
def service_session(
    factory: async_sessionmaker[_AS] | async_scoped_session[_AS], *, reason: str, role: str | None = None
) -> _AS: ...
@overload
def service_session(
    factory: sessionmaker[_S] | scoped_session[_S], *, reason: str, role: str | None = None
) -> _S: ...
def service_session(factory: Any, *, reason: str, role: str | None = None) -> Any:
    """Return a new session of *factory* that runs without a caller, for a job or a repair.

    ``auth.user_id()`` is NULL in its transactions.

    Args:
        factory: a session factory on which row security is enforced.
        reason: a text that is logged at INFO with each transaction, and passed to ``on_bind``.
        role: the role of the transactions.  None is the login role, which may bypass row security.

    Raises:
        DeclarationError: the reason is empty, or the role isn't a name of a role.
        BindingError: row security isn't enforced on *factory*.
    """
    access = ServiceAccess(reason=reason, role=role)
    session = getattr(factory, "session_factory", factory)()
    _enforced(session)._caller = access
    return session


def _after_begin(
    session: RowSecuritySession, transaction: SessionTransaction, connection: Connection
) -> None:
    if transaction.nested:
        # A savepoint is part of a bound transaction.
        return
    options = session._options
    share = session._begin(transaction, connection)
    try:
        if session.twophase:
            raise UnsupportedTransaction(
                "the caller can't be bound: PREPARE TRANSACTION loses the binding. "
                "Use a Session without twophase"
            )
        principal = session._bound or session._ask(connection)
        names, last = options.binding.principal_claims, session._last
        key = principal_key(principal, names)
        if last is not None and last is not principal and principal_key(last, names) != key:
            raise CallerChanged(
                "the caller can't change: the session holds objects that another caller loaded. "
                "Close the session, or call identify()"
            )
        share.require_one_caller(key)
        plan = plan_of(connection, options)
        _look(connection, plan)
        share.bound(key, bind(connection, principal, plan, joined=share.joined))
        if isinstance(principal, ServiceAccess):
            _log.info("service session as role %r: %s", principal.role or "(login role)", principal.reason)
        elif principal.role not in (safe := options.safe.setdefault(connection.engine.pool, set())):
            _check(connection, principal, plan)
            safe.add(principal.role)
        session._bound = session._last = principal
        session._refused = False
        if options.on_bind is not None:
            options.on_bind(session, connection, principal)
    except BaseException as error:
        session._refused = True
        if isinstance(error, Exception):
            share.refuse()
        else:
            # Cancelled: it is unknown whether the binding has reached the server.
            connection.invalidate()
        raise


def _look(connection: Connection, plan: ConnectionPlan) -> None:
    """Check the first connection of a pool, before a caller is bound."""
    options, pool = plan.options, connection.engine.pool
    if pool in options.known:
        return
    name_denials(connection.engine)
    if plan.server is not None:
        _log.info(
            "callers are bound %s", "unsigned" if plan.signer is None else f"signed: {plan.signer.kind}"
        )
        if plan.server.verifier:
            explain_rejections(connection.engine)
        if options.binding.reset != "none" and plan.is_direct:
            driver_connection = connection.connection.driver_connection
            if not (options.goes_with_begin and isinstance(driver_connection, DriverConnection)):
                require_declared_settings(connection, options, resets=False)
            elif driver_connection.idle:
                require_declared_settings(connection, options, resets=True)
            else:
                return
    options.known.add(pool)


def _check(connection: Connection, caller: Caller, plan: ConnectionPlan) -> None:
    """Check a role when it is bound for the first time on a pool."""
    options = plan.options
    if options.check_login_role:
        require_safe_roles(connection, member_of=options.binding.member_of.get(caller.role, ()))
    if plan.signer is not None or (plan.server is not None and plan.server.verifier and caller.claims):
        require_verified(connection, must_ask=options.binding.signing == "required")


def _after_transaction_end(session: RowSecuritySession, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session._end()


def _enforced(session: Any) -> RowSecuritySession:
    unscoped = session.registry() if hasattr(session, "registry") else session
    target: Any = getattr(unscoped, "sync_session", unscoped)
    if not isinstance(target, RowSecuritySession):
        raise BindingError(
            "the session can't have a caller: row security isn't enforced on it, so that the caller would be "
            "ignored. Call enforce_row_security() on its factory"
        )
    return target


def _require(verifier: Verifier | None) -> Verifier:
    if verifier is None:
        raise DeclarationError(
            "the token can't be verified: a session with a token needs a verifier. "
            "Call enforce_row_security(factory, verifier=Verifier(…))"
        )
    return verifier


def _wait(connection: Connection, answer: Any) -> Any:
    """Return the result of the awaitable *answer*.

    Raises:
        DeclarationError: the session isn't one of asyncio.
    """
    if not connection.dialect.is_async:
        if inspect.iscoroutine(answer):
            answer.close()
        raise DeclarationError(
            "the token can't be had: a sync session can't wait for a coroutine. "
            "Let token= return the token itself"
        )
    driver_connection: Any = connection.connection.dbapi_connection
    return driver_connection.run_async(lambda _: answer)
