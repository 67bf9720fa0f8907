"""What it takes to ask every implementation of the functions of schema ``auth`` the same.

A row of the contract is asked of each; where the answers differ, the row says so.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import psycopg

from tests.support.base64url import part

Name: TypeAlias = Literal["pg_session_jwt", "stand-in", "portable", "portable before 16"]


class Refused(NamedTuple):
    """An error of Postgres."""

    sqlstate: str
    message: str


Answer: TypeAlias = str | Refused | None


@dataclass
class Signer:
    """Makes tokens, good but for what is asked for, each with a higher ``jti`` than those before."""

    header: bytes
    signature: Callable[[bytes], bytes]
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def claims(self) -> dict[str, Any]:
        """Those of the next good token."""
        return {"jti": next(self.numbers), "exp": int(time.time()) + 600, "sub": "alice"}

    def token(self, claims: Mapping[str, Any] | bytes | None = None, header: bytes | None = None) -> str:
        """Claims are added to the good ones, and taken away by ``...``; bytes are the whole payload."""
        if not isinstance(claims, bytes):
            changed = self.claims | dict(claims or {})
            claims = json.dumps({name: value for name, value in changed.items() if value is not ...}).encode()
        return self.signed(f"{part(self.header if header is None else header)}.{part(claims)}")

    def signed(self, text: str) -> str:
        """Whatever it is, with its signature."""
        return f"{text}.{part(self.signature(text.encode()))}"


def jwk(public: bytes) -> str:
    return json.dumps({"kty": "OKP", "crv": "Ed25519", "x": part(public)}, separators=(",", ":"))


@dataclass
class Caller:
    """Somebody who may call the functions and no more, on a connection of their own.

    Attributes:
        setting: where a caller is bound.
        signer: makes tokens that are good here.
        stranger: makes such tokens with another key.
        other: makes tokens of the other algorithm.
        public: what everybody may know of the key.
        stranger_jwk: the public half of the stranger's key.
        connect: makes the connection, with the JWK, if one is given.
        key: that JWK.
    """

    setting: str
    signer: Signer
    stranger: Signer
    other: Signer
    public: bytes
    stranger_jwk: str
    connect: Callable[[str | None], psycopg.Connection[Any]]
    key: str | None = None

    @cached_property
    def connection(self) -> psycopg.Connection[Any]:
        return self.connect(self.key)

    @property
    def pid(self) -> int:
        return self.connection.info.backend_pid

    def again(self, key: str | None = None) -> Caller:
        """The same on another connection, with another JWK if one is given."""
        return replace(self, key=self.key if key is None else key)

    def ask(self, bound: str | None, question: str = "auth.user_id()") -> Answer:
        """What SQL *question* says in a transaction to which *bound* is bound."""
        try:
            with self.connection.transaction():
                if bound is not None:
                    self.connection.execute("SELECT set_config(%s, %s, true)", [self.setting, bound])
                row = self.connection.execute(f"SELECT ({question})::text".encode()).fetchone()
        except psycopg.Error as error:
            return _refused(error)
        assert row
        answer: str | None = row[0]
        return answer

    def run(self, statement: str) -> Answer:
        """Run it on its own; ``done``, or what is wrong."""
        try:
            self.connection.execute(statement.encode())
        except psycopg.Error as error:
            return _refused(error)
        return "done"


def _refused(error: psycopg.Error) -> Refused:
    return Refused(error.sqlstate or "", error.diag.message_primary or str(error))


class _Same:
    pass


SAME: Final = _Same()
#: Isn't asked of this one.
UNASKED: Final = Refused("", "isn't asked")
Ask: TypeAlias = Callable[[Caller], Answer]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A sentence of the contract.

    Attributes:
        ask: makes the answer.
        answer: what the extension says, and whoever isn't named below.
        differs: what the document says of rows whose answers differ.
    """

    name: str
    ask: Ask
    answer: Answer
    stand_in: Answer | _Same = SAME
    portable: Answer | _Same = SAME
    portable_before_16: Answer | _Same = SAME
    differs: str = ""

    @property
    def answers(self) -> dict[Name, Answer]:
        portable = self.answer if isinstance(self.portable, _Same) else self.portable
        before_16 = portable if isinstance(self.portable_before_16, _Same) else self.portable_before_16
        return {
            "pg_session_jwt": self.answer,
            "stand-in": self.answer if isinstance(self.stand_in, _Same) else self.stand_in,
            "portable": portable,
            "portable before 16": before_16,
        }
