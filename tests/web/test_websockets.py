"""Whose a WebSocket is, and when it is closed."""

# No "from __future__ import annotations": FastAPI reads those of the endpoints.
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, WebSocket
from fastapi.testclient import TestClient
from sqlalchemy import insert
from sqlalchemy.orm import Session
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from sqla_rls.testing.issuer import Issuer
from tests.support.clocks import Clocks
from tests.support.sessions import TASKS, Todo
from tests.support.web import INVALID, MISSING, sent_by


@pytest.fixture
def socket_client(app: FastAPI, client: TestClient, session_dep: Any) -> TestClient:
    @app.websocket("/socket")
    async def read(websocket: WebSocket, session: Annotated[Session, session_dep]) -> None:
        await websocket.accept()
        async for _ in websocket.iter_text():
            await websocket.send_json(list(session.scalars(TASKS)))
            session.rollback()

    @app.websocket("/denied")
    async def write(websocket: WebSocket, session: Annotated[Session, session_dep]) -> None:
        await websocket.accept()
        session.execute(insert(Todo).values(user_id="bob", task="secret"))

    return client


def test_a_websocket_is_its_callers(socket_client: TestClient, issuer: Issuer) -> None:
    for subject in ("alice", "bob"):
        with socket_client.websocket_connect("/socket", headers=sent_by(issuer, subject)) as websocket:
            for _ in range(2):
                websocket.send_text("more")
                assert websocket.receive_json() == [f"{subject}'s"]


def test_a_websocket_of_nobody_is_not_opened(socket_client: TestClient, issuer: Issuer) -> None:
    for headers, challenge in (({}, MISSING), ({"Authorization": "Bearer garbage"}, INVALID)):
        with (
            pytest.raises(WebSocketDenialResponse) as denial,
            socket_client.websocket_connect("/socket", headers=headers),
        ):
            pass
        assert (denial.value.status_code, denial.value.headers["WWW-Authenticate"]) == (401, challenge)


@pytest.mark.exhaustive
def test_a_websocket_is_closed_when_its_caller_has_expired(
    socket_client: TestClient, issuer: Issuer, clocks: Clocks
) -> None:
    headers = sent_by(issuer, "alice", expires_in=60)
    with socket_client.websocket_connect("/socket", headers=headers) as websocket:
        websocket.send_text("more")
        assert websocket.receive_json() == ["alice's"]
        clocks.ahead = 60
        websocket.send_text("more")
        with pytest.raises(WebSocketDisconnect) as disconnect:
            websocket.receive_json()
    assert disconnect.value.code == 1008


def test_a_websocket_is_closed_when_the_database_denies(socket_client: TestClient, issuer: Issuer) -> None:
    with (
        socket_client.websocket_connect("/denied", headers=sent_by(issuer, "alice")) as websocket,
        pytest.raises(WebSocketDisconnect) as disconnect,
    ):
        websocket.receive_json()
    assert (disconnect.value.code, disconnect.value.reason) == (1008, "")
