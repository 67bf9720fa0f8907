"""What a command does by the foreign keys that refer to its row: ON DELETE, and ON UPDATE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, RowMapping, literal_column, select, text
from sqlalchemy.exc import DBAPIError

from sqla_rls.analyze.why.explanation import Reason
from sqla_rls.analyze.why.rows import Rows, without_parameters
from sqla_rls.analyze.why.target import first_line, is_of_server, query
from sqla_rls.exc import AnalysisError

#: The most sets of rows that one DELETE is followed to.
_SETS: Final = 50
#: NO ACTION and RESTRICT refuse the command.
_REFUSED: Final = ("a", "r")
_DOES: Final[Mapping[str, str]] = {"c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}


@dataclass(frozen=True, slots=True)
class _Set:
    """Rows that the command deletes: those that a chain of foreign keys reaches from the row."""

    oid: int
    name: str
    alias: str
    #: The joins of the chain, as SQL.
    joins: str = ""


@dataclass(frozen=True)
class Actions:
    """The referential actions of a command on a row of the table."""

    source: Rows

    def refused_delete(self, row: str) -> tuple[Reason, str] | None:
        """Return why Postgres refuses a DELETE of *row* by a foreign key; None if it doesn't.

        Raises:
            AnalysisError: an action reaches rows, and its effect isn't known.
        """
        table = self.source.table
        sets, refusing = [_Set(table.oid, table.name, table.alias)], list[tuple[_Set, RowMapping]]()
        for place, each in enumerate(sets):
            for key in self._keys(each.oid, "DELETE"):
                if key["action"] in _REFUSED and key["hides_rows"] and place == 0:
                    # A note names it.
                    continue
                joined = self._joined(each, key, len(sets))
                if not self._has_rows(joined, row, key):
                    continue
                if key["action"] == "c":
                    sets.append(joined)
                    if len(sets) > _SETS:
                        raise _unknown("DELETE", key, "the chain of its rows is too long")
                elif key["action"] in _REFUSED:
                    refusing.append((each, key))
                elif (broken := self._changed("DELETE", key)) is not None:
                    return broken
        deleted = {each.oid for each in sets[1:]}
        for each, key in refusing:
            if key["source_oid"] in deleted:
                raise _unknown("DELETE", key, "another foreign key deletes rows of that table, too")
            if each is sets[0]:
                return "foreign_key", f"A row of {key['source']} refers to the row, by {key['name']!r}."
            return "foreign_key", (
                f"DELETE cascades to {each.name}, and a row of {key['source']} refers to a row there, by "
                f"{key['name']!r}."
            )
        return None

    def refused_update(self, row: str, becomes: str) -> tuple[Reason, str] | None:
        """Return why Postgres refuses that *row* becomes another by a foreign key; None if it doesn't.

        Raises:
            AnalysisError: an action reaches rows, and its effect isn't known.
        """
        table = self.source.table
        whole = _Set(table.oid, table.name, table.alias)
        for key in self._keys(table.oid, "UPDATE"):
            is_refused = key["action"] in _REFUSED
            if (is_refused and key["hides_rows"]) or not self._is_key_changed(key, row, becomes):
                continue
            if not self._has_rows(self._joined(whole, key, 1), row, key):
                continue
            if is_refused:
                return "foreign_key", f"A row of {key['source']} refers to the row, by {key['name']!r}."
            if (broken := self._changed("UPDATE", key)) is not None:
                return broken
        return None

    def _changed(self, command: str, key: RowMapping) -> tuple[Reason, str] | None:
        """Return why the action can't change the rows that refer to the row; None if it can."""
        if key["action"] == "n" and key["not_null"] is not None:
            return "constraint", (
                f"{command} sets column {key['not_null']!r} of {key['source']} to NULL by foreign key "
                f"{key['name']!r}, and the column is NOT NULL."
            )
        if key["action"] == "d":
            raise _unknown(command, key, "the rows may break a constraint")
        if key["obstacle"] is not None:
            raise _unknown(command, key, f"the rows may break {key['obstacle']}")
        return None

    def _is_key_changed(self, key: RowMapping, row: str, becomes: str) -> bool:
        values = ", ".join(f"{self.source.table.alias}.{name}" for name in key["columns"])
        record: ColumnElement[str] = literal_column(f"CAST(ROW({values}) AS pg_catalog.text)")
        statement = select(record).select_from(text(self.source.as_table()))
        old, new = (self.source.connection.scalar(statement, {"row": one}) for one in (row, becomes))
        return bool(old != new)

    def _joined(self, each: _Set, key: RowMapping, number: int) -> _Set:
        alias = f'"sqla_rls {number}"'
        signs = ["="] * len(key["columns"])
        if key["is_period"]:
            signs[-1] = "&&"
        pairs = " AND ".join(
            f"{alias}.{theirs} {sign} {each.alias}.{mine}"
            for theirs, sign, mine in zip(key["source_columns"], signs, key["columns"], strict=True)
        )
        joins = f"{each.joins} JOIN {key['source']} AS {alias} ON {pairs}"
        return _Set(key["source_oid"], key["source"], alias, joins)

    def _has_rows(self, joined: _Set, row: str, key: RowMapping) -> bool:
        if key["hides_rows"]:
            raise _unknown("the command", key, "row security hides its rows from the role that asks")
        exists = f"EXISTS (SELECT FROM {self.source.as_table()} {without_parameters(joined.joins)})"
        try:
            found = bool(self.source.connection.scalar(text(f"SELECT {exists}"), {"row": row}))
        except DBAPIError as error:
            if is_of_server(error):
                raise
            raise _unknown("the command", key, first_line(error)) from None
        if found and key["is_period"]:
            raise _unknown("the command", key, "other rows may have the rest of its PERIOD")
        return found

    def _keys(self, oid: int, command: str) -> Sequence[RowMapping]:
        values = {"oid": oid, "command": command}
        return self.source.connection.execute(query("referencing_actions"), values).mappings().all()


def _unknown(command: str, key: RowMapping, reason: str) -> AnalysisError:
    action = _DOES.get(key["action"])
    does = "" if action is None else f" with {action}"
    return AnalysisError(
        f"{command} can't be explained: foreign key {key['name']!r} of {key['source']}{does} refers to the "
        f"row, or to one that the command changes, and {reason}. Run it in a transaction, and roll that back"
    )
