"""Many people at once on few connections, some of them hostile."""

from __future__ import annotations

import asyncio
import random

import pytest
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import create_async_engine

from sqla_rls.neon_http import Limits, sql_endpoint
from sqla_rls.testing.issuer import Issuer
from tests.neon_http.conftest import ALL_TODOS, Client
from tests.neon_http.test_attacks import ESCAPES, LEFTOVERS
from tests.support.sessions import Todo
from tests.support.signing import Signed

PEOPLE = [f"person {number}" for number in range(50)]
MINE = "SELECT auth.user_id(), (SELECT array_agg(user_id) FROM todos), current_user"


@pytest.mark.parametrize(
    "requests",
    [
        pytest.param(500, marks=pytest.mark.exhaustive),
        pytest.param(10_000, marks=pytest.mark.long),
    ],
)
async def test_fifty_people_share_five_connections(
    signed: Signed, issuer: Issuer, requests: int, runner: asyncio.Runner
) -> None:
    with signed.admin.begin() as connection:
        connection.execute(insert(Todo), [{"user_id": name, "task": f"{name}'s"} for name in PEOPLE])
    url = signed.app.url.set(drivername="postgresql+psycopg")
    engine = create_async_engine(url, pool_size=5, max_overflow=0)
    limits = Limits(timeout=20, max_response_bytes=100_000)
    client = Client(sql_endpoint(engine, issuer.provider, signing_key=signed.key, limits=limits), issuer)
    tokens = {name: issuer.token(name) for name in PEOPLE}
    rng = random.Random(18)
    attacks = [batch for batch in (*ESCAPES.values(), *LEFTOVERS.values()) if "advisory" not in str(batch)]
    attacks += [
        ["SELECT pg_advisory_lock(trunc(random() * 1e9)::bigint)"],
        ["SELECT generate_series(1, 100000)"],
        ["SELECT pg_sleep(0.001)"],
        ["UPDATE todos SET task = task"],
    ]
    left = iter(range(requests))

    async def person() -> None:
        for _ in left:
            name = rng.choice(PEOPLE)
            as_person = {"Authorization": f"Bearer {tokens[name]}"}
            if rng.random() < 0.3:
                batch = {"queries": [{"query": sql} for sql in rng.choice(attacks)]}
                answer = await client.send(batch, headers=as_person)
                assert answer.status_code in (200, 400, 507), answer.text
                assert not [other for other in PEOPLE if f"{other}'s" in answer.text and other != name]
                continue
            answer = await client.send({"query": MINE, "arrayMode": True}, headers=as_person)
            assert answer.status_code == 200, answer.text
            assert answer.json()["rows"] == [[name, [name], "authenticated"]]

    await asyncio.gather(*(person() for _ in range(20)))
    assert await client.rows(ALL_TODOS) == [["alice's"]]
    with signed.admin.connect() as connection:
        counts = connection.execute(text("SELECT count(*), count(DISTINCT user_id) FROM todos")).one()
        # Those of Alice and Bob, too.
        assert counts == (52, 52)
    await engine.dispose()
