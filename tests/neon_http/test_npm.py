"""The npm driver @neondatabase/serverless, and drizzle-orm on top of it, against the endpoint."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import text

from sqla_rls.testing.issuer import Issuer, Key
from tests.support import npm
from tests.support.npm import Package
from tests.support.signing import Signed
from tests.support.suite import missing

pytestmark = pytest.mark.exhaustive

DRIVER: Final = Package(
    name="@neondatabase/serverless",
    release="1.2.0",
    sha512="tnaqgixUengZQNd9ZrS3ytQfamJzLKY8QxgqWQTNHHtB+KrFQWk77JTbbpg4RD+J3qE4eO2lVytvGDX5Kj6FdQ==",
)
DRIZZLE: Final = Package(
    name="drizzle-orm",
    release="0.45.4",
    sha512="NiM1YZpJ2UxyeE67DpDDZ+Tsw4YLX3trSlkNT7Tm9eKoUNb1LvaAaQzXgYQsWs+AQ9TUmmwMmBOCXuqqxUWKKQ==",
)
SCRIPTS: Final = Path(__file__).with_name("node")


def run(code: str, tmp_path: Path, packages: list[Package], **given: Any) -> Any:
    """The JSON that *code* prints, with *given* on its standard input."""
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
    (tmp_path / "script.mjs").write_text(code, "utf-8")
    done = subprocess.run(
        [node, "--preserve-symlinks", "script.mjs"],
        cwd=tmp_path,
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_driver_of_npm(url: str, signed: Signed, issuer: Issuer, tmp_path: Path) -> None:
    outcomes = run(
        (SCRIPTS / "driver.mjs").read_text("utf-8"),
        tmp_path,
        [DRIVER],
        url=url,
        alice=issuer.token("alice"),
        bob=issuer.token("bob"),
        forged=issuer.token("alice", key=Key.generate()),
        expired=issuer.token("alice", expires_in=-3600),
    )
    assert outcomes["ownRows"] == {"alice": ["alice's", "from node"], "bob": ["bob's"]}
    # The driver asks once for each request, and ignores the token of a query in a transaction.
    assert outcomes["tokens"] == {"found": ["bob", "alice", "bob", ["alice", "alice"]], "asked": 2}

    refused = outcomes["refused"]
    for name, words in (
        ("missing", "the request has no token"),
        ("forged", "no key of the provider"),
        ("expired", "it has expired"),
        ("otherRole", "isn't the role of its token"),
    ):
        assert (refused[name]["name"], refused[name].get("code")) == ("NeonDbError", None)
        assert words in refused[name]["message"]
    assert refused["rejected"]["message"] == "Error getting auth token: signed out"

    assert outcomes["styles"] == {
        "template": [{"one": 1, "two": "two"}],
        "query": [{"one": 1}],
        "composed": [{"task": "alice's"}],
        "unsafe": [{"two": 2}],
        "arrays": [[1, 2]],
        "empty": [],
    }
    selected, created, updated = outcomes["fullResults"]
    assert selected["fields"] == [["id", 20], ["task", 25]]
    assert (selected["rows"], selected["rowCount"]) == ([{"id": "1", "task": "alice's"}], 1)
    assert (created["command"], created["rowCount"], created["rows"]) == ("CREATE", None, [])
    assert (updated["command"], updated["rowCount"], updated["rowAsArray"]) == ("UPDATE", 2, False)

    assert outcomes["types"] == {
        "date": "2026-01-02T03:04:05.678Z",
        "isDate": True,
        "bytes": [0, 255],
        "big": "9007199254740993",
        "json": {"a": [1, None]},
        "ints": [1, None, 3],
        "texts": ["a b", 'c"', None, "\\", "line\nfeed"],
        "nothing": None,
        "yes": True,
        "exact": "1.10",
        "half": 0.5,
        "nan": True,
    }
    transactions = outcomes["transactions"]
    assert transactions["modes"] == [
        [level, "on", "on"]
        for level in ("read uncommitted", "read committed", "repeatable read", "serializable")
    ]
    assert (transactions["failed"]["code"], transactions["failed"]["position"]) == ("42703", "8")
    assert transactions["readOnly"]["code"] == "25006"
    assert (transactions["kept"], transactions["full"]) == (0, [[1]])

    errors = outcomes["errors"]
    assert (errors["denied"]["code"], errors["denied"]["routine"]) == ("42501", "ExecWithCheckOptions")
    assert (errors["unknown"]["code"], errors["unknown"]["position"]) == ("42703", "8")
    assert (errors["unique"]["code"], errors["unique"]["constraint"]) == ("23505", "todos_pkey")
    assert errors["several"]["code"] == "42601"
    assert errors["type"]["code"] == "22P02"
    assert "Server error (HTTP status 413)" in errors["large"]["message"]
    assert "Server error (HTTP status 507)" in errors["huge"]["message"]
    assert all(error["name"] == "NeonDbError" for error in errors.values())

    assert "abort" in outcomes["goesAway"]["message"]
    with signed.admin.connect() as connection:
        assert not connection.scalar(
            text("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
        )


GUIDES: Final = Path(__file__).parents[2] / "docs" / "guide"
#: A signed-in user, and a network in which the address of the guides leads to the endpoint.
NETWORK: Final = """
import { readFileSync } from "node:fs";

const { url, alice } = JSON.parse(readFileSync(0, "utf8"));
const user = { getAccessToken: async () => alice };
const send = globalThis.fetch;
globalThis.fetch = (to, options) => send(to === "https://api.example.com/neon/sql" ? url : to, options);
"""


@pytest.mark.parametrize("guide", ["sql_over_http.md", "stack_auth.md"])
def test_the_code_of_a_guide(guide: str, url: str, signed: Signed, issuer: Issuer, tmp_path: Path) -> None:
    with signed.admin.begin() as connection:
        connection.execute(text("ALTER TABLE todos ADD COLUMN done boolean NOT NULL DEFAULT false"))
    code = (GUIDES / guide).read_text("utf-8").split("```js\n")[1].split("```")[0]
    code = f"{NETWORK}{code}console.log(JSON.stringify(todos));"
    assert run(code, tmp_path, [DRIVER], url=url, alice=issuer.token("alice")) == [
        {"id": "1", "task": "alice's"}
    ]


def test_drizzle(url: str, issuer: Issuer, tmp_path: Path) -> None:
    people = {name: issuer.token(name) for name in ("alice", "bob")}
    code = (SCRIPTS / "drizzle.mjs").read_text("utf-8")
    assert run(code, tmp_path, [DRIVER, DRIZZLE], url=url, **people) == {
        "owner": "alice",
        "isBigint": True,
        "found": "renamed",
        "batch": [{"task": "alice's"}, {"task": "renamed"}, {"task": "in a batch"}],
        "stolen": [],
        "denied": "42501",
        "alice": ["alice's", "renamed", "in a batch"],
        "bob": ["bob's"],
    }
