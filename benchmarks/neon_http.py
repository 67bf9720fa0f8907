"""Requests of SQL over HTTP beside the same query of a FastAPI endpoint: ``python -m benchmarks.neon_http``.

One process serves both, on pools of the same size to one database that verifies callers.  Requests of ten
people alternate between the two.  Each answer is checked: a row of another person ends the run.
"""

# No "from __future__ import annotations": FastAPI reads those of the endpoint.
import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI
from sqlalchemy import URL, create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool

from sqla_rls import BindingOptions, enforce_row_security
from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from sqla_rls.fastapi import RowSecurity
from sqla_rls.neon_http import sql_endpoint
from sqla_rls.provider import Provider
from sqla_rls.rotation import rotate_signing_key
from sqla_rls.testing.issuer import Issuer
from sqla_rls.testing.postgres import Server, find_server

PEOPLE = 10
ROWS = 10  # of a person
WARM_UP = 200
AT_ONCE = 8
BATCH = 20  # requests of one kind before the other one's turn
QUERY = "SELECT id, owner, task FROM todos ORDER BY id"

TABLES = """
CREATE ROLE authenticated;
CREATE ROLE app LOGIN NOINHERIT PASSWORD 'app';
GRANT authenticated TO app;
GRANT USAGE ON SCHEMA auth TO authenticated;
CREATE TABLE todos (id int PRIMARY KEY, owner text NOT NULL, task text NOT NULL);
CREATE INDEX ON todos (owner);
INSERT INTO todos SELECT g, 'person ' || g % 10, 'task ' || g FROM generate_series(1, 100) AS g;
ALTER TABLE todos ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON todos TO authenticated USING (owner = (SELECT auth.user_id()));
GRANT SELECT ON todos TO authenticated;
ANALYZE todos;
"""


@contextmanager
def database(server: Server) -> Iterator[tuple[URL, str]]:
    """The URL of the login role, and the signing key."""
    name = server.create_database()
    admin = create_engine(server.url(name), poolclass=NullPool)
    with admin.begin() as connection:
        connection.execute(CreateAuthFunctions(signed=True))
        key = rotate_signing_key(connection)
        connection.execute(text(TABLES))
    yield server.url(name, user="app", password="app").set(drivername="postgresql+psycopg"), key
    server.drop_database(name)


def serve(url: URL, key: str, provider: Provider, port: Any) -> None:
    """Serve both, until the process is terminated."""
    factory = async_sessionmaker(create_async_engine(url, pool_size=AT_ONCE))
    enforce_row_security(factory, signing_key=key, options=BindingOptions(signing="required"))
    security = RowSecurity(factory, provider)
    app = FastAPI()
    security.init_app(app)

    @app.get("/todos")
    async def todos(session: Annotated[AsyncSession, Depends(security.session)]) -> list[dict[str, Any]]:
        found = await session.execute(text(QUERY))
        return [dict(row) for row in found.mappings()]

    engine = create_async_engine(url, pool_size=AT_ONCE)
    app.mount("/neon", sql_endpoint(engine, provider, signing_key=key))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))

    async def run() -> None:
        serving = asyncio.ensure_future(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port.send(server.servers[0].sockets[0].getsockname()[1])
        await serving

    asyncio.run(run())


@dataclass
class Caller:
    """A person, and the requests with their token."""

    name: str
    token: str

    def request(self, kind: str) -> bytes:
        if kind == "FastAPI":
            return f"GET /todos HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.token}\r\n\r\n".encode()
        body = json.dumps({"query": QUERY, "params": []})
        return (
            f"POST /neon/sql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.token}\r\n"
            "Neon-Connection-String: postgresql://authenticated@x/app\r\nNeon-Raw-Text-Output: true\r\n"
            f"Neon-Array-Mode: true\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        ).encode()


class Connection:
    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, caller: Caller, kind: str) -> None:
        """Send one request, and check its answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(caller.request(kind))
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        found = json.loads(body)
        assert b" 200 " in head, body
        rows = found if kind == "FastAPI" else found["rows"]
        owners = {row["owner"] if kind == "FastAPI" else row[1] for row in rows}
        assert len(rows) == ROWS and owners == {caller.name}, body  # noqa: PT018


KINDS = ("FastAPI", "SQL over HTTP")


async def measure(port: int, callers: list[Caller], seconds: float) -> None:
    connection = Connection(port)
    for number in range(WARM_UP):
        await connection.send(callers[number % PEOPLE], KINDS[number % 2])
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    end = time.monotonic() + seconds / 2
    number = 0
    while time.monotonic() < end:
        for kind in KINDS:
            began = time.perf_counter()
            for _ in range(BATCH):
                # Another person each time, so that the connection changes hands.
                await connection.send(callers[number % PEOPLE], kind)
                number += 1
            # Not the time until the answer: FastAPI closes the session after it.
            times[kind].append((time.perf_counter() - began) / BATCH)
    base = statistics.median(times[KINDS[0]])
    for kind, taken in times.items():
        median = statistics.median(taken)
        print(f"{kind:14} one at a time: median {median * 1e3:.2f} ms, {median / base:.2f}")
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    connections = [Connection(port) for _ in range(AT_ONCE)]
    for _ in range(7):
        for kind in KINDS:
            rates[kind].append(await rate(connections, callers, kind, seconds / 28))
    for kind, found in rates.items():
        ratio = statistics.median(b / a for a, b in zip(found, rates[KINDS[0]], strict=True))
        print(f"{kind:14} {AT_ONCE} at once: {statistics.median(found):.0f} a second, time {ratio:.2f}")


async def rate(connections: list[Connection], callers: list[Caller], kind: str, seconds: float) -> float:
    began = time.monotonic()

    async def work(number: int) -> int:
        done = 0
        while time.monotonic() < began + seconds:
            await connections[number].send(callers[(number + done) % PEOPLE], kind)
            done += 1
        return done

    done = await asyncio.gather(*(work(number) for number in range(len(connections))))
    return sum(done) / (time.monotonic() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    with find_server() as server, Issuer() as issuer, database(server) as (url, key):
        # A new process, since Postgres starts from this one.
        context = multiprocessing.get_context("spawn")
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=serve, args=(url, key, issuer.provider, sender), daemon=True)
        process.start()
        callers = [Caller(f"person {n}", issuer.token(f"person {n}")) for n in range(PEOPLE)]
        print(f"{os.cpu_count()} cores")
        asyncio.run(measure(receiver.recv(), callers, options.seconds))
        process.terminate()
        process.join()


if __name__ == "__main__":
    main()
