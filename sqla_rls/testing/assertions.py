"""The assertions about a caller's rows, on a session."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from sqlalchemy import Executable, MetaData, Table, func, inspect, select, text
from sqlalchemy.orm import Session

from sqla_rls.analyze import explain_access
from sqla_rls.exc import (
    AccessDenied,
    AnalysisError,
    DeclarationError,
    ExpiredToken,
    PrivilegeMissing,
    RowSecurityViolation,
)
from sqla_rls.tokens.caller import Caller
from sqla_rls.tokens.signing import SigningKey

#: The reason of a denial: a policy refuses the new row, or the role lacks a privilege.
DenialReason: TypeAlias = Literal["policy", "privilege"]


_REASONS: dict[DenialReason, type[AccessDenied]] = {
    "policy": RowSecurityViolation,
    "privilege": PrivilegeMissing,
}


NOT_DENIED = "Postgres denied nothing: every statement of the caller succeeded"


def assert_expired(session: Session) -> None:
    session.rollback()
    try:
        session.connection()
    except ExpiredToken:
        return
    finally:
        session.rollback()
    raise AssertionError("the caller hasn't expired: the session began a transaction")


def assert_rows(session: Session, statement: str, count: int) -> None:
    savepoint = session.begin_nested()
    denial = ""
    try:
        done: Any = session.execute(text(statement.replace(":", "\\:")))
        found = len(done.all()) if done.returns_rows else done.rowcount
    except AccessDenied as error:
        found, denial = 0, f" ({error.orig})"
    finally:
        savepoint.rollback()
    if found != count:
        raise AssertionError(f"the statement reaches {found} rows, not {count}{denial}: {statement}")


def _key(row: Any) -> Any:
    """Equal for two instances of one row, which two sessions have loaded."""
    state = inspect(row, raiseerr=False)
    if state is not None and getattr(state, "identity", None) is not None:
        return state.mapper.class_, state.identity
    return row


def assert_visible(
    session: Session,
    caller: Caller,
    query: Executable,
    rows: Collection[Any],
    signing_key: SigningKey | None,
) -> None:
    found: Sequence[Any] = session.execute(query).all()
    found = [row[0] if len(row) == 1 else tuple(row) for row in found]
    seen, wanted = Counter(map(_key, found)), Counter(map(_key, rows))
    if seen == wanted:
        return
    lines = [f"the rows of the query differ for role {caller.role!r}:"]
    lines += [f"  not wanted: {row!r}" for row in found if _key(row) not in wanted]
    for row in rows:
        if _key(row) not in seen:
            lines += [f"  not visible: {row!r}", *_why(session, caller, row, signing_key)]
    raise AssertionError("\n".join(lines))


def assert_hidden(session: Session, caller: Caller, instance: Any, signing_key: SigningKey | None) -> None:
    mapper = inspect(instance).mapper
    key = mapper.primary_key_from_instance(instance)
    if None in key:
        raise DeclarationError(
            f"the row can't be looked up: {instance!r} has no primary key. Give it one, or flush it"
        )
    # A denial fails the transaction up to the last savepoint.
    savepoint = session.begin_nested()
    try:
        found = session.get(mapper.class_, key, populate_existing=True)
    except AccessDenied:
        found = None
    finally:
        savepoint.rollback()
    if found is not None:
        lines = [f"role {caller.role!r} can see {instance!r}:", *_why(session, caller, instance, signing_key)]
        raise AssertionError("\n".join(lines))


def assert_denied(session: Session, work: Callable[[Session], Any], reason: DenialReason | None) -> None:
    savepoint = session.begin_nested()
    try:
        work(session)
        session.flush()
    except AccessDenied as denial:
        require_reason(denial, reason)
    else:
        raise AssertionError(NOT_DENIED)
    finally:
        savepoint.rollback()


def require_reason(denial: AccessDenied, reason: DenialReason | None) -> None:
    if reason is not None and not isinstance(denial, _REASONS[reason]):
        raise AssertionError(f"the reason of the denial isn't {reason!r}: {denial}") from denial


def rows_seen(
    session: Session,
    caller: Caller,
    metadata: MetaData,
    public: Collection[Table],
    signing_key: SigningKey | None,
) -> list[str]:
    from sqla_rls.declare.base import TableDeclarations
    from sqla_rls.declare.policies import Policy

    seen = []
    for table in metadata.sorted_tables:
        if table in public or not TableDeclarations.of(table).of_type(Policy):
            continue
        savepoint = session.begin_nested()
        try:
            rows = session.scalar(select(func.count()).select_from(table))
        except AccessDenied:
            rows = 0
        finally:
            savepoint.rollback()
        if rows:
            who = "a stranger" if caller.subject else "an anonymous caller"
            why = "".join(f"\n{line}" for line in _why_one(session, caller, table, signing_key))
            seen.append(f"{who} sees {rows} rows of {table.fullname}{why}")
    return seen


def _why_one(session: Session, caller: Caller, table: Table, signing_key: SigningKey | None) -> list[str]:
    """The lines about a row of *table* that the caller can see."""
    columns = list(table.primary_key) or list(table.columns)
    row = session.execute(select(*columns).limit(1)).one()
    key = {column.name: value for column, value in zip(columns, row, strict=True)}
    return _why(session, caller, table, signing_key, key)


def _why(
    session: Session, caller: Caller, target: Any, signing_key: SigningKey | None, key: Any = None
) -> list[str]:
    """The lines of ``sqla-rls why``, asked as the owner of the connection."""
    connection = session.connection()
    savepoint = connection.begin_nested()
    try:
        connection.exec_driver_sql("SET LOCAL ROLE NONE")
        # The caller may have expired in the meantime.
        caller = replace(caller, expires_at=None)
        explained = explain_access(connection, caller, target, key=key, signing_key=signing_key)
    except AnalysisError as problem:
        return [f"    {problem}"]
    finally:
        savepoint.rollback()
    return [f"    {line}" for line in str(explained).splitlines()]
