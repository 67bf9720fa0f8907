"""One contract for whatever stands behind the functions of schema ``auth``: pg_session_jwt 0.5.0, the
stand-in for it, and the portable functions; where callers are verified, and where claims are believed.

``SQLA_RLS_WRITE_CASES=1 pytest tests/ddl/test_conformance.py`` writes docs/security/conformance.md.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.utils import base64url_decode
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from sqla_rls.ddl.roles import DropRole
from sqla_rls.snapshot import KEYHOLDER
from sqla_rls.testing.postgres import Server
from tests.tables.conformance import UNASKED, Answer, Caller, Name, Refused, Row, Signer, jwk
from tests.tables.conformance_claims import CLAIMS
from tests.tables.conformance_sequences import SEQUENCES
from tests.tables.conformance_tokens import TOKENS

pytestmark = pytest.mark.exhaustive

SIGNED: Final = [*TOKENS, *SEQUENCES]
DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "security" / "conformance.md"
OURS, STRANGER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
OUR_JWK, STRANGER_JWK = (jwk(private.public_key().public_bytes_raw()) for private in (OURS, STRANGER))


def ed25519(private: Ed25519PrivateKey) -> Signer:
    return Signer(b'{"alg":"EdDSA"}', private.sign)


def hs256(key: bytes) -> Signer:
    return Signer(b'{"alg":"HS256","typ":"rls+jwt"}', lambda text: hmac.digest(key, text, "sha256"))


@dataclass(kw_only=True)
class Implementation:
    """A database with the functions, and a role of its name that may call them and no more.

    Attributes:
        name: whose they are.
        key: that the portable ones verify with.
        opened: closes the connections to it.
    """

    name: Name
    server: Server
    database: str
    key: bytes | None = None
    opened: ExitStack = field(default_factory=ExitStack)

    def connect(self, key: str | None) -> psycopg.Connection[Any]:
        url = self.server.url(self.database, user=self.database).set(drivername="postgresql")
        options = None if key is None else f"-c pg_session_jwt.jwk={key}"
        connection = psycopg.connect(url.render_as_string(False), autocommit=True, options=options)
        return self.opened.enter_context(closing(connection))

    @cached_property
    def verifying(self) -> Caller:
        """To a caller of this one, tokens are bound."""
        if self.key is None:
            signer, stranger, other = ed25519(OURS), ed25519(STRANGER), hs256(b"")
        else:
            signer, stranger, other = hs256(self.key), hs256(os.urandom(32)), ed25519(OURS)
        ours = OUR_JWK if self.key is None else None
        return Caller(
            setting="pg_session_jwt.jwt",
            signer=signer,
            stranger=stranger,
            other=other,
            public=(ours or "").encode(),
            stranger_jwk=STRANGER_JWK,
            connect=self.connect,
            key=ours,
        )

    @cached_property
    def believing(self) -> Caller:
        """To a caller of this one, claims are bound."""
        nobody = ed25519(OURS)
        return Caller(
            setting="request.jwt.claims",
            signer=nobody,
            stranger=nobody,
            other=nobody,
            public=b"",
            stranger_jwk=STRANGER_JWK,
            connect=self.connect,
        )


@contextmanager
def _database(server: Server, *, portable: bool = False, signed: bool = False) -> Iterator[Implementation]:
    name = server.create_database()
    engine = create_engine(server.url(name), poolclass=NullPool)
    with engine.begin() as connection:
        if portable:
            # A schema that is there already keeps the extension out.
            connection.execute(text("CREATE SCHEMA auth"))
        connection.execute(CreateAuthFunctions(signed=signed))
        connection.execute(text(f"CREATE ROLE {name} LOGIN"))
        connection.execute(text(f"GRANT USAGE ON SCHEMA auth TO {name}"))
        key = connection.scalar(text("SELECT sqla_rls_secret.rotate_signing_key('0')")) if signed else None
        stand_in = connection.scalar(
            text(
                "SELECT comment LIKE '%stand-in%' FROM pg_available_extensions WHERE name = 'pg_session_jwt'"
            )
        )
    kind: Name = "stand-in" if stand_in else "pg_session_jwt"
    if portable:
        kind = "portable" if server.version >= 16 else "portable before 16"
    found = Implementation(name=kind, server=server, database=name, key=key and base64url_decode(key))
    with found.opened:
        yield found
    server.drop_database(name)
    with create_engine(server.url(), poolclass=NullPool).begin() as connection:
        connection.execute(text(f"DROP ROLE {name}"))
        connection.execute(DropRole(KEYHOLDER))


@pytest.fixture(scope="module")
def extension_database(signing_server: Server) -> Iterator[Implementation]:
    with _database(signing_server) as made:
        yield made


@pytest.fixture(scope="module")
def signed_database(server: Server) -> Iterator[Implementation]:
    with _database(server, portable=True, signed=True) as made:
        yield made


@pytest.fixture(scope="module")
def claims_database(server: Server) -> Iterator[Implementation]:
    with _database(server, portable=True) as made:
        yield made


@contextmanager
def opened(made: Implementation) -> Iterator[Implementation]:
    """Its connections are closed at the end."""
    with ExitStack() as connections:
        yield replace(made, opened=connections)


@pytest.fixture
def extension(extension_database: Implementation) -> Iterator[Implementation]:
    with opened(extension_database) as made:
        yield made


def asked_of_sql(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.portable is not UNASKED]


def assert_answers(subtests: pytest.Subtests, rows: list[Row], caller: Caller, name: Name) -> None:
    """Each row is asked of a caller that others were before."""
    for row in rows:
        with subtests.test(row.name):
            caller.run("DISCARD ALL")
            assert row.ask(caller) == row.answers[name]


def assert_answers_of_new_callers(subtests: pytest.Subtests, rows: list[Row], made: Implementation) -> None:
    for row in rows:
        with subtests.test(row.name), opened(made) as implementation:
            assert row.ask(implementation.verifying) == row.answers[implementation.name]


def test_what_the_extension_verifies(extension_database: Implementation, subtests: pytest.Subtests) -> None:
    assert_answers(subtests, TOKENS, extension_database.verifying, extension_database.name)


def test_what_sql_verifies(signed_database: Implementation, subtests: pytest.Subtests) -> None:
    assert_answers(subtests, asked_of_sql(TOKENS), signed_database.verifying, signed_database.name)


def test_what_the_extension_believes(extension_database: Implementation, subtests: pytest.Subtests) -> None:
    assert_answers(subtests, CLAIMS, extension_database.believing, extension_database.name)


def test_what_sql_believes(claims_database: Implementation, subtests: pytest.Subtests) -> None:
    assert_answers(subtests, CLAIMS, claims_database.believing, claims_database.name)


def test_what_the_extension_remembers(extension_database: Implementation, subtests: pytest.Subtests) -> None:
    assert_answers_of_new_callers(subtests, SEQUENCES, extension_database)


def test_what_sql_remembers(signed_database: Implementation, subtests: pytest.Subtests) -> None:
    assert_answers_of_new_callers(subtests, asked_of_sql(SEQUENCES), signed_database)


def test_the_settings_have_their_contexts(extension: Implementation) -> None:
    connection = extension.verifying.connection
    connection.execute("SELECT auth.user_id()")
    rows = connection.execute(
        "SELECT name, context, vartype FROM pg_settings"
        " WHERE name ~ '^(pg_session_jwt|request)[.]' ORDER BY name"
    )
    assert rows.fetchall() == [
        ("pg_session_jwt.audit_log", "superuser", "string"),
        ("pg_session_jwt.jwk", "backend", "string"),
        ("pg_session_jwt.jwt", "user", "string"),
        ("request.jwt.claims", "user", "string"),
    ]


@pytest.mark.parametrize("wanted", ["on", "off"])
def test_the_extension_logs_what_was_read_when_a_superuser_wants_that(
    extension: Implementation, wanted: str
) -> None:
    with create_engine(extension.server.url(), poolclass=NullPool).begin() as connection:
        connection.execute(text(f"ALTER ROLE {extension.database} SET pg_session_jwt.audit_log = '{wanted}'"))
    verifying, believing = extension.verifying, extension.believing
    notices: list[str | None] = []
    for caller in (verifying, believing):
        caller.connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        caller.run("SET client_min_messages = log")
    verifying.ask(verifying.signer.token({"aud": "app"}))
    verifying.ask(verifying.stranger.token({"jti": 10**6}))
    believing.ask('{"sub":"alice"}')
    logged = [
        'JWT issued for sub="alice" and aud="app" was succesfully validated',
        'JWT claims from GUC \'request.jwt.claims\': sub="alice" and aud=""',
    ]
    assert notices == (logged if wanted == "on" else [])


def test_the_extension_is_trusted_and_stays_where_it_is(extension: Implementation) -> None:
    connection = extension.verifying.connection
    about = "SELECT trusted, relocatable, schema, superuser FROM pg_available_extension_versions"
    row = connection.execute(f"{about} WHERE name = 'pg_session_jwt' AND installed").fetchone()
    assert row == (True, False, None, True)
    member = "SELECT deptype::text FROM pg_depend WHERE objid = 'auth'::regnamespace"
    assert connection.execute(f"{member} AND refclassid = 'pg_extension'::regclass").fetchall() == [("e",)]


def test_without_a_jwk_no_session_can_be_begun(extension: Implementation) -> None:
    caller = extension.believing
    missing = Refused("02000", "Missing runtime parameter: pg_session_jwt.jwk")
    assert caller.run("SELECT auth.init()") == missing
    assert caller.run("SELECT auth.jwt_session_init('a.b.c')") == missing
    assert caller.ask(None, "current_setting('pg_session_jwt.jwt')") == ""


def test_the_document_says_what_is_asserted() -> None:
    written = document()
    if os.environ.get("SQLA_RLS_WRITE_CASES"):
        DOCUMENT.write_text(written, encoding="utf-8")
    assert DOCUMENT.read_text(encoding="utf-8") == written


_INTRODUCTION = """\
# Conformance

The functions of schema `auth` come from the extension
[pg_session_jwt](https://github.com/neondatabase/pg_session_jwt) 0.5.0, or from sqla_rls: these are portable
SQL. The test suite also compiles a stand-in for the extension. `tests/ddl/test_conformance.py` asks each
of them the same questions, asserts the answers, and writes the differences into this document.

A cell has the answers: values, SQLSTATEs of refusals, and `NULL` if there is no caller. A dash stands for a
question that doesn't apply.
"""


def document() -> str:
    names: list[Name] = ["pg_session_jwt", "stand-in", "portable"]
    verified = "\n".join(_table(SIGNED, names))
    believed = "\n".join(_table(CLAIMS, [*names, "portable before 16"]))
    return (
        f"{_INTRODUCTION}\n## Signed callers: {len(SIGNED)} questions\n\n{verified}\n"
        f"\n## Unsigned claims: {len(CLAIMS)} questions\n\n{believed}\n"
    )


def _table(rows: list[Row], names: list[Name]) -> Iterator[str]:
    yield f"| Difference | {' | '.join(names)} |"
    yield f"| --- |{' --- |' * len(names)}"
    found: dict[str, list[Row]] = {}
    for row in rows:
        if len({row.answers[name] for name in names} - {UNASKED}) > 1:
            assert row.differs, row.name
            found.setdefault(row.differs, []).append(row)
    for difference, of_it in found.items():
        cells = [", ".join(dict.fromkeys(_cell(row.answers[name]) for row in of_it)) for name in names]
        yield f"| {difference} | {' | '.join(cells)} |"


def _cell(answer: Answer) -> str:
    if answer is None:
        return "`NULL`"
    if answer == UNASKED:
        return "–"  # noqa: RUF001
    return answer.sqlstate if isinstance(answer, Refused) else f"`{answer}`"
