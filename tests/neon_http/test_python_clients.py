"""Clients of Python against the endpoint: that of the library, and neon-serverless of PyPI."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from neon_serverless import NeonDbError, neon
from sqlalchemy import text

from sqla_rls.exc import DeclarationError, SqlOverHttpError
from sqla_rls.neon_http import AsyncClient, Client
from sqla_rls.testing.issuer import Issuer
from tests.neon_http.conftest import CONNECTION_STRING
from tests.support.certificates import self_signed_certificate
from tests.support.signing import Signed
from tests.support.suite import table

ENDED = text("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'app'")


def test_a_script_queries_and_sends_batches(url: str, issuer: Issuer, signed: Signed) -> None:
    asked: list[str] = []

    def token() -> str:
        asked.append("alice")
        return issuer.token("alice")

    with Client(url, auth_token=token) as alice, Client(url, auth_token=issuer.token("bob")) as bob:
        inserted = alice.query("INSERT INTO todos (task) VALUES ($1) RETURNING task", "new")
        assert (inserted.rows, inserted.command, inserted.row_count) == ([{"task": "new"}], "INSERT", 1)
        assert bob.query("SELECT task FROM todos").rows == [{"task": "bob's"}]
        first, second = alice.batch(
            [
                "SELECT count(*)::int AS n FROM todos",
                ("SELECT $1::int[] AS a, $2::jsonb AS b", [[1, 2], {"c": None}]),
            ],
            isolation_level="Serializable",
            read_only=True,
            deferrable=True,
        )
        assert (first.rows, second.rows) == ([{"n": 2}], [{"a": [1, 2], "b": {"c": None}}])
        assert len(asked) == 2
        with pytest.raises(SqlOverHttpError, match="nope") as raised:
            alice.batch(["DELETE FROM todos", "SELECT nope"])
        assert (raised.value.code, raised.value.fields["position"], raised.value.status) == (
            "42703",
            "8",
            400,
        )
        assert len(alice.query("SELECT FROM todos").rows) == 2
        with signed.admin.connect() as connection:
            # The endpoint opens a connection again, and so does the client.
            connection.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
            )
        alice.close()
        with pytest.raises(SqlOverHttpError) as lost:
            alice.query("SELECT 1")
        assert lost.value.status == 500
        assert alice.query("SELECT 1 AS a").rows == [{"a": 1}]


@pytest.mark.exhaustive
def test_no_token_goes_to_a_server_without_a_certificate_also_in_a_program_that_turned_that_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = self_signed_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    heard: list[bytes] = []

    def answer(listening: socket.socket) -> None:
        with suppress(OSError), context.wrap_socket(listening.accept()[0], server_side=True) as secure:
            heard.append(secure.recv(65536))

    monkeypatch.setattr(ssl, "_create_default_https_context", ssl._create_unverified_context)
    for trusted in (False, True):
        if trusted:
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with socket.create_server(("127.0.0.1", 0)) as listening:
            thread = threading.Thread(target=answer, args=[listening])
            thread.start()
            url = f"https://127.0.0.1:{listening.getsockname()[1]}/sql"
            with pytest.raises(SqlOverHttpError, match="can't be reached"):
                Client(url, auth_token="secret").query("SELECT 1")
            thread.join()
        assert any(b"secret" in one for one in heard) is trusted


def test_functions_under_asyncio_send_requests_at_once(url: str, issuer: Issuer) -> None:
    async def token() -> str:
        await asyncio.sleep(0)
        return issuer.token("alice")

    async def run() -> None:
        async with AsyncClient(url, auth_token=token) as client:
            found = await asyncio.gather(*(client.query("SELECT $1::int AS n", n) for n in range(8)))
        assert [result.rows[0]["n"] for result in found] == list(range(8))
        (result,) = await client.batch(["SELECT auth.user_id() AS id"], read_only=True)
        assert result.rows == [{"id": "alice"}]
        with pytest.raises(SqlOverHttpError, match="isn't the role"):
            await AsyncClient(url, auth_token=token, role="postgres").query("SELECT 1")

    asyncio.run(run())


@pytest.mark.exhaustive
def test_what_a_client_can_not_do(url: str) -> None:
    with pytest.raises(DeclarationError, match="isn't one of HTTP"):
        Client("postgresql://example.com/app", auth_token="x")
    for make in (Client, AsyncClient):
        with pytest.raises(DeclarationError, match="can read the token"):
            make("http://example.com/sql", auth_token="x")
        for address in ("http://localhost/sql", "http://[::1]/sql", "https://example.com/sql"):
            make(address, auth_token="x")
        make("http://example.com/sql", auth_token="x", plain_http=True)
    nothing: Any = None
    with pytest.raises(DeclarationError, match="returned no text"):
        Client(url, auth_token=lambda: nothing).query("SELECT 1")
    for address, words, status in (
        ("http://127.0.0.1:9/sql", "can't be reached", None),
        (url, "isn't a JWT", 400),
        (f"{url}/other", "HTTP 400", 400),
    ):
        with (
            Client(address, auth_token="x") as client,
            pytest.raises(SqlOverHttpError, match=words) as raised,
        ):
            client.query("SELECT 1")
        assert raised.value.status == status


@table("token", ["secret\n", "secret\r\nX-Header: a", "sec ret", "secret\x7f", "secret\N{EM DASH}"])
def test_an_error_shows_no_token(url: str, issuer: Issuer, token: str) -> None:
    for request in (
        Client(url, auth_token=token).query,
        Client(url, auth_token=lambda: token).query,
        lambda sql: asyncio.run(AsyncClient(url, auth_token=token).query(sql)),
    ):
        with pytest.raises(DeclarationError, match="its token has a space") as refused:
            request("SELECT 1")
        assert "secret" not in "".join(traceback.format_exception(refused.value))
    tokens = iter([token, issuer.token("alice")])
    with Client(url, auth_token=lambda: next(tokens)) as client:
        with pytest.raises(DeclarationError):
            client.query("SELECT 1")
        assert client.query("SELECT 1 AS a").rows == [{"a": 1}]


def test_an_error_of_a_request_closes_its_connection(url: str, issuer: Issuer) -> None:
    with Client(url, auth_token=issuer.token("alice")) as client:
        path = client._requests._parts
        client._requests._parts = path._replace(path="/\N{EM DASH}")
        with pytest.raises(ValueError, match="ascii"):
            client.query("SELECT 1")
        client._requests._parts = path
        assert client.query("SELECT 1 AS a").rows == [{"a": 1}]


@pytest.mark.exhaustive
def test_the_client_of_pypi(url: str, issuer: Issuer) -> None:
    alice, bob = (
        neon(CONNECTION_STRING, auth_token=issuer.token(name), endpoint=url) for name in ("alice", "bob")
    )
    with alice, bob:
        assert alice("INSERT INTO todos (task) VALUES ($1) RETURNING task", ["new"]) == [{"task": "new"}]
        assert bob("SELECT task FROM todos") == [{"task": "bob's"}]
        first, second = alice.transaction(
            [("SELECT count(*)::int AS n FROM todos", []), ("SELECT $1::int[] AS a", [[1, 2]])],
            read_only=True,
        )
        assert (first, second) == ([{"n": 2}], [{"a": [1, 2]}])
        with pytest.raises(NeonDbError) as raised:
            alice("SELECT nope")
        assert raised.value.code == "42703"
