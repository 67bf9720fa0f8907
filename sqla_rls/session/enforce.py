"""Sessions that bind a caller to every transaction.

The hook listens to ``Session.after_begin``.  AsyncSession has the same event, so both share one
implementation.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, overload

from sqlalchemy import Engine, event
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from sqla_rls.exc import (
    BindingError,
    CallerChanged,
    CallerRequired,
    DeclarationError,
    TransactionInProgress,
)
from sqla_rls.session.hook import after_begin
from sqla_rls.session.options import BindHook, BindingOptions, SessionOptions, TokenCallback
from sqla_rls.session.plan import install, require_own_connections
from sqla_rls.session.principal import ServiceAccess, principal_key
from sqla_rls.session.row_security_session import RowSecuritySession
from sqla_rls.tokens.caller import Caller

if TYPE_CHECKING:
    # The asyncio extension needs greenlet, and a sync application may not have it.
    from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker

    from sqla_rls.tokens.signing import SigningKey
    from sqla_rls.tokens.verifier import Verifier

    Factory: TypeAlias = (
        sessionmaker[Any] | async_sessionmaker[Any] | scoped_session[Any] | async_scoped_session[Any]
    )
    AnySession: TypeAlias = Session | AsyncSession | scoped_session[Any] | async_scoped_session[Any]
    _S = TypeVar("_S", bound=Session)
    _AS = TypeVar("_AS", bound=AsyncSession)


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
        DeclarationError: row security is enforced on the factory already, an argument is wrong, or the pool
            of its engine lends one connection several times.

    Emits:
        One SELECT of ``set_config(…, true)``, or SET LOCAL, at the beginning of each transaction.
    """
    maker = _maker_of(factory)
    base = _session_class(maker)
    if issubclass(base, RowSecuritySession):
        raise DeclarationError(
            "row security can't be enforced: it is enforced on this session factory already. "
            "Call enforce_row_security() once"
        )
    binds = (maker.kw.get("bind"), *(maker.kw.get("binds") or {}).values())
    engines = [engine for bind in binds if isinstance(engine := getattr(bind, "sync_engine", bind), Engine)]
    for engine in engines:
        require_own_connections(engine)
    known = SessionOptions(
        binding=options or BindingOptions(),
        verifier=verifier,
        token=token,
        signing_key=signing_key or os.environ.get("SQLA_RLS_SIGNING_KEY") or None,
        settings=dict(settings or {}),
        check_login_role=check_login_role,
        on_bind=on_bind,
    )
    outer: Any = getattr(factory, "session_factory", factory)
    outer.begin = _without_arguments(outer.begin)
    enforced = type(base.__name__, (RowSecuritySession, base), {"_options": known})
    # insert=True: the binding comes before the statements of other listeners.
    event.listen(enforced, "after_begin", after_begin, insert=True)
    event.listen(enforced, "after_transaction_end", RowSecuritySession._end)
    if isinstance(maker, sessionmaker):
        maker.class_ = enforced
    else:
        # async_sessionmaker has no events, but its sync session class has.
        maker.configure(sync_session_class=enforced)
    for engine in engines:
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
    target: Any = session
    if not isinstance(target, RowSecuritySession):
        target = getattr(session, "sync_session", session)
        if not isinstance(target, RowSecuritySession):
            target = _enforced(session)
    if not isinstance(caller, Caller):
        raise CallerRequired(
            f"the session can't be identified: identify() takes a Caller, not {type(caller).__name__}. "
            "Verify the token first"
        )
    if target._root is None and target._caller is None and target._last is None:
        target._caller = caller
        return
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


def _enforced(session: Any) -> RowSecuritySession:
    if isinstance(session, RowSecuritySession):
        return session
    unscoped = session.registry() if hasattr(session, "registry") else session
    target: Any = getattr(unscoped, "sync_session", unscoped)
    if not isinstance(target, RowSecuritySession):
        raise BindingError(
            "the session can't have a caller: row security isn't enforced on it, so that the caller would be "
            "ignored. Call enforce_row_security() on its factory"
        )
    return target
