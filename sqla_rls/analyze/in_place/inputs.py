"""The texts that Postgres takes for values of a type."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from sqla_rls.catalog.query import undone

_CAST: Final = """
SELECT CAST(:value AS {type}) IS NULL FROM pg_catalog.json_to_record(CAST(:record AS json)) AS r (x {type})
"""
_IS_VALID: Final = text("SELECT pg_catalog.pg_input_is_valid(:value, :type)")


@dataclass(slots=True)
class Inputs:
    """Asks Postgres whether a text is a value of a type; each question is asked once.

    Attributes:
        version: the number of the server's version.
        may_lack_types: whether the database may lack a type, which raises an error.
    """

    version: int
    may_lack_types: bool = False
    _known: dict[tuple[str, str], bool] = field(default_factory=dict[tuple[str, str], bool])

    def accept(self, connection: Connection, type_: str, value: str) -> bool:
        """Return whether *value* is a value of that type."""
        if (type_, value) not in self._known:
            self._known[type_, value] = type_ == "text" or self._asked(connection, type_, value)
        return self._known[type_, value]

    def _asked(self, connection: Connection, type_: str, value: str) -> bool:
        parameters = {"type": type_, "value": value}
        has_function = self.version >= 160000
        if has_function and not self.may_lack_types:
            # Without a savepoint: it raises no error.
            return bool(connection.scalar(_IS_VALID, parameters))
        try:
            with undone(connection):
                if has_function:
                    return bool(connection.scalar(_IS_VALID, parameters))
                # The name of a type is as the catalog prints it.  The record refuses what a cast would cut.
                record = {"value": value, "record": json.dumps({"x": value})}
                connection.scalar(text(_CAST.format(type=type_)), record)
                return True
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
            return False
