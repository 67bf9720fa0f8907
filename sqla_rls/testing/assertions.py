"""The assertions about a caller's rows, on a session."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from secrets import randbelow
from typing import Any, Literal, TypeAlias
from uuid import uuid4

from sqlalchemy import (
    ColumnElement,
    Connection,
    Executable,
    FromClause,
    Join,
    MetaData,
    Table,
    func,
    inspect,
    select,
    text,
    true,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Mapper, Session

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
    # Not by the ORM: filters of the app may hide the row from it.
    session.flush()
    connection = session.connection()
    tables = dict(_keys(mapper, key))
    for table, conditions in tables.items():
        if _found(connection, table, conditions):
            lines = [f"role {caller.role!r} can see {instance!r} in {table}:"]
            raise AssertionError("\n".join([*lines, *_why(session, caller, instance, signing_key)]))
    found = [_found_by_owner(connection, table, conditions) for table, conditions in tables.items()]
    if found and True not in found and None not in found:
        raise DeclarationError(
            f"that a row is hidden can't be proved: there is no such row, {instance!r}. Add it as the owner"
        )


def _keys(mapper: Mapper[Any], key: Sequence[Any]) -> Iterator[tuple[FromClause, list[ColumnElement[bool]]]]:
    """Yield the tables of a row, an inherited one has several, with the conditions on its key."""
    values = {
        mapper.get_property_by_column(column).key: value
        for column, value in zip(mapper.primary_key, key, strict=True)
    }
    whole = mapper.persist_selectable
    for table in mapper.tables if isinstance(whole, Table | Join) else [whole]:
        columns = [one for one in mapper.primary_key if table.c.contains_column(one)]
        if len(columns) < len(key):
            columns = list(table.primary_key)
        names = [mapper.get_property_by_column(column).key for column in columns]
        if names and values.keys() >= set(names):
            yield table, [column == values[name] for column, name in zip(columns, names, strict=True)]


def _found(connection: Connection, table: FromClause, conditions: list[ColumnElement[bool]]) -> bool:
    """Return whether the role of *connection* can see the row.

    Raises:
        DeclarationError: the role may read columns of the table, but not those of the key.
    """
    # A denial fails the transaction up to the last savepoint.
    savepoint = connection.begin_nested()
    try:
        return bool(connection.scalar(select(true()).select_from(table).where(*conditions)))
    except AccessDenied:
        pass
    finally:
        savepoint.rollback()
    savepoint = connection.begin_nested()
    try:
        # count(*) needs the privilege on any column.
        rows = connection.scalar(select(func.count()).select_from(table))
    except AccessDenied:
        return False
    finally:
        savepoint.rollback()
    if rows:
        raise DeclarationError(
            f"the row can't be looked up: the role reads rows of {table}, but not the columns of the key. "
            "Count rows with assert_rows() instead"
        )
    return False


def _found_by_owner(
    connection: Connection, table: FromClause, conditions: Sequence[ColumnElement[bool]] = ()
) -> bool | None:
    """Return whether *table* has such a row; None if the owner of the connection may not see all rows."""
    savepoint = connection.begin_nested()
    try:
        connection.exec_driver_sql("SET LOCAL ROLE NONE")
        # FORCE applies policies to the owner, too.  Postgres then raises an error.
        connection.exec_driver_sql("SET LOCAL row_security = off")
        return bool(connection.scalar(select(select(true()).select_from(table).where(*conditions).exists())))
    except DBAPIError:
        return None
    finally:
        savepoint.rollback()


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


def strangers() -> tuple[str, str]:
    """Return new subjects: a policy may cast its subject to a uuid, or to an integer."""
    return str(uuid4()), str(2**30 + randbelow(2**30))


def require_rows(connection: Connection, metadata: MetaData, public: Collection[Table]) -> None:
    """Raise DeclarationError if no table that ``rows_seen()`` looks at has a row."""
    if others := [one for one in public if not isinstance(one, Table)]:
        raise DeclarationError(
            f"that rows are isolated can't be proved: {others[0]!r} of public= isn't a Table. "
            "Give Model.__table__"
        )
    if all(_found_by_owner(connection, table) is False for table in _with_policies(metadata, public)):
        raise DeclarationError(
            "that rows are isolated can't be proved: the tables with policies, except those of public=, have "
            "no rows. Add rows of several users"
        )


def _with_policies(metadata: MetaData, public: Collection[Table]) -> Iterator[Table]:
    from sqla_rls.declare.base import TableDeclarations
    from sqla_rls.declare.policies import Policy

    for table in metadata.sorted_tables:
        if table not in public and TableDeclarations.of(table).of_type(Policy):
            yield table


@dataclass(frozen=True, slots=True)
class Seen:
    """The rows that a caller sees."""

    #: A text about each table of which the caller sees rows.
    tables: dict[Table, str]
    #: The errors of tables whose policies can't read the subject.
    errors: dict[Table, DBAPIError]


def require_isolated(strangers: Sequence[Seen], anonymous: Seen) -> None:
    """Raise an error if a caller sees rows, or if the policies of a table read no stranger's subject."""
    if lines := [line for one in (*strangers, anonymous) for line in one.tables.values()]:
        raise AssertionError("rows aren't isolated: " + "\n".join(lines))
    for table, error in strangers[0].errors.items():
        if all(table in one.errors for one in strangers):
            reason = str(error.orig).partition("\n")[0]
            raise DeclarationError(
                f"that rows of {table.fullname} are isolated can't be proved: its policies read neither a "
                f"uuid nor an integer as a subject: {reason}. Try other subjects with as_caller()"
            ) from error


def rows_seen(
    session: Session,
    caller: Caller,
    metadata: MetaData,
    public: Collection[Table],
    signing_key: SigningKey | None,
) -> Seen:
    """Return what the caller sees of the tables with policies, except *public*."""
    seen = Seen({}, {})
    for table in _with_policies(metadata, public):
        savepoint = session.begin_nested()
        try:
            rows = session.scalar(select(func.count()).select_from(table))
        except AccessDenied:
            rows = 0
        except DBAPIError as error:
            # Class 22: a policy casts the subject to a type that has no such value.
            if not str(getattr(error.orig, "sqlstate", None)).startswith("22"):
                raise
            rows, seen.errors[table] = 0, error
        finally:
            savepoint.rollback()
        if rows:
            who = "a stranger" if caller.subject else "an anonymous caller"
            why = "".join(f"\n{line}" for line in _why_one(session, caller, table, signing_key))
            seen.tables[table] = f"{who} sees {rows} rows of {table.fullname}{why}"
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
