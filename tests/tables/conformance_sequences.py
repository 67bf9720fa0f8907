"""What comes of one token after another, and of what somebody does who can run SQL."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.support.base64url import part
from tests.tables.conformance import UNASKED, Answer, Ask, Caller, Refused, Row, jwk
from tests.tables.conformance_tokens import (
    ENCODING,
    EXPIRED,
    EXPONENT,
    JTI,
    RISES,
    RISING,
    SIGNATURE,
    claims,
    payload,
)

_BACKEND = Refused("55P02", 'parameter "pg_session_jwt.jwk" cannot be set after connection start')
_NO_JWK = Refused("42804", "pg_session_jwt.jwk requires an ES256 JWK")
_NO_FUNCTION = Refused("42883", "function auth.jwt_session_init(unknown) does not exist")

_CACHE = "`exp` of the token that was accepted last: the extension doesn't check it again"
_UNSIGNED = "Claims with a `sub`, and no token: the portable functions refuse them"
_SETTINGS = "The settings of the extension: the portable functions read none of them for their key"
_EMPTY = "A token that is `''`"
_SESSION_INIT = "`auth.init()` and `auth.jwt_session_init()` aren't portable"
_ORDER = "A JWK of small order, for which signing needs no private key"

_CLAIMS_OF_MALLORY = 'SET request.jwt.claims = \'{"sub":"mallory"}\''
_JWK = "pg_session_jwt.jwk"
_JWK_CHANGES = {
    "SET": f"SET {_JWK} = '{{}}'",
    "SET LOCAL": f"SET LOCAL {_JWK} = '{{}}'",
    "RESET": f"RESET {_JWK}",
    "set_config()": f"SELECT set_config('{_JWK}', '{{}}', false)",
}


def all_of(*asks: Ask) -> Ask:
    """The last of the answers."""
    return lambda caller: [ask(caller) for ask in asks][-1]


def run(statement: str) -> Ask:
    return lambda caller: caller.run(statement.replace("{}", caller.stranger_jwk))


def says(question: str) -> Ask:
    return lambda caller: caller.ask(None, question)


def by_the_stranger(caller: Caller) -> Answer:
    return caller.ask(caller.stranger.token({"sub": "mallory", "jti": 10**6}))


def twice(between: Callable[[Caller], object]) -> Ask:
    """The same token again, *between* which something happens."""

    def ask(caller: Caller) -> Answer:
        token = caller.signer.token()
        caller.ask(token)
        between(caller)
        return caller.ask(token)

    return ask


def _again_when_expired(caller: Caller) -> Answer:
    caller.ask(None)
    until = int(time.time()) + 6.1
    token = caller.signer.token({"exp": int(time.time()) - 55})
    assert caller.ask(token) == "alice"
    time.sleep(max(0.0, until - time.time()))
    return caller.ask(token)


def _after_a_rollback(caller: Caller) -> Answer:
    earlier, later = caller.signer.token(), caller.signer.token()
    with caller.connection.transaction(force_rollback=True):
        assert caller.ask(later) == "alice"
    return caller.ask(earlier)


def _after_one_that_was_not_read(caller: Caller) -> Answer:
    earlier, later = caller.signer.token(), caller.signer.token()
    caller.ask(later, "1")
    return caller.ask(earlier)


def _after_one_that_was_refused(caller: Caller) -> Answer:
    earlier, later = caller.signer.token(), caller.signer.token({"exp": 1})
    assert caller.ask(later) == EXPIRED
    return caller.ask(earlier)


def _as_high(caller: Caller) -> Answer:
    caller.ask(caller.signer.token({"jti": 5}))
    return caller.ask(caller.signer.token({"jti": 5, "sub": "bob"}))


def _elsewhere(caller: Caller) -> Answer:
    """Seen on one connection, used on another that has the same key."""
    token = caller.signer.token()
    caller.ask(token)
    return caller.again().ask(token)


def _under_another_key(caller: Caller) -> Answer:
    token = caller.signer.token()
    caller.ask(token)
    return caller.again(caller.stranger_jwk).ask(token)


def _session_init(token: Callable[[Caller], str], question: str) -> Ask:
    def ask(caller: Caller) -> Answer:
        done = caller.run(f"SELECT auth.jwt_session_init('{token(caller)}')")
        return done if isinstance(done, Refused) else caller.ask(None, question)

    return ask


def _in_parallel(caller: Caller) -> Answer:
    parallel = "SELECT name FROM pg_settings WHERE name IN ('debug_parallel_query', 'force_parallel_mode')"
    caller.run(f"SET {caller.ask(None, parallel)} = on")
    return caller.ask(
        caller.signer.token(), "SELECT count(*) > 0 FROM pg_class WHERE auth.user_id() = 'alice'"
    )


def with_jwk(text: str, ask: Ask) -> Ask:
    return lambda caller: ask(caller.again(text))


def _of_small_order(caller: Caller) -> Answer:
    neutral = b"\1" + bytes(31)
    other = caller.again(jwk(neutral))
    return other.ask(other.signer.token().rpartition(".")[0] + "." + part(neutral + bytes(32)))


_BAD_JWKS = {
    "empty": "",
    "not JSON": "key",
    "null": "null",
    "a number": "5",
    "an object without members": "{}",
    "of another type": jwk(bytes(32)).replace("OKP", "EC"),
    "of another curve": jwk(bytes(32)).replace("Ed25519", "X25519"),
    "too short": jwk(bytes(31)),
    "too long": jwk(bytes(33)),
    "padded": jwk(bytes(32)).replace('"}', '="}'),
    "a list of keys": f'{{"keys":[{jwk(bytes(32))}]}}',
    "without x": '{"kty":"OKP","crv":"Ed25519"}',
    "with something behind": jwk(bytes(32)) + "x",
}


SEQUENCES: list[Row] = [
    Row(name="jti is the highest", ask=claims(jti=2**63 - 1), answer="alice"),
    Row(
        name="jti is 1e10",
        ask=payload('"jti":1e10'),
        answer=JTI,
        stand_in="alice",
        portable="alice",
        differs=EXPONENT,
    ),
    Row(name="jti as high as the last", ask=_as_high, answer=RISING, portable="bob", differs=RISES),
    Row(
        name="an earlier token",
        ask=twice(lambda caller: caller.ask(caller.signer.token({"sub": "bob"}))),
        answer=RISING,
        portable="alice",
        differs=RISES,
    ),
    Row(
        name="an earlier one after a rollback",
        ask=_after_a_rollback,
        answer=RISING,
        portable="alice",
        differs=RISES,
    ),
    Row(name="an earlier one after one that wasn't read", ask=_after_one_that_was_not_read, answer="alice"),
    Row(name="an earlier one after one that was refused", ask=_after_one_that_was_refused, answer="alice"),
    Row(name="the same again", ask=twice(lambda caller: None), answer="alice"),
    Row(name="the same after a forged one", ask=twice(by_the_stranger), answer="alice"),
    Row(name="the same after DISCARD ALL", ask=twice(run("DISCARD ALL")), answer="alice"),
    Row(
        name="the same when it has expired",
        ask=_again_when_expired,
        answer="alice",
        portable=EXPIRED,
        differs=_CACHE,
    ),
    Row(name="the same on another connection", ask=_elsewhere, answer="alice"),
    Row(
        name="the same on another connection, of another key",
        ask=_under_another_key,
        answer=SIGNATURE,
        portable=UNASKED,
    ),
    Row(name="in a parallel query", ask=_in_parallel, answer="true"),
    Row(
        name="nobody afterwards",
        ask=all_of(
            claims(),
            says("concat_ws(' ', auth.user_id(), auth.session(), current_setting('pg_session_jwt.jwt'))"),
        ),
        answer="null ",
    ),
    Row(
        name="set to nothing",
        ask=lambda caller: caller.ask(""),
        answer=ENCODING,
        portable=None,
        differs=_EMPTY,
    ),
    Row(
        name="claims that are SET, no token",
        ask=all_of(run(_CLAIMS_OF_MALLORY), says("auth.user_id()")),
        answer=None,
        portable=Refused("28000", "the caller is not signed"),
        differs=_UNSIGNED,
    ),
    Row(
        name="claims that are SET, and a token", ask=all_of(run(_CLAIMS_OF_MALLORY), claims()), answer="alice"
    ),
    *(
        Row(
            name=f"{change} of the JWK",
            ask=all_of(says("auth.user_id()"), run(statement)),
            answer=_BACKEND,
            portable="done",
            differs=_SETTINGS,
        )
        for change, statement in _JWK_CHANGES.items()
    ),
    *(
        Row(
            name=f"{change} of the JWK{when}, then {name}",
            ask=all_of(*first, run(statement), ask),
            answer=answer,
        )
        for change, statement in {
            **_JWK_CHANGES,
            "RESET ALL": "RESET ALL",
            "DISCARD ALL": "DISCARD ALL",
        }.items()
        for when, first in (("", [says("auth.user_id()")]), (" before the library is there", []))
        for name, ask, answer in (("alice", claims(), "alice"), ("a stranger", by_the_stranger, SIGNATURE))
    ),
    Row(
        name="SET of the log, by nobody special",
        ask=all_of(says("auth.user_id()"), run("SET pg_session_jwt.audit_log = 'on'")),
        answer=Refused("42501", 'permission denied to set parameter "pg_session_jwt.audit_log"'),
        portable="done",
        differs=_SETTINGS,
    ),
    Row(
        name="jwt_session_init",
        ask=_session_init(lambda caller: caller.signer.token(), "auth.user_id()"),
        answer="alice",
        portable=_NO_FUNCTION,
        differs=_SESSION_INIT,
    ),
    Row(
        name="jwt_session_init, forged",
        ask=_session_init(lambda caller: caller.stranger.token(), "auth.user_id()"),
        answer=SIGNATURE,
        portable=_NO_FUNCTION,
        differs=_SESSION_INIT,
    ),
    Row(
        name="init",
        ask=all_of(claims(jti=5), run("SELECT auth.init()"), claims(jti=4)),
        answer=RISING,
        portable="alice",
        differs=RISES,
    ),
    *(
        Row(name=f"a JWK that is {name}", ask=with_jwk(text, claims()), answer=_NO_JWK, portable=UNASKED)
        for name, text in _BAD_JWKS.items()
    ),
    Row(
        name="nobody, with a bad JWK",
        ask=with_jwk("{}", says("auth.user_id()")),
        answer=None,
        portable=UNASKED,
    ),
    Row(
        name="init with a bad JWK",
        ask=with_jwk("{}", run("SELECT auth.init()")),
        answer=_NO_JWK,
        portable=UNASKED,
    ),
    Row(
        name="a JWK of small order",
        ask=_of_small_order,
        answer=SIGNATURE,
        stand_in="alice",
        portable=UNASKED,
        differs=_ORDER,
    ),
]
