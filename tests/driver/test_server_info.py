"""What the connections of an engine know of their server."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine

from sqla_rls.driver import server_info


@pytest.mark.exhaustive
def test_empty_claims_are_the_default_only_if_nobody_can_have_left_them(engine: Engine) -> None:
    query = server_info.QUERY.replace("%", "%%")
    with engine.connect() as connection:
        direct: Any = connection.connection.driver_connection
        unset = connection.exec_driver_sql(query).scalar_one()
        connection.exec_driver_sql("SET request.jwt.claims = ''")
        empty = connection.exec_driver_sql(query).scalar_one()
        pooled = SimpleNamespace(get_server_pid=lambda: -1)
        assert not server_info.read(unset, direct, is_new=True).starts_without_claims
        assert server_info.read(empty, direct, is_new=True).starts_without_claims
        assert not server_info.read(empty, direct, is_new=False).starts_without_claims
        assert not server_info.read(empty, pooled, is_new=True).starts_without_claims
