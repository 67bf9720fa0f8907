"""Tokens, one at a time, good and forged, as they are verified: by the extension and its stand-in with a JWK
(Ed25519), by the portable functions with their key (HS256)."""

from __future__ import annotations

import hmac
import json
import string
import time
from collections.abc import Callable
from typing import Any

from jwt.utils import base64url_decode

from tests.support.base64url import part
from tests.tables.conformance import UNASKED, Answer, Ask, Caller, Refused, Row, Signer
from tests.tables.conformance_claims import (
    DEPTH,
    FUNCTIONS,
    NO_TEXT,
    NOT_TEXT,
    NUL,
    NUMBERS,
    ORGANIZATIONS,
    SUBJECTS,
    functions,
)

ENCODING = Refused("42804", "invalid JWT encoding")
SIGNATURE_ENCODING = Refused("42804", "invalid JWT signature encoding")
DECODE = Refused("42804", "could not decode JWT component")
PARSE = Refused("42804", "could not parse JWT component")
NOT_JSON = Refused("22P02", "invalid input syntax for type json")
JTI = Refused("42804", "JWT payload must contain a valid 'jti' (JWT ID)")
RISING = Refused("23514", "Token ID must be strictly monotonically increasing.")
SUBJECT = Refused("42804", "invalid subject claim in the JWT")
SIGNATURE = Refused("23514", "invalid JWT signature")
EARLY = Refused("23514", "Token used before it is ready")
EXPIRED = Refused("23514", "Token used after it has expired")
NBF = Refused("42804", "'nbf' (Not Before) must be an integer representing seconds since unix epoch")
EXP = Refused("42804", "'exp' (Expiration) must be an integer representing seconds since unix epoch")
PROCESS = Refused("23514", "Token belongs to another connection")

_SHAPE = (
    "Text that isn't three parts of base64url: the portable functions check the form of the whole text first"
)
_HEADER = "The header: the extension ignores it, the portable functions accept exactly one"
_TIMES = "`exp` and `nbf`: the portable functions require `exp`, and take at most 15 digits without a sign"
_SUB = "A `sub` that isn't text: `auth.user_id()` and `auth.uid()` refuse it, or all functions do"
_PAYLOAD = "A signed payload that isn't JSON, or is no object"
RISES = "`jti`: the portable functions don't check it, so a token can be used again until it expires"
EXPONENT = "An integer written with an exponent, or as `-0`"
_PARALLEL = "`PARALLEL` safe or restricted: a function that reads `pg_backend_pid()` must run in the leader"
_PID = "`pid`: a token names the server process that it is for"

Text = Callable[[Signer], str]


def bound(text: Text, question: str = "auth.user_id()") -> Ask:
    return lambda caller: caller.ask(text(caller.signer), question)


def claims(question: str = "auth.user_id()", /, **changed: Any) -> Ask:
    return bound(lambda signer: signer.token(changed), question)


def payload(more: str, question: str = "auth.user_id()") -> Ask:
    """Further members, as they are written."""
    return bound(lambda signer: signer.token(f"{json.dumps(signer.claims)[:-1]},{more}}}".encode()), question)


def whole(content: bytes) -> Ask:
    """The payload, whole."""
    return bound(lambda signer: signer.token(content))


def header(content: bytes) -> Ask:
    return bound(lambda signer: signer.token(header=content))


def parts(change: Callable[[str, str, str], str]) -> Ask:
    """A good token's header, payload and signature, put together in another way."""
    return bound(lambda signer: change(*signer.token().split(".")))


def signed_parts(change: Callable[[str, str], str]) -> Ask:
    """What is changed, signed afterwards."""
    return bound(lambda signer: signer.signed(change(*signer.token().split(".")[:2])))


def seconds(claim: str, offset: int) -> Ask:
    return bound(lambda signer: signer.token({claim: int(time.time()) + offset}))


def changed(signature: str, change: Callable[[bytes], bytes]) -> str:
    return part(change(base64url_decode(signature)))


def _next_character(text: str) -> str:
    """The same bytes in other base64: the last character has bits to spare."""
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    return text[:-1] + alphabet[alphabet.index(text[-1]) ^ 1]


def _plus_order(raw: bytes) -> bytes:
    """Valid but for RFC 8032, 5.1.7: s is below the order of the group."""
    order = 2**252 + 27742317777372353535851937790883648493
    return raw[:32] + (int.from_bytes(raw[32:], "little") + order).to_bytes(33, "little")[:32]


#: What is wrong with the form of a token.
_FORMS: dict[str, tuple[Ask, Answer, Answer]] = {
    "a space": (bound(lambda signer: " "), ENCODING, ENCODING),
    "one part": (bound(lambda signer: "abc"), ENCODING, ENCODING),
    "two parts": (parts(lambda h, p, s: f"{h}.{p}"), ENCODING, ENCODING),
    "the payload alone": (parts(lambda h, p, s: p), ENCODING, ENCODING),
    "two parts, signed": (
        bound(lambda signer: signer.signed(part(b'{"jti":9,"sub":"a"}'))),
        ENCODING,
        ENCODING,
    ),
    "dots": (bound(lambda signer: ".."), SIGNATURE, ENCODING),
    "a part more": (parts(lambda h, p, s: f"{h}.{p}.{s}.x"), SIGNATURE_ENCODING, ENCODING),
    "a dot more": (parts(lambda h, p, s: f"{h}.{p}.{s}."), SIGNATURE, ENCODING),
    "a dot before": (parts(lambda h, p, s: f".{h}.{p}.{s}"), SIGNATURE, ENCODING),
    # Of one length: the extension finds something else in some longer ones.
    "a part before the payload, signed": (
        signed_parts(lambda h, p: h + ".BBBB." + part(b'{"jti":9,"sub":"a"}')),
        PARSE,
        ENCODING,
    ),
    "a space before": (parts(lambda h, p, s: f" {h}.{p}.{s}"), SIGNATURE, ENCODING),
    "a line before": (parts(lambda h, p, s: f"\n{h}.{p}.{s}"), SIGNATURE, ENCODING),
    "a space behind": (parts(lambda h, p, s: f"{h}.{p}.{s} "), SIGNATURE_ENCODING, ENCODING),
    "a line behind": (parts(lambda h, p, s: f"{h}.{p}.{s}\n"), SIGNATURE_ENCODING, ENCODING),
    "its scheme before": (parts(lambda h, p, s: f"Bearer {h}.{p}.{s}"), SIGNATURE, ENCODING),
    "in quotes": (parts(lambda h, p, s: f'"{h}.{p}.{s}"'), SIGNATURE_ENCODING, ENCODING),
    "twice": (parts(lambda h, p, s: f"{h}.{p}.{s}{h}.{p}.{s}"), SIGNATURE, ENCODING),
    "two, with a comma": (parts(lambda h, p, s: f"{h}.{p}.{s},{h}.{p}.{s}"), SIGNATURE, ENCODING),
    "JSON": (
        parts(lambda h, p, s: json.dumps({"protected": h, "payload": p, "signature": s})),
        ENCODING,
        ENCODING,
    ),
    "a zero-width space": (parts(lambda h, p, s: f"\u200b{h}.{p}.{s}"), SIGNATURE, ENCODING),
    "letters of full width": (
        parts(lambda h, p, s: f"{h}.{p}.{s[:-1]}{chr(ord('A') + 0xFEE0)}"),
        SIGNATURE_ENCODING,
        ENCODING,
    ),
    "full stops of another script": (parts(lambda h, p, s: f"{h}\u3002{p}\u3002{s}"), ENCODING, ENCODING),
    "no header": (parts(lambda h, p, s: f".{p}.{s}"), SIGNATURE, ENCODING),
    "no signature": (parts(lambda h, p, s: f"{h}.{p}."), SIGNATURE, ENCODING),
    "the signature padded": (parts(lambda h, p, s: f"{h}.{p}.{s}=="), SIGNATURE_ENCODING, ENCODING),
    "the payload padded": (parts(lambda h, p, s: f"{h}.{p}=.{s}"), SIGNATURE, ENCODING),
    "the payload padded, signed": (signed_parts(lambda h, p: f"{h}.{p}=="), DECODE, ENCODING),
    "a signature of letters": (
        parts(lambda h, p, s: f"{h}.{p}.{'!' * len(s)}"),
        SIGNATURE_ENCODING,
        ENCODING,
    ),
    "a signature of one letter": (parts(lambda h, p, s: f"{h}.{p}.A"), SIGNATURE_ENCODING, ENCODING),
    "standard base64": (parts(lambda h, p, s: f"{h}.{p}.+/{s[2:]}"), SIGNATURE_ENCODING, ENCODING),
    "a line in the signature": (
        parts(lambda h, p, s: f"{h}.{p}.{s[:4]}\n{s[4:]}"),
        SIGNATURE_ENCODING,
        ENCODING,
    ),
    "a space in the payload": (parts(lambda h, p, s: f"{h}.{p[:4]} {p[4:]}.{s}"), SIGNATURE, ENCODING),
    "a space in the payload, signed": (signed_parts(lambda h, p: f"{h}.{p[:4]} {p[5:]}"), PARSE, ENCODING),
    "a line behind the payload, signed": (signed_parts(lambda h, p: f"{h}.{p}\n"), "alice", ENCODING),
    "no base64 in the payload, signed": (signed_parts(lambda h, p: f"{h}.!!!!"), DECODE, ENCODING),
    "no payload, signed": (signed_parts(lambda h, p: f"{h}."), DECODE, NOT_JSON),
}


def resigned(change: Callable[[bytes], bytes]) -> Ask:
    """A good token with a changed signature."""
    return parts(lambda h, p, s: f"{h}.{p}.{part(change(base64url_decode(s)))}")


def signature_of(what: Callable[[str, str], bytes]) -> Ask:
    """A good token with the signature of something else."""

    def text(signer: Signer) -> str:
        h, p, _ = signer.token().split(".")
        return f"{h}.{p}.{part(signer.signature(what(h, p)))}"

    return bound(text)


def mac(algorithm: str) -> Ask:
    """The public key, or the lack of one, taken for a secret."""

    def ask(caller: Caller) -> Answer:
        h = part(f'{{"alg":"HS{algorithm[3:]}","typ":"rls+jwt"}}'.encode())
        p = caller.signer.token().split(".")[1]
        return caller.ask(f"{h}.{p}.{part(hmac.digest(caller.public, f'{h}.{p}'.encode(), algorithm))}")

    return ask


#: What is wrong with the signature of a token that is right in form.
_SIGNATURES: dict[str, Ask] = {
    "by another key": lambda caller: caller.ask(caller.stranger.token()),
    "of another token": bound(
        lambda signer: ".".join(
            signer.token({"sub": "mallory"}).split(".")[:2] + signer.token().split(".")[2:]
        )
    ),
    "of what is left out": parts(lambda h, p, s: f"{h}..{s}"),
    "of zeros": resigned(lambda raw: bytes(len(raw))),
    "of ones": resigned(lambda raw: b"\xff" * len(raw)),
    "reversed": resigned(lambda raw: raw[::-1]),
    "with a bit changed": resigned(lambda raw: bytes([raw[0] ^ 1]) + raw[1:]),
    "with its last bit changed": resigned(lambda raw: raw[:-1] + bytes([raw[-1] ^ 1])),
    "with its halves exchanged": resigned(lambda raw: raw[len(raw) // 2 :] + raw[: len(raw) // 2]),
    "of nothing": signature_of(lambda h, p: b""),
    "of the header": signature_of(lambda h, p: h.encode()),
    "of the payload": signature_of(lambda h, p: p.encode()),
    "of the decoded payload": signature_of(lambda h, p: base64url_decode(p)),
    "of both without a dot": signature_of(lambda h, p: f"{h}{p}".encode()),
    "of a shorter payload": parts(lambda h, p, s: f"{h}.{p}AAAA.{s}"),
    "of a longer payload": parts(lambda h, p, s: f"{h}.{p[:-4]}.{s}"),
    "of a payload in mixed case": parts(lambda h, p, s: f"{h}.{p.lower()}.{s}"),
    "of a payload without its end": signature_of(lambda h, p: f"{h}.{p[:-1]}".encode()),
    "by the public key, SHA-256": mac("sha256"),
}

#: Signed well, with another header than the good one.
_HEADERS: dict[str, bytes] = {
    "none": b'{"alg":"none"}',
    "none, typ ours": b'{"alg":"none","typ":"rls+jwt"}',
    "of another algorithm": b'{"alg":"RS256","typ":"rls+jwt"}',
    "of another hash": b'{"alg":"HS512","typ":"rls+jwt"}',
    "of another case": b'{"alg":"hs256","typ":"rls+jwt"}',
    "of another purpose": b'{"alg":"HS256","typ":"JWT"}',
    "without typ": b'{"alg":"HS256"}',
    "in another order": b'{"typ":"rls+jwt","alg":"HS256"}',
    "with spaces": b'{"alg": "HS256", "typ": "rls+jwt"}',
    "with a member more": b'{"alg":"HS256","typ":"rls+jwt","kid":"1"}',
    "with a critical extension": b'{"alg":"HS256","crit":["exp"],"exp":1}',
    "that brings a key": b'{"alg":"HS256","jwk":{"kty":"oct","k":"AA"}}',
    "that isn't JSON": b"header",
    "that is empty": b"",
}


_NO_INTEGERS: list[Any] = ["0", "", 9999999999.5, None, True, [], {}, 2**63, 2**64, -(2**63) - 1]
_NO_SECONDS = [*_NO_INTEGERS, "9999999999", "2099-01-01T00:00:00Z"]
_NO_NUMBERS = [*_NO_INTEGERS, ..., 9.0]

TOKENS: list[Row] = [
    *(Row(name=one, ask=functions(one), answer=answer) for one, answer in FUNCTIONS.items()),
    Row(
        name="proparallel",
        ask=functions("proparallel"),
        answer="s s s s s s",
        portable="r r r r r r",
        differs=_PARALLEL,
    ),
    Row(name="a good token", ask=claims(), answer="alice"),
    Row(name="no token", ask=lambda caller: caller.ask(None, "auth.user_id()"), answer=None),
    Row(name="no token, the session", ask=lambda caller: caller.ask(None, "auth.session()"), answer="null"),
    Row(name="no subject", ask=claims(sub=...), answer=None),
    Row(name="jwt() is session()", ask=claims("auth.jwt() = auth.session()"), answer="true"),
    Row(
        name="the claims come whole",
        ask=claims("auth.session() -> 'x'", x=[1, {"a": None}]),
        answer='[1, {"a": null}]',
    ),
    Row(name="two subjects", ask=payload('"sub":"bob"'), answer="bob"),
    Row(name="two subjects, one escaped", ask=payload('"s\\u0075b":"bob"'), answer="bob"),
    *(
        Row(name=f"{function} by {name!r}", ask=claims(f"auth.{function}()", sub=name), answer=answer)
        for name, uid in SUBJECTS.items()
        for function, answer in (("user_id", name), ("uid", uid))
    ),
    *(
        Row(name=f"{function} by {o}", ask=claims(f"auth.{function}()", o=o), answer=answer)
        for o, organization, identifier in ORGANIZATIONS
        for function, answer in (("organization", organization), ("organization_id", identifier))
    ),
    *(
        Row(
            name=f"{function} by the subject {sub}", ask=claims(f"auth.{function}()", sub=sub), answer=SUBJECT
        )
        for sub in NOT_TEXT
        for function in ("user_id", "uid")
    ),
    Row(
        name="session by the subject 5",
        ask=claims("auth.session() -> 'sub'", sub=5),
        answer="5",
        portable=SUBJECT,
        differs=_SUB,
    ),
    *(
        Row(name=f"a form: {name}", ask=ask, answer=answer, portable=portable, differs=_SHAPE)
        for name, (ask, answer, portable) in _FORMS.items()
    ),
    *(Row(name=f"signature {name}", ask=ask, answer=SIGNATURE) for name, ask in _SIGNATURES.items()),
    *(
        Row(name=f"signature {name}", ask=ask, answer=answer, portable=portable, differs=_SHAPE)
        for name, ask, answer, portable in (
            # The extension fills up with zeros, which one in sixteen ends in.
            ("shorter by a byte", resigned(lambda raw: raw.rstrip(b"\0")[:-1]), SIGNATURE, ENCODING),
            ("longer by a byte", resigned(lambda raw: raw + b"\0"), SIGNATURE_ENCODING, ENCODING),
            ("longer by a letter", parts(lambda h, p, s: f"{h}.{p}.{s}A"), SIGNATURE_ENCODING, ENCODING),
            ("shorter by a letter", parts(lambda h, p, s: f"{h}.{p}.{s[:-1]}"), SIGNATURE_ENCODING, ENCODING),
            (
                "in other base64",
                parts(lambda h, p, s: f"{h}.{p}.{_next_character(s)}"),
                SIGNATURE_ENCODING,
                SIGNATURE,
            ),
            ("by the public key, SHA-384", mac("sha384"), SIGNATURE, ENCODING),
            ("by the public key, SHA-512", mac("sha512"), SIGNATURE, ENCODING),
            ("of the other algorithm", lambda caller: caller.ask(caller.other.token()), SIGNATURE, ENCODING),
        )
    ),
    Row(
        name="signature with s plus the order", ask=resigned(_plus_order), answer=SIGNATURE, portable=UNASKED
    ),
    *(
        Row(name=f"a header {name}", ask=header(content), answer="alice", portable=ENCODING, differs=_HEADER)
        for name, content in _HEADERS.items()
    ),
    *(
        Row(
            name=f"a header {name}, unsigned",
            ask=bound(lambda signer, content=content: signer.token(header=content).rpartition(".")[0] + "."),  # type: ignore[misc]
            answer=SIGNATURE,
            portable=ENCODING,
            differs=_SHAPE,
        )
        for name, content in _HEADERS.items()
    ),
    *(
        Row(
            name=f"payload: {content!r}",
            ask=whole(content),
            answer=PARSE,
            portable=portable,
            differs=_PAYLOAD,
        )
        for content, portable in (
            (b"junk", NOT_JSON),
            (b"[]", PARSE),
            (b"null", PARSE),
            (b"5", PARSE),
            (b'"alice"', PARSE),
            (b'[{"sub":"alice"}]', PARSE),
            (b"{", NOT_JSON),
            (b"{'sub':'alice'}", NOT_JSON),
            (b'\xef\xbb\xbf{"sub":"alice"}', NOT_JSON),
            (b'{"sub":"\xff"}', Refused("22021", 'invalid byte sequence for encoding "UTF8": 0xff')),
        )
    ),
    *(
        Row(name=f"payload with {more}", ask=payload(more), answer=PARSE, portable=NOT_JSON, differs=_PAYLOAD)
        for more in ('"x":NaN', '"x":01', "", '"x":1}', '"x":"\n"', '"x":"\\ud800"', "5")
    ),
    Row(name="payload with spaces", ask=payload(' "x" : 1 '), answer="alice"),
    Row(name="payload of 127 levels", ask=payload('"x":' + "[" * 126 + "]" * 126), answer="alice"),
    Row(
        name="payload of 128 levels",
        ask=payload('"x":' + "[" * 127 + "]" * 127),
        answer=PARSE,
        stand_in="alice",
        portable="alice",
        differs=DEPTH,
    ),
    *(
        Row(
            name=f"payload with {more}",
            ask=payload(more),
            answer="alice",
            stand_in=NO_TEXT,
            portable=NO_TEXT,
            differs=NUL,
        )
        for more in ('"sub":"alice\\u0000bob"', '"x":"\\u0000"')
    ),
    Row(
        name="payload with 1e999",
        ask=payload('"x":1e999'),
        answer=PARSE,
        stand_in="alice",
        portable="alice",
        differs=NUMBERS,
    ),
    Row(name="exp missing", ask=claims(exp=...), answer="alice", portable=EXP, differs=_TIMES),
    Row(name="exp just passed", ask=seconds("exp", -57), answer="alice"),
    Row(name="exp passed", ask=seconds("exp", -62), answer=EXPIRED),
    Row(name="exp is zero", ask=claims(exp=0), answer=EXPIRED),
    Row(name="exp in milliseconds", ask=claims(exp=int(time.time()) * 1000), answer="alice"),
    Row(name="nbf to come, just", ask=seconds("nbf", 57), answer="alice"),
    Row(name="nbf to come", ask=seconds("nbf", 65), answer=EARLY),
    Row(name="nbf is zero", ask=claims(nbf=0), answer="alice"),
    Row(name="iat to come", ask=seconds("iat", 1000), answer="alice"),
    *(
        Row(name=f"{name} is {value!r}", ask=claims(**{name: value}), answer=answer)
        for name, answer in (("exp", EXP), ("nbf", NBF))
        for value in _NO_SECONDS
    ),
    *(
        Row(
            name=f"{name} is {value}",
            ask=claims(**{name: value}),
            answer=answer,
            portable=portable,
            differs=_TIMES,
        )
        for name, value, answer, portable in (
            ("exp", -1, EXPIRED, EXP),
            ("exp", -(2**63), EXPIRED, EXP),
            ("exp", 2**63 - 1, "alice", EXP),
            ("nbf", -1, "alice", NBF),
            ("nbf", -(2**63), "alice", NBF),
            ("nbf", 2**63 - 1, EARLY, NBF),
        )
    ),
    Row(name="exp is 9999999999.0", ask=payload('"exp":9999999999.0'), answer=EXP),
    Row(name="nbf is 0.0", ask=payload('"nbf":0.0'), answer=NBF),
    Row(
        name="exp is 1e400",
        ask=payload('"exp":1e400'),
        answer=PARSE,
        stand_in=EXP,
        portable=EXP,
        differs=NUMBERS,
    ),
    *(
        Row(name=f"jti is {jti!r}", ask=claims(jti=jti), answer=answer, portable="alice", differs=RISES)
        for answer, values in (
            (JTI, _NO_NUMBERS),
            (RISING, [0, -1, -(2**63)]),
        )
        for jti in values
    ),
    *(
        Row(
            name=f"{more}",
            ask=payload(more),
            answer=answer,
            stand_in=others,
            portable=portable,
            differs=EXPONENT,
        )
        for more, answer, others, portable in (
            ('"exp":1e10', EXP, "alice", "alice"),
            ('"nbf":1e1', NBF, "alice", "alice"),
            ('"jti":-0', JTI, RISING, "alice"),
        )
    ),
    Row(
        name="pid is ours",
        ask=lambda caller: caller.ask(caller.signer.token({"pid": caller.pid})),
        answer="alice",
    ),
    *(
        Row(name=f"pid is {pid!r}", ask=claims(pid=pid), answer="alice", portable=PROCESS, differs=_PID)
        for pid in (1, -1, 0, None, "1", 1.5, [1], True)
    ),
    Row(name="a long token", ask=claims(x="x" * 100_000), answer="alice"),
]
