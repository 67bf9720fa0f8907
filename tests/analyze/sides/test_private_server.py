"""Scratch servers have no passwords: only the account that starts one can reach it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from sqlalchemy import MetaData, text

from sqla_rls.analyze.sides import Side


@pytest.mark.exhaustive
def test_no_other_account_reaches_a_scratch_server() -> None:
    with Side.parse("models", models=MetaData()).build() as built:
        directory = Path(str(built.url.query["host"]))
        addresses = built.connection.scalar(text("SELECT pg_catalog.current_setting('listen_addresses')"))
        assert built.url.port is not None
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", built.url.port))

        assert addresses == ""
        assert directory.stat().st_mode & 0o077 == 0
