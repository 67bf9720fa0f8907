"""The npm driver @neondatabase/serverless, and drizzle-orm on top of it, against the endpoint."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import create_async_engine

from sqla_rls.neon_http import sql_endpoint
from sqla_rls.testing.issuer import Issuer, Key
from tests.support import npm
from tests.support.npm import Package
from tests.support.signing import Signed
from tests.support.suite import missing
from tests.support.web import served

DRIVER: Final = Package(
    name="@neondatabase/serverless",
    release="1.2.0",
    sha512="tnaqgixUengZQNd9ZrS3ytQfamJzLKY8QxgqWQTNHHtB+KrFQWk77JTbbpg4RD+J3qE4eO2lVytvGDX5Kj6FdQ==",
)
SCRIPTS: Final = Path(__file__).with_name("node")


def run(script: str, tmp_path: Path, packages: list[Package], **given: Any) -> Any:
    """The JSON that a script of ``node/`` prints, with *given* on its standard input."""
    node = shutil.which("node")
    if node is None:
        missing("node", "apt install nodejs npm")
    for package in packages:
        found = npm.fetch(package, f"npm/{package.name}-{package.release}")
        if isinstance(found, str):
            missing("node", f"apt install nodejs npm ({found})")
        link = tmp_path / "node_modules" / package.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(found)
    shutil.copy(SCRIPTS / script, tmp_path)
    done = subprocess.run(
        [node, script], cwd=tmp_path, input=json.dumps(given), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def url(signed: Signed, sql_url: URL, issuer: Issuer) -> Iterator[str]:
    """The URL of an endpoint that listens."""
    engine = create_async_engine(sql_url, pool_size=2)
    endpoint = sql_endpoint(engine, issuer.provider, signing_key=signed.key)
    with served(endpoint) as address:
        yield f"{address}/sql"
    asyncio.run(engine.dispose())


def test_the_driver_of_npm(url: str, issuer: Issuer, tmp_path: Path) -> None:
    outcomes = run(
        "driver.mjs",
        tmp_path,
        [DRIVER],
        url=url,
        alice=issuer.token("alice"),
        bob=issuer.token("bob"),
        forged=issuer.token("alice", key=Key.generate()),
        expired=issuer.token("alice", expires_in=-3600),
    )
    assert outcomes["ownRows"] == {"alice": ["alice's", "from node"], "bob": ["bob's"]}
    missing_token = outcomes["missingToken"]
    assert missing_token["name"] == "NeonDbError"
    assert missing_token["message"].startswith("the request has no token")
