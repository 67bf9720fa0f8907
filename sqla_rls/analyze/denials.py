"""The reason of a denial, asked on a connection of the owner, for the message of the error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    URL,
    BinaryExpression,
    BindParameter,
    BooleanClauseList,
    ColumnElement,
    Connection,
    Engine,
    Table,
    create_engine,
    make_url,
    text,
)
from sqlalchemy.dialects.postgresql.dml import OnConflictDoNothing, OnConflictDoUpdate
from sqlalchemy.pool import NullPool
from sqlalchemy.sql import operators, visitors

from sqla_rls.analyze.explain import explain_access, explain_role
from sqla_rls.analyze.why.constraints import OnConflict
from sqla_rls.analyze.why.explanation import Explanation
from sqla_rls.analyze.why.target import as_bound
from sqla_rls.exc import AnalysisError
from sqla_rls.session.denials import DeniedStatement

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

#: The most rows of one statement that are explained.
_ROWS: Final = 20
_COMMITTED: Final = (
    "  The answer sees committed rows only: the denied transaction, or a trigger, has made others."
)


class DenialExplainer:
    """Explains a denied statement on a connection of the owner: ``BindingOptions(explain_denials=…)``.

    It is for development.  The answer has values of rows that the caller can't see.

    Args:
        owner: an engine, or the URL, of the owner of the tables, of a superuser, or of a role with BYPASSRLS.
            The role must be a member of the callers' roles.  A URL is connected to for each denial.  Under
            asyncio, an AsyncEngine doesn't block the event loop.
        timeout: the most seconds that the answer waits for a lock.  A statement takes twice as many at most.
    """

    def __init__(self, owner: Engine | AsyncEngine | URL | str, *, timeout: float = 2.0) -> None:
        if isinstance(owner, str | URL):
            url = make_url(owner)
            if url.drivername in ("postgres", "postgresql"):
                url = url.set(drivername="postgresql+psycopg")
            owner = create_engine(url, poolclass=NullPool)
        self._engine = owner if isinstance(owner, Engine) else owner.sync_engine
        self._timeout = timeout

    def __call__(self, denied: DeniedStatement) -> str:
        """Return the answer of ``sqla-rls why`` for *denied*, in several lines.

        Raises:
            AnalysisError: the statement can't be explained.
        """
        with self._engine.connect() as connection, connection.begin() as transaction:
            # The denied transaction holds the locks that it took before its last savepoint.
            milliseconds = int(self._timeout * 1000)
            limits = {"lock_timeout": f"{milliseconds}", "statement_timeout": f"{2 * milliseconds}"}
            for name, value in {**denied.settings, **limits}.items():
                connection.execute(
                    text("SELECT pg_catalog.set_config(:name, :value, true)"), {"name": name, "value": value}
                )
            try:
                return "\n".join(_lines(connection, denied))
            finally:
                transaction.rollback()


def _lines(connection: Connection, denied: DeniedStatement) -> Iterator[str]:
    statement = denied.statement
    if denied.command == "SELECT" and statement is not None:
        for each in _tables_of(statement):
            yield explain_role(connection, denied.caller, _name(connection, each, denied), "SELECT")
        return
    target: Any = getattr(statement, "table", None)
    if denied.command is None or not isinstance(target, Table):
        raise AnalysisError("its command and table are unknown. Ask sqla-rls why")
    table: Table = target
    name = _name(connection, table, denied)
    read = [_row_of(connection, table, denied, parameters) for parameters in denied.parameters[:_ROWS]]
    questions = [row for row in read if row is not None]
    if not questions or len(questions) < len(read):
        yield explain_role(connection, denied.caller, name, denied.command, returning=denied.returning)
        return
    for number, question in enumerate(questions, 1):
        explained = explain_access(
            connection,
            denied.caller,
            name,
            denied.command,
            key=question.key,
            row=question.row,
            returning=denied.returning,
            on_conflict=question.on_conflict,
            signing_key=denied.signing_key,
        )
        if explained.allowed and number < len(questions):
            continue
        if len(denied.parameters) > 1:
            yield f"Row {number} of {len(denied.parameters)}:"
        yield str(_without_values(explained) if denied.hide_values else explained)
        if explained.allowed or explained.reason == "no_such_row":
            yield _COMMITTED
        return


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    key: Mapping[str, Any] | None
    row: Mapping[str, Any]
    on_conflict: OnConflict | None = None


def _row_of(
    connection: Connection, table: Table, denied: DeniedStatement, parameters: Mapping[str, Any]
) -> _Row | None:
    """The row of one set of parameters; None if the statement doesn't name one by its values."""
    statement: Any = denied.statement
    if getattr(statement, "_multi_values", ()) or getattr(statement, "select", None) is not None:
        return None
    written: Mapping[Any, Any] = getattr(statement, "_values", None) or {}
    if any(
        isinstance(each, ColumnElement) and not isinstance(each, BindParameter) for each in written.values()
    ):
        return None
    found = _equalities(statement, table, denied.bind_names, parameters)
    dialect = connection.dialect
    row = {
        column.name: as_bound(parameters[column.key], column.type, dialect)
        for column in table.columns
        if column.key in parameters and column.key not in found.names
    }
    if denied.command == "INSERT":
        clause = getattr(statement, "_post_values_clause", None)
        if clause is None:
            return _Row(key=None, row=row)
        on_conflict = _on_conflict(clause, row)
        return None if on_conflict is None else _Row(key=None, row=row, on_conflict=on_conflict)
    key = {
        column.name: as_bound(found.values[column.key], column.type, dialect)
        for column in table.primary_key
        if column.key in found.values
    }
    if not key or len(key) < len(table.primary_key):
        return None
    return _Row(key=key, row=row)


@dataclass(frozen=True, slots=True)
class _Equalities:
    #: The values that columns are compared with, by their keys, and the names of their parameters.
    values: Mapping[str, Any]
    names: frozenset[str]


def _equalities(
    statement: Any, table: Table, bind_names: Mapping[Any, str], parameters: Mapping[str, Any]
) -> _Equalities:
    values: dict[str, Any] = {}
    names: set[str] = set()
    for condition in _joined_by_and(getattr(statement, "_where_criteria", ())):
        for element in visitors.iterate(condition):
            if isinstance(element, BindParameter):
                names.add(bind_names.get(element, element.key))
        if not isinstance(condition, BinaryExpression) or condition.operator is not operators.eq:
            continue
        left: Any = condition.left
        right = condition.right
        # The ORM annotates columns, which stay members of the collection.
        if table.columns.contains_column(left) and isinstance(right, BindParameter):
            name = bind_names.get(right, right.key)
            if name in parameters:
                values[left.key] = parameters[name]
    return _Equalities(values, frozenset(names))


def _joined_by_and(criteria: Sequence[Any]) -> Iterator[Any]:
    for each in criteria:
        if isinstance(each, BooleanClauseList) and each.operator is operators.and_:
            yield from _joined_by_and(list(each.clauses))
        else:
            yield each


def _on_conflict(clause: Any, row: Mapping[str, Any]) -> OnConflict | None:
    """The clause; None if it has a constraint, an expression or a WHERE."""
    is_update = isinstance(clause, OnConflictDoUpdate)
    if not is_update and not isinstance(clause, OnConflictDoNothing):
        return None
    target: Sequence[Any] = clause.inferred_target_elements or ()
    if clause.constraint_target is not None or clause.inferred_target_whereclause is not None:
        return None
    columns: list[Any] = [getattr(element, "name", element) for element in target]
    if not all(isinstance(name, str) for name in columns):
        return None
    if not is_update:
        return OnConflict("nothing", columns)
    values: dict[str, Any] = {}
    # Pairs in SQLAlchemy 2.0, a mapping in 2.1.
    given: dict[Any, Any] = dict(clause.update_values_to_set)
    for key, value in given.items():
        name: str = getattr(key, "name", key)
        if isinstance(value, BindParameter):
            values[name] = value.value
        elif _is_excluded(value) and value.name in row:
            values[name] = row[value.name]
        elif isinstance(value, ColumnElement):
            return None
        else:
            values[name] = value
    return None if clause.update_whereclause is not None else OnConflict("update", columns, values)


def _is_excluded(value: Any) -> bool:
    table = getattr(value, "table", None)
    return getattr(table, "name", None) == "excluded" and not isinstance(table, Table)


def _tables_of(statement: Any) -> list[Table]:
    found: dict[Table, None] = {}
    for element in visitors.iterate(statement):
        if isinstance(element, Table):
            found[element] = None
    return list(found)


def _name(connection: Connection, table: Table, denied: DeniedStatement) -> str:
    preparer = connection.dialect.identifier_preparer
    schema = denied.schemas.get(table.schema, table.schema)
    name = preparer.quote(table.name)
    return name if schema is None else f"{preparer.quote_schema(schema)}.{name}"


def _without_values(explained: Explanation) -> Explanation:
    policies = [
        replace(policy, failed=tuple(replace(failed, values={}) for failed in policy.failed))
        for policy in explained.policies
    ]
    return replace(explained, policies=tuple(policies))
