"""The constraints that a new row breaks, found without writing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias, get_args

from sqlalchemy import ColumnElement, RowMapping, Select, Text, literal, literal_column, select, text

from sqla_rls.analyze.why.actions import Actions
from sqla_rls.analyze.why.explanation import Reason
from sqla_rls.analyze.why.rows import Rows, quoted_literal, without_parameters
from sqla_rls.analyze.why.target import query
from sqla_rls.exc import AnalysisError

#: The reason, and a sentence.
Broken: TypeAlias = tuple[Reason, str]
_Action: TypeAlias = Literal["nothing", "update"]


@dataclass(frozen=True, slots=True)
class OnConflict:
    """The ON CONFLICT clause of an INSERT.

    Args:
        action: "nothing" is DO NOTHING, and "update" is DO UPDATE.
        columns: the columns of the conflict target.  Without them, DO UPDATE takes the primary key, and DO
            NOTHING has no target.
        values: the values that DO UPDATE sets, by their columns.  None is the new row's values of the columns
            outside of the target.

    Raises:
        AnalysisError: there is no such action.
    """

    action: _Action
    columns: Sequence[str] = ()
    values: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.action not in get_args(_Action):
            raise AnalysisError(
                f"on_conflict={self.action!r} can't be explained: there is no such action. "
                "Give 'nothing' or 'update'"
            )


@dataclass(frozen=True)
class Constraints:
    """The constraints of a table, as its new rows meet them."""

    source: Rows

    def broken(self, row: str) -> Broken | None:
        """Return the CHECK, NOT NULL or partition bounds that *row* breaks."""
        found = self._query("constraints")[0]
        if missing := self._missing(row):
            return "constraint", f"The new row has no value for column {missing!r}, which is NOT NULL."
        for check in found["checks"]:
            result, problem = self.source.value(f"({check['expression']})", row)
            if result in ("false", "error"):
                why = f" {problem}" if result == "error" else ""
                return "constraint", f"The new row breaks constraint {check['name']!r}.{why}"
        bounds = [found["bounds"]] if found["bounds"] else found["partitions"]
        if bounds is not None and not any(self.source.value(f"({one})", row)[0] == "true" for one in bounds):
            return "constraint", "The new row belongs to no partition of the table, or to another one."
        return None

    def _missing(self, row: str) -> str | None:
        alias = self.source.table.alias
        # A composite value of nothing but NULL is NULL for IS NULL, and a value for NOT NULL.
        cases = [
            f"WHEN pg_catalog.num_nulls({alias}.{column['quoted']}) = 1 THEN {quoted_literal(name)}"
            for name, column in self.source.table.columns.items()
            # The rows of analysis have NULL where a sequence would give the value.
            if column["not_null"] and not column["sequence"] and not column["is_identity"]
        ]
        if not cases:
            return None
        statement: Select[Any] = select(literal_column(f"CASE {' '.join(cases)} END"))
        statement = statement.select_from(text(self.source.as_table()))
        found: str | None = self.source.connection.scalar(statement, {"row": row})
        return found

    def arbiters(self, clause: OnConflict) -> Sequence[RowMapping]:
        """Return the unique indexes that decide whether a row conflicts.

        Raises:
            AnalysisError: no unique index has exactly the columns of the target.
        """
        table = self.source.table
        target = self.target(clause)
        if clause.action == "nothing" and not target:
            return self._unique
        found = [
            index
            for index in self._unique
            if index["may_arbitrate"]
            and index["predicate"] is None
            and {element["column"] for element in index["elements"]} == set(target)
        ]
        if not found:
            named = ", ".join(target) or "no primary key"
            raise AnalysisError(
                f"ON CONFLICT can't be explained: table {table.name} has no unique index on its target "
                f"({named}). Give the columns of a unique index"
            )
        return found

    def target(self, clause: OnConflict) -> Sequence[str]:
        """Return the columns of the conflict target."""
        for name in clause.columns:
            self.source.table.column(name)
        return clause.columns or (self.source.table.key if clause.action == "update" else ())

    def conflict(
        self, row: str, indexes: Sequence[RowMapping] | None = None, *, replaced: str | None = None
    ) -> tuple[str, str] | None:
        """Return the name of a unique index in which *row* conflicts, and the row that is there.

        Args:
            row: the new row.
            indexes: some of the table's; None is all of them.
            replaced: the row that the new one replaces, and doesn't conflict with.
        """
        for index in self._unique if indexes is None else indexes:
            if (found := self._conflicting(index, row, replaced)) is not None:
                return index["name"], found
        return None

    def _conflicting(self, index: RowMapping, row: str, replaced: str | None) -> str | None:
        name, alias = self.source.table.name, self.source.table.alias
        keys: list[ColumnElement[Any]] = []
        pairs: list[str] = []
        for number, element in enumerate(index["elements"]):
            mine, new = f"({element['expression']})", f'"sqla_rls new"."key {number}"'
            keys.append(literal_column(mine).label(f"key {number}"))
            collation = f" COLLATE {element['collation']}" if element["collation"] else ""
            pair = f"{mine}{collation} {element['operator']} {new}"
            pairs.append(
                f"({pair} OR {mine} IS NULL AND {new} IS NULL)" if index["nulls_are_equal"] else pair
            )
        inner: Any = select(*keys).select_from(text(self.source.as_table()))
        if index["predicate"]:
            pairs.append(f"({index['predicate']})")
            inner = inner.where(literal_column(pairs[-1]))
        whole: ColumnElement[str] = literal_column(f"CAST(({alias}.*) AS pg_catalog.text)")
        statement = (
            select(whole)
            .select_from(
                text(f"{without_parameters(name)} AS {without_parameters(alias)}"),
                inner.subquery("sqla_rls new"),
            )
            .where(*map(literal_column, pairs))
            .limit(1)
        )
        if replaced is not None:
            # A row with the same text is that row itself: both have the key.
            statement = statement.where(whole != literal(replaced, Text))
        found: str | None = self.source.connection.scalar(statement, {"row": row})
        return found

    def broken_foreign_key(self, row: str) -> Broken | None:
        """Return the foreign key that *row* breaks."""
        for key in self._query("foreign_keys"):
            if key["hides_rows"]:
                continue
            mine = [f"{self.source.table.alias}.{name}" for name in key["columns"]]
            theirs = [f"t.{name}" for name in key["target_columns"]]
            signs = ["="] * len(mine)
            found = f"EXISTS (SELECT FROM {key['target']} AS t WHERE "
            if key["is_period"]:
                signs[-1] = "&&"
                found = f"(SELECT {mine[-1]} OPERATOR(pg_catalog.<@) pg_catalog.range_agg({theirs[-1]}) "
                found += f"FROM {key['target']} AS t WHERE "
            pairs = " AND ".join(map(" ".join, zip(theirs, signs, mine, strict=True)))
            nulls = " OR ".join(f"{name} IS NULL" for name in mine)
            all_null = " AND ".join(f"{name} IS NULL" for name in mine)
            holds = f"({all_null if key['is_full'] else nulls}) OR coalesce({found}{pairs}), false)"
            statement: Select[Any] = select(literal_column(f"({holds})"))
            statement = statement.select_from(text(self.source.as_table()))
            if not self.source.connection.execute(statement, {"row": row}).scalar_one():
                detail = f"The new row breaks foreign key {key['name']!r}: {key['target']} has no such row."
                return "foreign_key", detail
        return None

    def still_referenced(self, row: str, becomes: str | None) -> Broken | None:
        """Return the foreign key by which the command can't delete *row*, or make another of it.

        Args:
            row: a row of the table.
            becomes: the new row of UPDATE; None for DELETE.

        Raises:
            AnalysisError: ON DELETE or ON UPDATE reaches rows, and its effect isn't known.
        """
        actions = Actions(self.source)
        return actions.refused_delete(row) if becomes is None else actions.refused_update(row, becomes)

    def left_out(self, command: str) -> list[str]:
        """Return a sentence for each trigger and foreign key that the answer doesn't cover."""
        hidden = [
            f"Foreign key {key['name']!r} isn't part of the answer: row security hides rows of "
            f"{key['target']} from the role that asks."
            for key in (self._query("foreign_keys") if command in ("INSERT", "UPDATE") else ())
            if key["hides_rows"]
        ]
        hidden += [
            f"Foreign key {key['name']!r} isn't part of the answer: row security hides rows of "
            f"{key['source']} from the role that asks."
            for key in (
                self._query("referencing_keys", command=command) if command in ("UPDATE", "DELETE") else ()
            )
            if key["hides_rows"]
        ]
        triggers = self._query("triggers", command=command)
        return hidden + [
            f"Trigger {each['tgname']!r} isn't part of the answer: it may change or skip the row."
            for each in triggers
        ]

    @cached_property
    def _unique(self) -> Sequence[RowMapping]:
        return self._query("unique_indexes")

    def _query(self, name: str, **values: Any) -> Sequence[RowMapping]:
        oid = self.source.table.oid
        return self.source.connection.execute(query(name), {"oid": oid, **values}).mappings().all()
