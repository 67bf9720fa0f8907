"""A role with few rights sets traps: nothing of its code runs when a superuser analyzes the database."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from sqla_rls.cli import main
from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from tests.support.servers import cleared_server

#: By a routine that is VOLATILE, also in a transaction that is read only.
_TRAP = "RESET ROLE; COPY (SELECT 1) TO PROGRAM 'cat > {file}'"
_ROLES = """
CREATE ROLE anonymous;
CREATE ROLE authenticated;
CREATE ROLE mallory LOGIN;
CREATE ROLE owner LOGIN CREATEROLE;
GRANT authenticated, anonymous TO owner;
CREATE SCHEMA traps AUTHORIZATION mallory;
CREATE SCHEMA shop AUTHORIZATION owner;
GRANT USAGE ON SCHEMA traps, shop TO PUBLIC;
GRANT USAGE ON SCHEMA auth TO PUBLIC;
"""


def _function(name: str, arguments: str = "x text", returns: str = "boolean") -> str:
    return (
        f"CREATE FUNCTION traps.{name}({arguments}) RETURNS {returns} LANGUAGE plpgsql "
        f"AS $f$ BEGIN {_TRAP}; RETURN true; END $f$;"
    )


def _table(using: str = "x = auth.user_id()", type_: str = "text", more: str = "") -> str:
    return (
        f"CREATE TABLE traps.t (id int PRIMARY KEY, x {type_}{more}); "
        "ALTER TABLE traps.t ENABLE ROW LEVEL SECURITY; "
        "GRANT SELECT, INSERT, UPDATE, DELETE ON traps.t TO authenticated; "
        f"CREATE POLICY p ON traps.t TO authenticated USING ({using});"
    )


@dataclass(frozen=True, kw_only=True)
class Trapped:
    """A database in which mallory has set a trap."""

    urls: dict[str, str]
    file: Path

    def run(self, *arguments: str, role: str = "postgres") -> Result:
        name, *others = arguments
        return CliRunner().invoke(main, [name, self.urls[role], *others])

    @property
    def is_sprung(self) -> bool:
        return self.file.exists()

    def execute(self, sql: str, role: str = "postgres") -> None:
        engine = create_engine(self.urls[role], poolclass=NullPool)
        with engine.begin() as connection:
            for statement in sql.replace("{file}", str(self.file)).split(";\n"):
                connection.exec_driver_sql(statement)


@pytest.fixture
def trapped() -> Iterator[Trapped]:
    # The account of the server writes into it.
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    with cleared_server() as server:
        server.create_database("app")
        urls = {
            role: server.url("app", user=role).render_as_string(hide_password=False)
            for role in ("postgres", "mallory", "owner")
        }
        found = Trapped(urls=urls, file=folder / "sprung")
        with create_engine(urls["postgres"], poolclass=NullPool).begin() as connection:
            connection.execute(CreateAuthFunctions())
        found.execute(_ROLES)
        yield found
    shutil.rmtree(folder)


_TRAPS = [
    ("policy", _function("f") + _table("traps.f(x)")),
    ("check", _function("f") + _table(more=", CHECK (traps.f(x))")),
    (
        "domain",
        _function("f") + "CREATE DOMAIN traps.d AS text CHECK (traps.f(VALUE));" + _table(type_="traps.d"),
    ),
    (
        "default of an argument",
        _function("f", "") + "CREATE FUNCTION traps.g(x text, y boolean DEFAULT traps.f()) RETURNS boolean "
        "LANGUAGE sql AS 'SELECT y';" + _table("traps.g(x)"),
    ),
    (
        "operator",
        _function("f", "a text, b text") + "CREATE OPERATOR traps.@# (leftarg = text, rightarg = text, "
        "function = traps.f); CREATE FUNCTION traps.g(x text) RETURNS boolean LANGUAGE plpgsql "
        "SET search_path = traps AS 'BEGIN RETURN x @# x; END';" + _table("traps.g(x)"),
    ),
    (
        "attribute",
        "CREATE TYPE traps.c AS (a int);" + _function("f", "c traps.c") + "CREATE FUNCTION traps.g(x text) "
        "RETURNS boolean LANGUAGE sql SET search_path = traps AS 'SELECT (ROW(1)::c).f';"
        + _table("traps.g(x)"),
    ),
    (
        "trigger",
        "CREATE FUNCTION traps.f() RETURNS trigger LANGUAGE plpgsql "
        f"AS $f$ BEGIN {_TRAP}; RETURN NEW; END $f$;"
        + _table()
        + "CREATE TRIGGER t BEFORE INSERT ON traps.t FOR EACH ROW EXECUTE FUNCTION traps.f();",
    ),
]


@pytest.mark.exhaustive
@pytest.mark.parametrize("trap", [pytest.param(sql, id=name) for name, sql in _TRAPS])
def test_a_role_with_few_rights_does_not_get_those_of_who_asks(trapped: Trapped, trap: str) -> None:
    trapped.execute(trap, "mallory")

    found = trapped.run("lint")
    asked = trapped.run(
        "why", "traps.t", "--as", "alice", "--command", "insert", "--row", '{"id": 1, "x": "a"}'
    )

    assert not trapped.is_sprung
    assert found.exit_code == 1
    assert re.search(r"unknown: traps\.t.*belongs to role mallory.*trusted-owners", found.output, re.DOTALL)
    assert asked.exit_code == 2
    assert "belongs to role mallory" in asked.output


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "using",
    ["traps.f(x)", "EXISTS (SELECT FROM traps.t WHERE t.x = docs.x)"],
    ids=["function", "table"],
)
def test_a_policy_of_an_owner_who_is_trusted_may_call_the_trap(trapped: Trapped, using: str) -> None:
    trapped.execute(
        _function("f") + _table("traps.f(x)") + "GRANT SELECT ON traps.t TO PUBLIC;\n"
        "GRANT EXECUTE ON FUNCTION traps.f TO PUBLIC",
        "mallory",
    )
    trapped.execute(
        "CREATE TABLE shop.docs (id int PRIMARY KEY, x text);\n"
        "INSERT INTO shop.docs VALUES (1, 'a');\n"
        "ALTER TABLE shop.docs ENABLE ROW LEVEL SECURITY;\n"
        "GRANT SELECT ON shop.docs TO authenticated;\n"
        f"CREATE POLICY p ON shop.docs TO authenticated USING ({using})"
    )

    trapped.run("lint")
    asked = trapped.run("why", "shop.docs", "1", "--as", "alice")

    assert not trapped.is_sprung
    assert asked.exit_code == 2, asked.output
    assert "belongs to role mallory" in asked.output


@pytest.mark.exhaustive
def test_tables_of_the_owner_are_decided_beside_the_trap(trapped: Trapped) -> None:
    trapped.execute(_function("f") + _table("traps.f(x)"), "mallory")
    trapped.execute(
        "CREATE TABLE shop.docs (id int PRIMARY KEY, x text);\n"
        "ALTER TABLE shop.docs ENABLE ROW LEVEL SECURITY;\n"
        "GRANT SELECT ON shop.docs TO authenticated;\n"
        "CREATE POLICY p ON shop.docs TO authenticated USING (true)",
        "owner",
    )

    found = trapped.run("lint", role="owner")

    assert "everyone-reads: shop.docs" in found.output
    assert not trapped.is_sprung


@pytest.mark.exhaustive
def test_a_trusted_owner_runs_code(trapped: Trapped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trapped.execute(_function("f") + _table("traps.f(x)"), "mallory")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text('[tool.sqla_rls.lint]\ntrusted-owners = ["mallory"]\n')

    trapped.run("lint")

    # Without this, the tests above could not fail.
    assert trapped.is_sprung
