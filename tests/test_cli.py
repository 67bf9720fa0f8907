"""The command ``sqla-rls``."""

from __future__ import annotations

import base64
import hashlib
import hmac
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import jwt
import psycopg
import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from sqla_rls.cli import main
from sqla_rls.neon_http import Client
from sqla_rls.testing.postgres import installations

GUIDE = Path(__file__).parents[1] / "docs" / "guide" / "testing.md"


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
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda one: one.name)
def test_dev_runs_until_it_is_interrupted(number: signal.Signals) -> None:
    assert installations()
    command = [sys.executable, "-c", "from sqla_rls.cli import main; main()", "dev", "--token", "alice"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = dict(process.stdout.readline().strip().split("=", 1) for _ in range(8))
        try:
            # docs/guide/testing.md describes each line.
            assert all(f"`{name}`" in GUIDE.read_text("utf-8") for name in lines)
            psycopg.connect(lines["SUPERUSER_URL"]).close()
            users = {}
            for name in ("DATABASE_URL", "DATABASE_AUTHENTICATED_URL"):
                engine = create_engine(lines[name], poolclass=NullPool)
                assert engine.driver == "psycopg"
                with engine.connect() as connection:
                    users[name] = connection.scalar(text("SELECT current_user"))
            assert users == {"DATABASE_URL": "owner", "DATABASE_AUTHENTICATED_URL": "app"}
            claims = jwt.decode(lines["TOKEN_alice"], options={"verify_signature": False})
            assert claims["exp"] - time.time() > 86_000
            assert lines["SQL_HTTP_CONNECTION_STRING"] == "postgresql://authenticated@localhost/app"
            with Client(lines["SQL_HTTP_URL"], auth_token=lines["TOKEN_alice"]) as client:
                (row,) = client.query(
                    "SELECT current_setting('request.jwt.claims')::jsonb ->> 'sub' AS sub"
                ).rows
                assert row == {"sub": "alice"}
        finally:
            process.send_signal(number)
        assert process.wait(10) == 0
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(lines["SUPERUSER_URL"])


def is_verifier_of(verifier: str, password: str) -> bool:
    """As in RFC 5803, which Postgres keeps: SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey."""
    scheme, parameters, keys = verifier.split("$")
    iterations, salt = parameters.split(":")
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(iterations))
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    return scheme == "SCRAM-SHA-256" and base64.b64encode(stored).decode() == keys.split(":")[0]


@pytest.mark.parametrize("driver", ["postgresql", "postgresql+asyncpg"])
def test_a_password_is_set_and_the_server_gets_a_verifier(engine: Engine, driver: str) -> None:
    role, password = 'rls_test "login"', "it's 100% secret"
    url = engine.url.set(drivername=driver).render_as_string(hide_password=False)
    with engine.begin() as connection:
        connection.exec_driver_sql('CREATE ROLE "rls_test ""login""" LOGIN')
    try:
        done = CliRunner().invoke(main, ["set-password", role, url], input=f"{password}\n")
        assert done.exit_code == 0, done.output
        assert password not in done.output
        with engine.connect() as connection:
            found = connection.scalar(
                text("SELECT rolpassword FROM pg_authid WHERE rolname = :role"), {"role": role}
            )
        assert is_verifier_of(found, password)
        assert not is_verifier_of(found, "another")
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql('DROP ROLE "rls_test ""login"""')


def test_a_password_that_cannot_be_set_is_said_without_it(engine: Engine) -> None:
    url = engine.url.render_as_string(hide_password=False)
    missing = CliRunner().invoke(main, ["set-password", "rls_test_nobody", url], input="secret\n")
    assert missing.exit_code == 1
    assert "rls_test_nobody" in missing.output
    assert "secret" not in missing.output
    assert "SCRAM" not in missing.output
    empty = CliRunner().invoke(main, ["set-password", "rls_test_nobody", url], input="\n")
    assert "the password is empty" in empty.output


def test_the_package_is_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sqla-rls", "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module("sqla_rls", run_name="__main__")
    assert "set-password" in capsys.readouterr().out


@pytest.mark.one_postgres
@pytest.mark.parametrize("command", [["import"], ["rotate-key"], ["set-password", "app"]])
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:p@very-secret@127.0.0.1:1/x",
        "postgresql:/user:very-secret@127.0.0.1:1/x",
        "postgresql://user:very-secret@127.0.0.1:port/x",
    ],
)
@pytest.mark.exhaustive
def test_a_wrong_url_is_an_error_without_its_password(command: list[str], url: str) -> None:
    result = CliRunner().invoke(main, [*command, url], input="new\n")
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert "the database can't be reached: its URL" in result.output
    assert "very-secret" not in result.output


URLS_OF_APPS = {
    "asyncpg": ("postgresql+asyncpg", {"ssl": "prefer", "prepared_statement_cache_size": "0"}),
    "psycopg_async": ("postgresql+psycopg_async", {"sslmode": "prefer"}),
}


@pytest.mark.one_postgres
@pytest.mark.parametrize(
    "command",
    [
        ["import"],
        pytest.param(["why", "rls_test_missing", "1"], marks=pytest.mark.exhaustive),
        pytest.param(["explain", "SELECT 1", "--no-advice"], marks=pytest.mark.exhaustive),
        pytest.param(["rotate-key"], marks=pytest.mark.exhaustive),
        pytest.param(
            ["mutate", "--this-is-a-test-database", "--", "true"],
            marks=pytest.mark.exhaustive,
        ),
        pytest.param(["lint", "--fail-on", "never"], marks=pytest.mark.exhaustive),
    ],
    ids=lambda one: one[0],
)
@pytest.mark.parametrize("driver", ["asyncpg", pytest.param("psycopg_async", marks=pytest.mark.exhaustive)])
def test_a_command_takes_the_url_of_an_asynchronous_app(
    engine: Engine, command: list[str], driver: str
) -> None:
    name, query = URLS_OF_APPS[driver]
    url = engine.url.set(drivername=name).update_query_dict(query).render_as_string(hide_password=False)

    result = CliRunner().invoke(main, [command[0], url, *command[1:]])

    assert isinstance(result.exception, SystemExit | None), result.exception
    assert "Greenlet" not in result.output
    assert "invalid" not in result.output


@pytest.mark.one_postgres
@pytest.mark.exhaustive
@pytest.mark.parametrize("command", [["import"], ["rotate-key"], ["set-password", "app"]])
@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("postgresql://user:very-secret@127.0.0.1:1/x", "Connection refused"),
        ("mysql://user:very-secret@127.0.0.1:1/x", "its URL is of mysql"),
    ],
)
def test_a_database_that_cannot_be_reached_is_an_error_in_one_line(
    command: list[str], url: str, reason: str
) -> None:
    result = CliRunner().invoke(main, [*command, url], input="new\n")

    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.output.startswith("Error: the database can't be reached: ")
    assert reason in result.output
    assert result.output.count("\n") == 1
    assert "very-secret" not in result.output
