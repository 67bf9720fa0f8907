"""The role that evaluates policies on rows of no table: the caller's, or the connection's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ARRAY, Connection, Text, bindparam

from sqla_rls.analyze.in_place.conditions import Undecidable
from sqla_rls.analyze.in_place.decidable import Functions
from sqla_rls.analyze.in_place.splice import Expression
from sqla_rls.analyze.why.target import query


@dataclass(slots=True)
class Rights:
    """What the connection's role may do for a caller's; each question is asked once."""

    connection: Connection
    functions: Functions
    #: The connection's role, for an error.
    own_role: str = "the connection's role"
    _known: dict[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])

    def of(self, role: str, expressions: Iterable[Expression]) -> Mapping[str, Any]:
        """Return whether *role* can evaluate *expressions*, part by part."""
        expressions = list(expressions)
        statement = query("role_in_place").bindparams(
            bindparam("schemas", type_=ARRAY(Text())), bindparam("signatures", type_=ARRAY(Text()))
        )
        parameters = {
            "role": role,
            "schemas": sorted({schema for one in expressions for schema in one.schemas}),
            "signatures": self.functions.executed(expressions),
        }
        key = repr(parameters)
        if key not in self._known:
            self._known[key] = dict(self.connection.execute(statement, parameters).mappings().one())
        return self._known[key]

    def evaluates_as(self, role: str, expressions: Iterable[Expression]) -> bool:
        """Return whether *role* itself evaluates *expressions*; else the connection's role does.

        Raises:
            Undecidable: neither can.
        """
        expressions = list(expressions)
        may = self.of(role, expressions)
        if may["may_set_role"] and may["may_use_schemas"]:
            return True
        if self.functions.ask_for_role(expressions):
            raise Undecidable(f"a policy asks for the role, and {self.own_role} can't SET ROLE {role}")
        if not may["may_execute"]:
            raise Undecidable(f"role {role} may not execute a function that a policy calls")
        return False
