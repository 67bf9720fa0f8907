"""The tables of extensions have no row security of their own, and no warning asks for it."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, text

from sqla_rls.catalog.read import read_database
from sqla_rls.snapshot import TableKey


@pytest.mark.exhaustive
def test_a_table_of_an_extension_is_not_among_those_without_row_security(engine: Engine) -> None:
    with engine.connect() as connection:
        for name in ("of_extension", "of_application"):
            connection.execute(text(f"CREATE TABLE {name} (id integer)"))
        connection.execute(text("ALTER EXTENSION plpgsql ADD TABLE of_extension"))
        found = read_database(connection, default_schema="public", schemas=["public"])
        connection.rollback()
    assert found.without_row_security == {TableKey(None, "of_application"): "table"}
    assert found.row_security.keys() == {TableKey(None, "of_application"), TableKey(None, "of_extension")}
