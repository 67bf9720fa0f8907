"""SQL that Alice injects opens a connection of its own, as the login role, which is bound to nobody.

She sets that role's password, and connects by dblink; from another machine it is the same.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from sqla_rls import BindingOptions, Caller, enforce_row_security, identify
from sqla_rls.rotation import rotate_signing_key
from sqla_rls.server.account import Account
from sqla_rls.testing.postgres import Server
from sqla_rls.tokens.signing import Ed25519Signer
from tests.ddl.test_harden import harden
from tests.support.sessions import TASKS, on_signing_servers, start_signing_server
from tests.support.suite import table
from tests.support.verified import FUNCTIONS, database_for_signatures

HBA = """
host all postgres 127.0.0.1/32 trust
host all all 127.0.0.1/32 scram-sha-256
"""
#: A key that isn't of any connection here, for all that bring none.
CONFIGURED = Ed25519Signer()


@pytest.fixture(
    scope="module",
    params=on_signing_servers(FUNCTIONS, exhaustive=["stand-in"]),
)
def verified_by(request: pytest.FixtureRequest) -> Iterator[tuple[str, Server]]:
    """A server that asks for passwords, and has a key in its configuration."""
    name, version = request.param
    directory = Account.unprivileged().make_directory([tempfile.gettempdir(), "/tmp", "/var/tmp"])
    try:
        (directory / "pg_hba.conf").write_text(HBA)
        settings = {"hba_file": f"{directory}/pg_hba.conf", "pg_session_jwt.jwk": CONFIGURED.jwk}
        with start_signing_server(name, version, settings) as server:
            yield name, server
    finally:
        shutil.rmtree(directory)


@pytest.fixture(scope="module")
def server(verified_by: tuple[str, Server]) -> Server:
    return verified_by[1]


@pytest.fixture(scope="module")
def template(verified_by: tuple[str, Server]) -> Iterator[str]:
    with database_for_signatures(*verified_by) as database:
        yield database


@pytest.fixture
def callers(
    verified_by: tuple[str, Server], admin: Engine, pool: Engine, todos: None
) -> sessionmaker[Session]:
    with admin.begin() as connection:
        connection.execute(text("CREATE EXTENSION dblink"))
        key = rotate_signing_key(connection) if verified_by[0] == FUNCTIONS else None
    maker = sessionmaker(pool)
    enforce_row_security(maker, signing_key=key, options=BindingOptions(signing="required"))
    return maker


def rows_of_a_connection(session: Session, options: str, bound: str) -> list[str]:
    """What Alice's SQL reads through a connection with startup *options*, after SQL that binds."""
    url = session.get_bind().engine.url
    session.execute(text("RESET ROLE"))
    session.execute(text("ALTER ROLE app PASSWORD 'hers'"))
    session.commit()
    place = (
        f"host={url.host} port={url.port} dbname={url.database} user=app password=hers options='{options}'"
    )
    session.execute(text("SELECT dblink_connect('own', :place)"), {"place": place})
    session.execute(text("SELECT dblink_exec('own', 'SET ROLE authenticated')"))
    session.execute(text("SELECT dblink_exec('own', :bound)"), {"bound": bound})
    tasks = f"{TASKS.compile()}"
    try:
        with session.begin_nested():
            rows = text("SELECT * FROM dblink('own', :tasks) AS t (task text)")
            return list(session.scalars(rows, {"tasks": tasks}))
    except DBAPIError:
        return []


ED25519 = Ed25519Signer()
BRINGS = {
    "claims": ("", """SET request.jwt.claims = '{"sub": "bob"}'"""),
    "its own key": (
        f"-c pg_session_jwt.jwk={ED25519.jwk}",
        f"SET pg_session_jwt.jwt = '{ED25519.token({'sub': 'bob'}, '', None)}'",
    ),
}


@pytest.mark.exhaustive
@table("brings", BRINGS)
def test_with_the_extension_a_connection_brings_its_own_key_and_is_whoever_it_says(
    verified_by: tuple[str, Server],
    admin: Engine,
    pool: Engine,
    callers: sessionmaker[Session],
    alice: Caller,
    brings: str,
) -> None:
    try:
        with callers() as session:
            identify(session, alice)
            assert session.scalars(TASKS).all() == ["alice's"]
            found = rows_of_a_connection(session, *BRINGS[brings])
            is_open = brings == "its own key" and verified_by[0] != FUNCTIONS
            assert found == (["bob's"] if is_open else [])
        harden(admin)
        pool.dispose()
        with admin.begin() as connection:
            connection.execute(text("ALTER ROLE app PASSWORD 'app'"))
        with callers() as session:
            identify(session, alice)
            with pytest.raises(DBAPIError, match="permission denied for function dblink_connect"):
                rows_of_a_connection(session, *BRINGS[brings])
    finally:
        with admin.begin() as connection:
            connection.execute(text("ALTER ROLE app PASSWORD 'app'"))
