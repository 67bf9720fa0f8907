"""The hook that binds the caller when a transaction of a session begins."""

from __future__ import annotations

import logging
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.orm import SessionTransaction

from sqla_rls.driver.base import ENDED, DriverConnection
from sqla_rls.exc import (
    CallerChanged,
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
from sqla_rls.session.plan import ConnectionPlan, plan_of
from sqla_rls.session.principal import principal_key
from sqla_rls.session.row_security_session import RowSecuritySession
from sqla_rls.session.sharing import Share
from sqla_rls.tokens.caller import Caller

_log = logging.getLogger(__name__)


def after_begin(session: RowSecuritySession, transaction: SessionTransaction, connection: Connection) -> None:
    if transaction.nested:
        # A savepoint is part of a bound transaction.
        return
    if session._root is not None:
        session._has_ended()
    session._root = transaction
    # By its entry in the pool, without the properties of SQLAlchemy: this runs in each transaction.
    entry = connection.connection._connection_record
    info = connection.info if entry is None else entry.info
    given, options = session._given, session._options
    share = Share(session, connection, info, given is not None and given.pop(connection, False))
    if session._shares is None:
        session._shares = [share]
    else:
        session._shares.append(share)
    try:
        if session.twophase:
            raise UnsupportedTransaction(
                "the caller can't be bound: PREPARE TRANSACTION loses the binding. "
                "Use a Session without twophase"
            )
        principal: Any = session._bound or session._caller
        if not isinstance(principal, Caller):
            principal = session._bound or session._ask(connection)
        last = session._last
        if last is not None and last is not principal:
            names = options.binding.principal_claims
            if principal_key(last, names) != principal_key(principal, names):
                raise CallerChanged(
                    "the caller can't change: the session holds objects that another caller loaded. "
                    "Close the session, or call identify()"
                )
        if share.sharers:
            share.require_one_caller(principal)
        plan = info.get(options) or plan_of(connection, options)
        if not plan.pool.is_known:
            _look(connection, plan)
        share.bound(principal, bind(connection, principal, plan, joined=share.joined))
        if not isinstance(principal, Caller):
            _log.info("service session as role %r: %s", principal.role or "(login role)", principal.reason)
        elif principal.role not in plan.pool.safe:
            _check(connection, principal, plan)
            plan.pool.safe.add(principal.role)
        session._bound = session._last = principal
        share.is_refused = False
        if plan.driver_connection is None and not share.joined:
            share.guard(plan.template.mark)
        if options.on_bind is not None:
            options.on_bind(session, connection, principal)
            if not share.is_in_force:
                raise TransactionRefused(ENDED)
    except BaseException as error:
        share.is_refused = True
        if isinstance(error, Exception):
            share.refuse()
        else:
            # Cancelled: it is unknown whether the binding has reached the server.
            connection.invalidate()
        raise


def _look(connection: Connection, plan: ConnectionPlan) -> None:
    """Check the first connection of a pool, before a caller is bound."""
    options = plan.options
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
    plan.pool.is_known = True


def _check(connection: Connection, caller: Caller, plan: ConnectionPlan) -> None:
    """Check a role when it is bound for the first time on a pool."""
    options = plan.options
    if options.check_login_role:
        require_safe_roles(connection, member_of=options.binding.member_of.get(caller.role, ()))
    if plan.signer is not None or (plan.server is not None and plan.server.verifier and caller.claims):
        require_verified(connection, must_ask=options.binding.signing == "required")
