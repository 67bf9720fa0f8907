"""A counterexample is done by hand."""

from __future__ import annotations

import json
from typing import Any

from psycopg import sql
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from sqla_rls.analyze.verdict import Counterexample


def replay(connection: Connection, role: str, example: Counterexample) -> str:
    """Do by hand what a counterexample says."""
    with connection.engine.connect().execution_options(isolation_level="READ COMMITTED") as fresh:
        for table, rows in example.rows.items():
            for row in rows:
                names = sql.SQL(", ").join(map(sql.Identifier, row)).as_string(None)
                values = ", ".join(f":v{number}" for number in range(len(row)))
                given = {f"v{number}": _input(value) for number, value in enumerate(row.values())}
                fresh.execute(text(f"INSERT INTO {table} ({names}) VALUES ({values})"), given)
        claims = "" if example.claims is None else json.dumps(example.claims)
        for name, value in {"request.jwt.claims": claims, **example.settings, "role": role}.items():
            fresh.execute(text("SELECT set_config(:name, :value, true)"), {"name": name, "value": value})
        try:
            found = fresh.exec_driver_sql(example.statement.replace("%", "%%"))
        except DBAPIError as error:
            return f"{getattr(error.orig, 'sqlstate', None)}: {str(error.orig).partition(chr(10))[0]}"
        number = len(found.all()) if found.returns_rows else found.rowcount
        return f"{number} row{'' if number == 1 else 's'}"


def _input(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict) else value
