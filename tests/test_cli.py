"""The command ``sqla-rls``."""

from __future__ import annotations

import signal
import subprocess
import sys

import psycopg
import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from sqla_rls.cli import main
from sqla_rls.testing.postgres import installations


def test_the_sql_of_the_auth_functions_can_be_run_by_hand(engine: Engine) -> None:
    create = CliRunner().invoke(main, ["auth-functions"]).output
    drop = CliRunner().invoke(main, ["auth-functions", "--drop"]).output
    with psycopg.connect(
        engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    ) as connection:
        connection.execute(create.encode())
        connection.execute("SELECT auth.user_id()")
        connection.execute(drop.encode())
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT to_regnamespace('auth')")) is None


@pytest.mark.exhaustive
def test_dev_runs_until_it_is_interrupted() -> None:
    assert installations()
    command = [sys.executable, "-c", "from sqla_rls.cli import main; main()", "dev", "--token", "alice"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = dict(process.stdout.readline().strip().split("=", 1) for _ in range(6))
        try:
            psycopg.connect(lines["SUPERUSER_URL"]).close()
            users = {}
            for name in ("DATABASE_URL", "DATABASE_AUTHENTICATED_URL"):
                engine = create_engine(lines[name], poolclass=NullPool)
                assert engine.driver == "psycopg"
                with engine.connect() as connection:
                    users[name] = connection.scalar(text("SELECT current_user"))
            assert users == {"DATABASE_URL": "owner", "DATABASE_AUTHENTICATED_URL": "app"}
            assert lines["TOKEN_alice"].count(".") == 2
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
