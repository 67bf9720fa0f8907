"""The contract in claims mode: nothing is verified, the setting is believed."""

from __future__ import annotations

import json
from typing import Any

from tests.tables.conformance import Answer, Ask, Caller, Refused, Row

UUID = "9c7d6a2e-0b1f-4c3d-8e5f-a1b2c3d4e5f6"

#: The subject, and what ``auth.uid()`` makes of it.
SUBJECTS: dict[str, str | None] = {
    "": None,
    "it's; DROP TABLE x": None,
    "ü ☃ \\ $$ %s :x": None,
    UUID: UUID,
    UUID.upper(): UUID,
    UUID.replace("-", ""): UUID,
    f"{{{UUID}}}": UUID,
    f"urn:uuid:{UUID}": UUID,
    f"{{{UUID.replace('-', '')}}}": None,
    f"URN:UUID:{UUID}": None,
    f"urn:uuid:{UUID.replace('-', '')}": None,
    f"{{{UUID}": None,
    f"{UUID}\n": None,
    f" {UUID}": None,
    UUID[:-1]: None,
    UUID.replace("-", "", 1): None,
    f"g{UUID[1:]}": None,
}

#: The claim "o", what ``auth.organization()`` and ``auth.organization_id()`` make of it.
ORGANIZATIONS: list[tuple[Any, str | None, str | None]] = [
    ({"id": UUID, "rol": "admin"}, f'{{"id": "{UUID}", "rol": "admin"}}', UUID),
    ({"id": "acme"}, '{"id": "acme"}', None),
    ({"id": 5}, '{"id": 5}', None),
    ({"id": None}, '{"id": null}', None),
    ({}, "{}", None),
    ("acme", None, None),
    (None, None, None),
    (5, None, None),
    ([UUID], None, None),
]

NOT_TEXT: list[Any] = [5, None, True, {}, ["alice"]]

_NOT_JSON = Refused("22P02", "invalid input syntax for type json")
NO_TEXT = Refused("22P05", "unsupported Unicode escape sequence")
_NOT_TOLD = "Claims that aren't JSON: before PostgreSQL 16, they raise an error"
NUMBERS = "Numbers: the extension reads them as double precision, the others as numeric"
DEPTH = "JSON nested deeper than 127 levels"
NUL = "A NUL (`\\u0000`) in a claim: the extension's `auth.user_id()` ends there"


def bound(claims: str | None, question: str = "auth.user_id()") -> Ask:
    return lambda caller: caller.ask(claims, question)


def sub(value: Any) -> str:
    return json.dumps({"sub": value})


#: SQL about a function, and what it says of jwt, organization, organization_id, session, uid and user_id.
FUNCTIONS = {
    "prorettype::regtype": "jsonb jsonb uuid jsonb uuid text",
    "provolatile": "s s s s s s",
    "prokind": "f f f f f f",
    "proretset": "false false false false false false",
    "has_function_privilege(oid, 'EXECUTE')": "true true true true true true",
}


def functions(attribute: str) -> Ask:
    names = "'{jwt,organization,organization_id,session,uid,user_id}'"
    return lambda caller: caller.ask(
        None,
        f"SELECT string_agg(({attribute})::text, ' ' ORDER BY proname) FROM pg_proc"
        f" WHERE pronamespace = 'auth'::regnamespace AND proname = ANY ({names})",
    )


def _nobody_afterwards(caller: Caller) -> Answer:
    caller.ask(sub("alice"))
    return caller.ask(
        None, "concat_ws(' ', auth.user_id(), auth.session(), current_setting('request.jwt.claims'))"
    )


def _who_may_set(caller: Caller) -> Answer:
    caller.ask(sub("alice"))
    caller.run('SET request.jwt.claims = \'{"sub":"mallory"}\'')
    return caller.ask(None, "auth.user_id()")


def _with_a_token(caller: Caller) -> Answer:
    caller.run("SET pg_session_jwt.jwt = 'a.b.c'")
    return caller.ask(sub("alice"))


CLAIMS: list[Row] = [
    *(Row(name=one, ask=functions(one), answer=answer) for one, answer in FUNCTIONS.items()),
    Row(name="proparallel", ask=functions("proparallel"), answer="s s s s s s"),
    *(
        Row(name=f"nobody by {text}", ask=bound(text, f"auth.{function}()"), answer=None)
        for text in (None, "", "null", "5", '"alice"', "[]", '["sub"]', '[{"sub": "alice"}]', "{}")
        for function in ("user_id", "uid", "organization", "organization_id")
    ),
    *(
        Row(name=f"session by {text}", ask=bound(text, "auth.session()"), answer=answer)
        for text, answer in [(None, "null"), ("", "null"), ("null", "null"), ("5", "5"), ("[]", "[]")]
    ),
    *(Row(name=f"user_id by {name!r}", ask=bound(sub(name)), answer=name) for name in ("alice", *SUBJECTS)),
    *(
        Row(name=f"uid by {name!r}", ask=bound(sub(name), "auth.uid()"), answer=answer)
        for name, answer in SUBJECTS.items()
    ),
    *(
        Row(
            name=f"{function} by the subject {value}",
            ask=bound(sub(value), f"auth.{function}()"),
            answer=None,
        )
        for value in NOT_TEXT
        for function in ("user_id", "uid")
    ),
    *(
        Row(name=f"{function} by {o}", ask=bound(json.dumps({"o": o}), f"auth.{function}()"), answer=answer)
        for o, whole, identifier in ORGANIZATIONS
        for function, answer in (("organization", whole), ("organization_id", identifier))
    ),
    Row(
        name="the claims come whole",
        ask=bound('{"sub": "alice", "n": [1, {"a": null}]}', "auth.session()"),
        answer='{"n": [1, {"a": null}], "sub": "alice"}',
    ),
    Row(name="jwt() is session()", ask=bound(sub("alice"), "auth.jwt() = auth.session()"), answer="true"),
    Row(name="spaces around", ask=bound(f" {sub('alice')}\n"), answer="alice"),
    Row(name="two subjects", ask=bound('{"sub":"alice","sub":"bob"}'), answer="bob"),
    Row(name="expired", ask=bound('{"sub":"alice","exp":1}'), answer="alice"),
    Row(name="nobody afterwards", ask=_nobody_afterwards, answer="null "),
    Row(name="who may SET", ask=_who_may_set, answer="mallory"),
    Row(name="a token beside", ask=_with_a_token, answer="alice"),
    *(
        Row(
            name=f"not JSON: {text}",
            ask=bound(text),
            answer=None,
            portable_before_16=_NOT_JSON,
            differs=_NOT_TOLD,
        )
        for text in (
            "{sub: alice}",
            '{"sub":"alice"}x',
            '{"sub":"alice",}',
            "{'sub':'alice'}",
            '{"sub":"alice\\ud800"}',
            '{"sub":"alice","x":01}',
            '{"sub":"alice","x":NaN}',
            '\ufeff{"sub":"alice"}',
        )
    ),
    *(
        Row(
            name=f"the number {number}",
            ask=bound(f'{{"n": {number}}}', "auth.session() ->> 'n'"),
            answer=answer,
            stand_in=others,
            portable=others,
            differs=NUMBERS,
        )
        for number, answer, others in (
            ("0.10", "0.1", "0.10"),
            ("3.141592653589793238", "3.141592653589793", "3.141592653589793238"),
            ("12345678901234567890123", "12345678901234568000000", "12345678901234567890123"),
            ("-0", "0.0", "0"),
        )
    ),
    Row(
        name="the number 1e999",
        ask=bound('{"sub":"alice","n":1e999}'),
        answer=None,
        stand_in="alice",
        portable="alice",
        differs=NUMBERS,
    ),
    Row(
        name="127 levels",
        ask=bound('{"sub":"alice","x":' + "[" * 126 + "]" * 126 + "}"),
        answer="alice",
    ),
    Row(
        name="128 levels",
        ask=bound('{"sub":"alice","x":' + "[" * 127 + "]" * 127 + "}"),
        answer=None,
        stand_in="alice",
        portable="alice",
        differs=DEPTH,
    ),
    *(
        Row(
            name=f"a NUL {where}",
            ask=bound(text),
            answer="alice",
            stand_in=NO_TEXT,
            portable=None,
            portable_before_16=NO_TEXT,
            differs=NUL,
        )
        for where, text in (
            ("in the subject", '{"sub":"alice\\u0000bob"}'),
            ("elsewhere", '{"sub":"alice","x":"\\u0000"}'),
        )
    ),
]
