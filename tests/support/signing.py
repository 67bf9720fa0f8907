"""A database that verifies callers, tokens for it, good and forged, and what must not be seen of its key."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import psycopg
import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from tests.support.base64url import decoded, part

HEADER: Final = b'{"alg":"HS256","typ":"rls+jwt"}'
ENCODING: Final = "invalid JWT encoding"
SIGNATURE: Final = "invalid JWT signature"


def claims_of(subject: str | None = "alice", **claims: Any) -> dict[str, Any]:
    """Good for two minutes; a claim that is None is left out."""
    whole = {"sub": subject, "role": "authenticated", "exp": int(time.time()) + 120, **claims}
    return {name: value for name, value in whole.items() if value is not None}


def token(
    key: str,
    claims: dict[str, Any] | bytes | None = None,
    *,
    header: bytes = HEADER,
    digest: str = "sha256",
) -> str:
    """Signed with *key*, which is in base64url; *claims* are those of Alice unless they are given."""
    payload = claims if isinstance(claims, bytes) else json.dumps(claims or claims_of()).encode()
    return signed(decoded(key), f"{part(header)}.{part(payload)}", digest)


def signed(secret: bytes, what: str, digest: str = "sha256") -> str:
    return f"{what}.{part(hmac.digest(secret, what.encode(), digest))}"


def traces(key: str) -> list[str]:
    """What *key* looks like where it is printed: as such, and as the table holds it."""
    secret = decoded(key)
    pads = [bytes(byte ^ with_ for byte in secret.ljust(64, b"\0")) for with_ in (0x36, 0x5C)]
    values = [secret, *pads]
    return [
        key,
        *(value.hex()[:32] for value in values),
        *(base64.b64encode(value).decode()[:32] for value in values),
        *("".join(f"\\{byte:03o}" for byte in value[:8]) for value in values),
    ]


@dataclass(frozen=True)
class Signed:
    """A database that verifies callers: its key, its superuser, and the login role ``app``."""

    key: str
    admin: Engine
    app: Engine

    def token(self, subject: str | None = "alice", **claims: Any) -> str:
        return token(self.key, claims_of(subject, **claims))


@contextmanager
def as_authenticated(signed: Signed) -> Iterator[Connection]:
    """The application's, in a transaction to which nothing is bound but the role."""
    with signed.app.connect() as connection:
        bind(connection, "authenticated", "role")
        yield connection


def bind(connection: Connection, value: str, setting: str = "pg_session_jwt.jwt") -> None:
    connection.execute(
        text("SELECT set_config(:setting, :value, true)"), {"setting": setting, "value": value}
    )


def ask(connection: Connection, function: str = "user_id") -> Any:
    return connection.scalar(text(f"SELECT auth.{function}()"))


def tasks(connection: Connection) -> list[str]:
    return list(connection.scalars(text("SELECT task FROM public.todos ORDER BY id")))


def refusal(connection: Connection) -> psycopg.Error:
    """The error of whoever reads who is calling; the transaction goes on."""
    savepoint = connection.begin_nested()
    with pytest.raises(DBAPIError) as raised:
        ask(connection)
    savepoint.rollback()
    assert isinstance(raised.value.orig, psycopg.Error)
    return raised.value.orig


def _replaced(whole: str, at: int, by: str) -> str:
    return whole[:at] + by + whole[at + 1 :]


def _flipped(whole: str, at: int) -> str:
    return _replaced(whole, at, "A" if whole[at] != "A" else "B")


def _signature(change: Callable[[str], str]) -> Callable[[str], str]:
    def forge(key: str) -> str:
        what, _, signature = token(key).rpartition(".")
        return f"{what}.{change(signature)}"

    return forge


def _headed(header: str | bytes, digest: str = "sha256") -> Callable[[str], str]:
    return lambda key: token(
        key, header=header.encode() if isinstance(header, str) else header, digest=digest
    )


def _by(secret: Callable[[bytes], bytes]) -> Callable[[str], str]:
    return lambda key: signed(secret(decoded(key)), token(key).rpartition(".")[0])


def _spelled_otherwise(signature: str) -> str:
    """The same 32 bytes: the last character has two bits to spare."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = signature[:-1] + alphabet[alphabet.index(signature[-1]) ^ 1]
    assert decoded(other) == decoded(signature)
    return other


def _of_another(key: str) -> str:
    header, _, signature = token(key).split(".")
    return f"{header}.{part(json.dumps(claims_of('bob')).encode())}.{signature}"


#: What is made of the right key, which an attacker doesn't have, and how it must be refused all the same.
FORGED: Final[dict[str, tuple[Callable[[str], str], str]]] = {
    # the algorithm, and what else the header says
    "alg none": (lambda key: token(key, header=b'{"alg":"none"}').rpartition(".")[0] + ".", ENCODING),
    "alg none, typ right": (
        lambda key: token(key, header=b'{"alg":"none","typ":"rls+jwt"}').rpartition(".")[0] + ".",
        ENCODING,
    ),
    "alg None": (_headed('{"alg":"None","typ":"rls+jwt"}'), ENCODING),
    "alg none, signed": (_headed('{"alg":"none","typ":"rls+jwt"}'), ENCODING),
    "alg HS384": (_headed('{"alg":"HS384","typ":"rls+jwt"}', "sha384"), ENCODING),
    "alg HS512": (_headed('{"alg":"HS512","typ":"rls+jwt"}', "sha512"), ENCODING),
    "alg RS256": (_headed('{"alg":"RS256","typ":"rls+jwt"}'), ENCODING),
    "alg EdDSA": (_headed('{"alg":"EdDSA","typ":"rls+jwt"}'), ENCODING),
    "alg in small letters": (_headed('{"alg":"hs256","typ":"rls+jwt"}'), ENCODING),
    "alg missing": (_headed('{"typ":"rls+jwt"}'), ENCODING),
    "typ JWT": (_headed('{"alg":"HS256","typ":"JWT"}'), ENCODING),
    "typ at+jwt": (_headed('{"alg":"HS256","typ":"at+jwt"}'), ENCODING),
    "typ missing": (_headed('{"alg":"HS256"}'), ENCODING),
    "typ first": (_headed('{"typ":"rls+jwt","alg":"HS256"}'), ENCODING),
    "header with spaces": (_headed('{"alg": "HS256", "typ": "rls+jwt"}'), ENCODING),
    "header with more": (_headed('{"alg":"HS256","typ":"rls+jwt","kid":"1"}'), ENCODING),
    "header with a key": (_headed('{"alg":"HS256","typ":"rls+jwt","jwk":{"kty":"oct","k":""}}'), ENCODING),
    "header said twice": (_headed('{"alg":"HS256","typ":"rls+jwt","alg":"none"}'), ENCODING),
    "crit": (_headed('{"alg":"HS256","typ":"rls+jwt","crit":["exp"]}'), ENCODING),
    "header empty": (_headed(""), ENCODING),
    "header null": (_headed("null"), ENCODING),
    "header with padding": (lambda key: signed(decoded(key), f"{part(HEADER)}==.{part(b'{}')}"), ENCODING),
    # the key
    "another key": (lambda key: token(part(b"k" * 32)), SIGNATURE),
    "an empty key": (_by(lambda secret: b""), SIGNATURE),
    "a key of zeros": (_by(lambda secret: bytes(32)), SIGNATURE),
    "the key as it is spelled": (lambda key: signed(key.encode(), token(key).rpartition(".")[0]), SIGNATURE),
    "the key reversed": (_by(lambda secret: secret[::-1]), SIGNATURE),
    "half of the key": (_by(lambda secret: secret[:16]), SIGNATURE),
    "the key and a byte": (_by(lambda secret: secret + b"\1"), SIGNATURE),
    "the key hashed": (_by(lambda secret: hashlib.sha256(secret).digest()), SIGNATURE),
    "a name of the key": (_by(lambda secret: b"signing_key"), SIGNATURE),
    "a hash with no key": (
        lambda key: (
            (what := token(key).rpartition(".")[0]) + "." + part(hashlib.sha256(what.encode()).digest())
        ),
        SIGNATURE,
    ),
    "a hash of key and text": (
        lambda key: (
            (what := token(key).rpartition(".")[0])
            + "."
            + part(hashlib.sha256(decoded(key) + what.encode()).digest())
        ),
        SIGNATURE,
    ),
    # the signature
    "no signature": (_signature(lambda signature: ""), ENCODING),
    "half a signature": (_signature(lambda signature: signature[:22]), ENCODING),
    "a signature of SHA-1": (
        lambda key: signed(decoded(key), token(key).rpartition(".")[0], "sha1"),
        ENCODING,
    ),
    "a signature of SHA-512": (
        lambda key: signed(decoded(key), token(key).rpartition(".")[0], "sha512"),
        ENCODING,
    ),
    "a signature of zeros": (_signature(lambda signature: part(bytes(32))), SIGNATURE),
    "the first character changed": (_signature(lambda signature: _flipped(signature, 0)), SIGNATURE),
    "one in the middle changed": (_signature(lambda signature: _flipped(signature, 21)), SIGNATURE),
    "the last bits spelled otherwise": (_signature(_spelled_otherwise), SIGNATURE),
    "in small letters": (_signature(str.lower), SIGNATURE),
    "a signature with padding": (_signature(lambda signature: f"{signature}="), ENCODING),
    "padding for the last character": (_signature(lambda signature: f"{signature[:-1]}="), ENCODING),
    "a signature in hex": (_signature(lambda signature: decoded(signature).hex()), ENCODING),
    "a space at the end": (_signature(lambda signature: f"{signature} "), ENCODING),
    "a line feed at the end": (_signature(lambda signature: f"{signature}\n"), ENCODING),
    "a space within": (_signature(lambda signature: f"{signature[:20]} {signature[20:]}"), ENCODING),
    "a line feed for a character": (_signature(lambda signature: _replaced(signature, 5, "\n")), ENCODING),
    "the other alphabet": (_signature(lambda signature: f"+{signature[1:]}"), ENCODING),
    "a letter that looks alike": (_signature(lambda signature: f"\u0410{signature[1:]}"), ENCODING),
    "a digit of another script": (_signature(lambda signature: f"{signature[:-1]}\u0665"), ENCODING),
    "a percent sign": (_signature(lambda signature: f"%{signature[1:]}"), ENCODING),
    # the parts
    "the claims of another token": (_of_another, SIGNATURE),
    "one claim changed": (
        lambda key: (
            (parts := token(key).split("."))[0]
            + "."
            + part(decoded(parts[1]).replace(b"alice", b"bobby"))
            + "."
            + parts[2]
        ),
        SIGNATURE,
    ),
    "the claims cut off": (
        lambda key: (parts := token(key).split("."))[0] + "." + parts[1][:-1] + "." + parts[2],
        SIGNATURE,
    ),
    "no claims": (lambda key: (parts := token(key).split("."))[0] + ".." + parts[2], SIGNATURE),
    "four parts": (lambda key: f"{token(key)}.", ENCODING),
    "five parts": (lambda key: f"{token(key)}.x.y", ENCODING),
    "a dot more, signed": (
        lambda key: signed(decoded(key), token(key).rpartition(".")[0] + ".e30"),
        ENCODING,
    ),
    "two parts": (lambda key: token(key).rpartition(".")[0], ENCODING),
    "one part": (lambda key: part(HEADER), ENCODING),
    "dots": (lambda key: "..", ENCODING),
    "a dot": (lambda key: ".", ENCODING),
    "a space": (lambda key: " ", ENCODING),
    "null": (lambda key: "null", ENCODING),
    "claims as such": (lambda key: json.dumps(claims_of()), ENCODING),
    "with its scheme": (lambda key: f"Bearer {token(key)}", ENCODING),
    "in quotes": (lambda key: f'"{token(key)}"', ENCODING),
    "a space before it": (lambda key: f" {token(key)}", ENCODING),
    "twice": (lambda key: token(key) * 2, ENCODING),
    "SQL": (lambda key: "' OR true --", ENCODING),
    "garbage": (lambda key: "x" * 300, ENCODING),
    "longer than anything": (lambda key: token(key) + "." * 5_000_000, ENCODING),
    # claims, signed as they should be
    "no object": (lambda key: token(key, b"[]"), "could not parse JWT component"),
    "a string": (lambda key: token(key, b'"alice"'), "could not parse JWT component"),
    "a null": (lambda key: token(key, b"null"), "could not parse JWT component"),
    "no JSON": (lambda key: token(key, b"{alice"), "invalid input syntax for type json"),
    "no UTF-8": (lambda key: token(key, b'{"sub":"\xff"}'), "invalid byte sequence"),
}
