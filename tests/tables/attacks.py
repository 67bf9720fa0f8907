"""Tokens that prove nothing, each made when it is asked for."""

from __future__ import annotations

import hmac
import json
import string
import time
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.base64url import decoded, part
from tests.support.forge import EDDSA, ES256, ISSUER, P384, PUBLIC_PEM, RS256, STRANGER, token

PUBLIC_FORMS: Final[dict[str, bytes]] = {
    "PEM": PUBLIC_PEM,
    "PEM without its last line feed": PUBLIC_PEM.rstrip(),
    "DER": ES256.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    "JWK": json.dumps(ES256.jwk()).encode(),
    "its id": ES256.kid.encode(),
    "nothing": b"",
}


def signed_by_public_key(algorithm: str, form: str) -> str:
    header, claims, _ = token(header={"alg": algorithm}).split(".")
    mac = hmac.digest(PUBLIC_FORMS[form], f"{header}.{claims}".encode(), algorithm.replace("HS", "sha"))
    return f"{header}.{claims}.{part(mac)}"


def resigned(change: Callable[[bytes], bytes], **options: Any) -> str:
    """A good token with a changed signature."""
    signed, _, signature = token(**options).rpartition(".")
    return f"{signed}.{part(change(decoded(signature)))}"


def es256_in_der() -> str:
    return resigned(
        lambda raw: encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    )


def eddsa_with_another_s() -> str:
    """Valid but for RFC 8032, 5.1.7: s is below the order of the group."""
    order = 2**252 + 27742317777372353535851937790883648493
    return resigned(
        lambda raw: raw[:32] + (int.from_bytes(raw[32:], "little") + order).to_bytes(32, "little"), key=EDDSA
    )


def unsigned(alg: Any) -> str:
    return token(header={"alg": alg}).rpartition(".")[0] + "."


def spliced() -> str:
    """The claims of one good token with the signature of another."""
    header, claims, _ = token({"sub": "mallory"}).split(".")
    return f"{header}.{claims}.{token().rpartition('.')[2]}"


def claims_text(more: str) -> bytes:
    now = int(time.time())
    return f'{{"iss":"{ISSUER}","aud":"app","sub":"alice","exp":{now + 600},{more}}}'.encode()


def header_text(more: str) -> bytes:
    return f'{{"alg":"ES256","kid":"{ES256.kid}",{more}}}'.encode()


def last_character_changed() -> str:
    """The same bytes in other base64: the last character of 64 bytes has four bits to spare."""
    good = token()
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    return good[:-1] + alphabet[alphabet.index(good[-1]) ^ 1]


ATTACKS: dict[str, Callable[[], Any]] = {
    # the algorithm
    "alg none": lambda: unsigned("none"),
    "alg None": lambda: unsigned("None"),
    "alg missing": lambda: unsigned(None),
    "alg empty": lambda: unsigned(""),
    "alg is a list": lambda: unsigned(["ES256"]),
    "alg is an object": lambda: unsigned({"ES256": 1}),
    "alg of another case": lambda: token(header={"alg": "es256"}),
    "alg none, signed": lambda: token(header={"alg": "none"}),
    "alg is not pinned": lambda: token(header={"alg": "ES512"}),
    "RSA, but says EC": lambda: token(header={"alg": "ES256"}, key=RS256),
    "EC, but says RSA": lambda: token(header={"alg": "RS256"}),
    "EC, but says RSA, by the RSA key": lambda: token(header={"alg": "RS256", "kid": RS256.kid}),
    "EC, but says EdDSA": lambda: token(header={"alg": "EdDSA"}),
    "PS256 by a key for RS256": lambda: token(header={"alg": "PS256"}, key=RS256, algorithm="PS256"),
    "wrong curve": lambda: token(key=P384),
    "wrong curve, says ES256": lambda: token(header={"alg": "ES256"}, key=P384),
    "alg of mixed case": lambda: unsigned("nOnE"),
    "alg none with a space": lambda: unsigned("none "),
    "alg is a number": lambda: unsigned(0),
    "alg is true": lambda: unsigned(True),
    "alg is null": lambda: token(header=header_text('"alg":null').replace(b'"alg":"ES256",', b"")),
    "alg is unknown": lambda: unsigned("ES256K"),
    "alg is of encryption": lambda: unsigned("RSA-OAEP"),
    **{
        f"{algorithm} by the public key as {what}": partial(signed_by_public_key, algorithm, what)
        for algorithm in ("HS256", "HS384", "HS512")
        for what in PUBLIC_FORMS
    },
    "HS256, named none": lambda: token(header={"alg": "none"}).rpartition(".")[0] + "." + part(b"x"),
    "ES256 in DER": es256_in_der,
    "ES256 with r and s exchanged": lambda: resigned(lambda raw: raw[32:] + raw[:32]),
    "ES256 with s negated, longer by a byte": lambda: resigned(lambda raw: raw[:32] + b"\0" + raw[32:]),
    "EdDSA with s plus the order": eddsa_with_another_s,
    "the signature of another algorithm": lambda: (
        token().rpartition(".")[0] + "." + token(key=EDDSA).rpartition(".")[2]
    ),
    # the key
    "signed by another key": lambda: token(header={"kid": ES256.kid}, key=STRANGER),
    "of an unknown key": lambda: token(key=STRANGER),
    "brings its key": lambda: token(header={"jwk": STRANGER.jwk()}, key=STRANGER),
    "brings the right key": lambda: token(header={"jwk": ES256.jwk()}),
    "brings a key URL": lambda: token(header={"jku": "https://evil.example/jwks.json"}),
    "brings a certificate URL": lambda: token(header={"x5u": "https://evil.example/x"}),
    "brings a certificate": lambda: token(header={"x5c": ["MIIB"]}),
    "critical extension": lambda: token(header={"crit": ["exp"], "exp": 1}),
    "unencoded payload": lambda: token(header={"b64": False, "crit": ["b64"]}),
    "b64 true": lambda: token(header={"b64": True}),
    "kid is a path": lambda: token(header={"kid": "../../../../dev/null"}),
    "kid is a URL": lambda: token(header={"kid": "http://127.0.0.1/"}),
    "kid is SQL": lambda: token(header={"kid": "x' UNION SELECT 'key' --"}),
    "kid is empty": lambda: token(header={"kid": ""}),
    "kid is a number": lambda: token(header={"kid": 7}),
    "kid is a list": lambda: token(header={"kid": [ES256.kid]}),
    "kid is an object": lambda: token(header={"kid": {"$ne": ""}}),
    "kid holds a NUL": lambda: token(header={"kid": ES256.kid + "\0"}),
    "brings no key": lambda: token(header=header_text('"jwk":null')),
    "brings an empty key URL": lambda: token(header={"jku": ""}),
    "brings a key URL of this machine": lambda: token(header={"jku": "http://127.0.0.1/jwks.json"}),
    "no critical extension": lambda: token(header={"crit": []}),
    "kid is true": lambda: token(header={"kid": True}),
    "kid is a file": lambda: token(header={"kid": "/dev/null"}),
    "kid is a command": lambda: token(header={"kid": "x; touch /tmp/x"}),
    "kid is the first of many": lambda: token(header={"kid": "0"}),
    "kid is very long": lambda: token(header={"kid": "k" * 8000}),
    "kid in capitals": lambda: token(header={"kid": ES256.kid.upper() + "A"}),
    "kid looks alike": lambda: token(header={"kid": "\uff10" + ES256.kid[1:]}),
    "kid holds a line feed": lambda: token(header={"kid": ES256.kid + "\n"}),
    "kid is half a pair": lambda: token(header={"kid": "\ud800"}),
    "kid of another key of the set": lambda: token(header={"kid": EDDSA.kid}),
    # the purpose
    "logout token": lambda: token(header={"typ": "logout+jwt"}),
    "event token": lambda: token(header={"typ": "secevent+jwt"}),
    "typ is a number": lambda: token(header={"typ": 7}),
    "ID token of another kind": lambda: token(header={"typ": "id_token+jwt"}),
    "proof of possession": lambda: token(header={"typ": "dpop+jwt"}),
    "typ is a list": lambda: token(header={"typ": ["JWT"]}),
    "typ is empty": lambda: token(header={"typ": ""}),
    "nested token": lambda: token(part(b"{}").encode(), header={"cty": "JWT"}),
    "compressed": lambda: token(zlib.compress(claims_text('"x":1')), header={"zip": "DEF"}),
    "wrong issuer": lambda: token({"iss": "https://evil.example/"}),
    "issuer without its slash": lambda: token({"iss": ISSUER[:-1]}),
    "issuer with a slash more": lambda: token({"iss": ISSUER + "/"}),
    "issuer in capitals": lambda: token({"iss": ISSUER.upper()}),
    "issuer with a space": lambda: token({"iss": ISSUER + " "}),
    "issuer over http": lambda: token({"iss": ISSUER.replace("https", "http")}),
    "issuer with a port": lambda: token({"iss": ISSUER[:-1] + ":443/"}),
    "issuer with a path": lambda: token({"iss": ISSUER + "../"}),
    "issuer looks alike": lambda: token({"iss": ISSUER.replace("a", "\u0430", 1)}),
    "issuer in full width": lambda: token({"iss": ISSUER.replace(".", "\uff0e")}),
    "issuer escaped": lambda: token({"iss": ISSUER.replace("x", "%78")}),
    "issuer holds a NUL": lambda: token({"iss": ISSUER + "\0"}),
    "issuer is an object": lambda: token({"iss": {ISSUER: 1}}),
    "issuer is a number": lambda: token({"iss": 7}),
    "issuer is very long": lambda: token({"iss": ISSUER + "x" * 8000}),
    "issuer is a list": lambda: token({"iss": [ISSUER]}),
    "issuer is missing": lambda: token({"iss": None}),
    "wrong audience": lambda: token({"aud": "other"}),
    "wrong audiences": lambda: token({"aud": ["other", "app2"]}),
    "audience is a part": lambda: token({"aud": "ap"}),
    "audience is missing": lambda: token({"aud": None}),
    "audience is empty": lambda: token({"aud": ""}),
    "audiences are empty": lambda: token({"aud": []}),
    "audience is an object": lambda: token({"aud": {"app": 1}}),
    "audience holds a number": lambda: token({"aud": ["app", 7]}),
    "audience is nested": lambda: token({"aud": [["app"]]}),
    "audience in capitals": lambda: token({"aud": "APP"}),
    "audience with a slash": lambda: token({"aud": "app/"}),
    "audience with a space": lambda: token({"aud": ["app "]}),
    "audiences in one text": lambda: token({"aud": "app other"}),
    "audience is a pattern": lambda: token({"aud": "*"}),
    "audience is a number": lambda: token({"aud": 0}),
    "audience is true": lambda: token({"aud": True}),
    "audience holds null": lambda: token({"aud": [None]}),
    # the subject
    "subject is missing": lambda: token({"sub": None}),
    "subject is empty": lambda: token({"sub": ""}),
    "subject is null": lambda: token(claims_text('"x":1').replace(b'"alice"', b"null")),
    "subject is a number": lambda: token({"sub": 7}),
    "subject is a list": lambda: token({"sub": ["alice"]}),
    "subject is an object": lambda: token({"sub": {"id": "alice"}}),
    "subject is true": lambda: token({"sub": True}),
    "subject holds a NUL": lambda: token({"sub": "alice\0"}),
    "subject is half a pair": lambda: token({"sub": "alice\ud800"}),
    "subject is false": lambda: token({"sub": False}),
    "subject is zero": lambda: token({"sub": 0}),
    "subject is empty lists": lambda: token({"sub": []}),
    # the times
    "exp is missing": lambda: token({"exp": None}),
    "exp is null": lambda: token(claims_text('"x":1').replace(b'"exp":', b'"exp":null,"y":')),
    "exp is text": lambda: token({"exp": str(int(time.time()) + 600)}),
    "exp is true": lambda: token({"exp": True}),
    "exp is infinite": lambda: token({"exp": float("inf")}),
    "exp is too large": lambda: token(claims_text('"x":1').replace(b'"exp":', b'"exp":1e999,"y":')),
    "exp is NaN": lambda: token({"exp": float("nan")}),
    "exp is negative": lambda: token({"exp": -1}),
    "exp is in milliseconds": lambda: token({"exp": int(time.time()) * 1000}),
    "exp is a list": lambda: token({"exp": [int(time.time()) + 600]}),
    "nbf is to come": lambda: token({"nbf": int(time.time()) + 40}),
    "nbf is text": lambda: token({"nbf": "0"}),
    "iat is to come": lambda: token({"iat": int(time.time()) + 40}),
    "iat is text": lambda: token({"iat": "now"}),
    "iat is true": lambda: token({"iat": True}),
    "exp has passed": lambda: token({"exp": int(time.time()) - 31}),
    "exp is zero": lambda: token({"exp": 0}),
    "exp is minus zero": lambda: token({"exp": -0.0}),
    "exp is a large float": lambda: token({"exp": 1e308}),
    "exp is a large integer": lambda: token({"exp": 10**400}),
    "exp is an object": lambda: token({"exp": {}}),
    "exp is a date": lambda: token({"exp": "2099-01-01T00:00:00Z"}),
    "nbf is null": lambda: token(claims_text('"nbf":null')),
    "nbf is true": lambda: token({"nbf": True}),
    "nbf is far": lambda: token({"nbf": 253402300799}),
    "iat is far": lambda: token({"iat": 253402300799}),
    "iat is negative": lambda: token({"iat": -1}),
    "iat is a list": lambda: token({"iat": [1]}),
    # the JSON
    "two subjects": lambda: token(claims_text('"sub":"mallory"')),
    "two subjects, one escaped": lambda: token(claims_text('"s\\u0075b":"mallory"')),
    "two issuers": lambda: token(claims_text('"iss":"https://evil.example/"')),
    "two audiences": lambda: token(claims_text('"aud":"other"')),
    "two ends": lambda: token(claims_text('"exp":1')),
    "two equal subjects": lambda: token(claims_text('"sub":"alice"')),
    "two algorithms, one escaped": lambda: token(header=header_text('"\\u0061lg":"none"')),
    "two nested names": lambda: token(claims_text('"x":{"y":[{"a":1,"a":2}]}')),
    "two algorithms": lambda: token(header=header_text('"alg":"none"')),
    "two key ids": lambda: token(header=header_text('"kid":"x"')),
    "NUL in a claim": lambda: token({"x": {"y": ["a\0"]}}),
    "NUL in a name": lambda: token({"x": {"a\0": 1}}),
    "raw NUL": lambda: token(claims_text('"x":"\0"')),
    "half a surrogate pair": lambda: token({"x": "\udfff"}),
    "half a pair in a name": lambda: token({"x": {"\ud800": 1}}),
    "NaN": lambda: token({"x": float("nan")}),
    "Infinity": lambda: token({"x": [float("-inf")]}),
    "a number too large": lambda: token(claims_text('"x":1e999')),
    "a number too long": lambda: token(claims_text('"x":' + "9" * 5000)),
    "nested too deep": lambda: token(claims_text('"x":' + "[" * 40 + "]" * 40)),
    "objects nested too deep": lambda: token(claims_text('"x":' + '{"x":' * 40 + "1" + "}" * 40)),
    "deep JSON": lambda: token(claims_text('"x":' + "[" * 5000 + "]" * 5000)),
    "deep JSON, open": lambda: token(b"[" * 10_000),
    "deep header": lambda: token(header=b'{"x":' * 2000),
    "claims are a list": lambda: token(b"[]"),
    "claims are null": lambda: token(b"null"),
    "claims are empty": lambda: token(b""),
    "claims are no JSON": lambda: token(b"alice"),
    "claims are followed by more": lambda: token(claims_text('"x":1') + b"{}"),
    "claims in UTF-16": lambda: token(claims_text('"x":1').decode().encode("utf-16")),
    "claims with a BOM": lambda: token(b"\xef\xbb\xbf" + claims_text('"x":1')),
    "claims are no UTF-8": lambda: token(claims_text('"x":1').replace(b"alice", b"\xff\xfe")),
    "claims in UTF-32": lambda: token(claims_text('"x":1').decode().encode("utf-32")),
    "claims in overlong UTF-8": lambda: token(claims_text('"x":1').replace(b"alice", b"\xc0\x80")),
    "claims with a comment": lambda: token(claims_text('"x":1/**/')),
    "claims with a comma more": lambda: token(claims_text('"x":1,')),
    "claims in single quotes": lambda: token(claims_text("'x':1")),
    "claims with a line feed in a text": lambda: token(claims_text('"x":"\n"')),
    "claims are a text": lambda: token(b'"alice"'),
    "claims are a number": lambda: token(b"7"),
    "header is null": lambda: token(header=b"null"),
    "header is followed by more": lambda: token(header=header_text('"x":1') + b"{}"),
    "header is a list": lambda: token(header=b"[]"),
    "header is empty": lambda: token(header=b""),
    # the text
    "no text": lambda: None,
    "a number": lambda: 7,
    "an object": lambda: {"token": token()},
    "a byte array": lambda: bytearray(token().encode()),
    "bytes": lambda: token().encode(),
    "a list": lambda: [token()],
    "empty": lambda: "",
    "dots": lambda: "..",
    "more dots": lambda: "....",
    "garbage": lambda: "garbage",
    "not ASCII": lambda: token() + "é",
    "a surrogate": lambda: token() + "\ud800",
    "two parts": lambda: token().rpartition(".")[0],
    "four parts": lambda: token() + ".AAAA",
    "five parts": lambda: token() + ".AAAA.AAAA",
    "no signature": lambda: token().rpartition(".")[0] + ".",
    "signature of zeros": lambda: token().rpartition(".")[0] + "." + part(bytes(64)),
    "signature cut": lambda: token()[:-4],
    "signature continued": lambda: token() + "AAAA",
    "claims of another": spliced,
    "Bearer": lambda: "Bearer " + token(),
    "space before": lambda: " " + token(),
    "space after": lambda: token() + " ",
    "line feed after": lambda: token() + "\n",
    "space within": lambda: token().replace(".", ". ", 1),
    "NUL after": lambda: token() + "\0",
    "padded": lambda: token() + "==",
    "standard base64": lambda: token().replace("-", "+").replace("_", "/") + "+",
    "strange characters": lambda: token().replace(".", "!.", 1),
    "last character": last_character_changed,
    "JSON": lambda: '{{"protected":"{}","payload":"{}","signature":"{}"}}'.format(*token().split(".")),
    "detached": lambda: token().replace("." + token().split(".")[1], "."),
    "no claims": lambda: "{0}..{2}".format(*token().split(".")),
    "an encrypted one": lambda: part(b'{"alg":"dir","enc":"A256GCM"}') + "..AAAA.AAAA.AAAA",
    "twice": lambda: token() + token(),
    "two, with a comma": lambda: token() + "," + token(),
    "in quotes": lambda: f'"{token()}"',
    "escaped": lambda: token().replace(".", "%2e"),
    "one dot of another alphabet": lambda: token().replace(".", "\u3002", 1),
    "zero-width space": lambda: "\u200b" + token(),
    "padded by one": lambda: token().replace(".", "=.", 1),
    "just over the limit": lambda: token({"x": "x" * 12_100}),
    "1 MB": lambda: token({"x": "x" * 1_000_000}),
    "1 MB of nothing": lambda: "." * 1_000_000,
    "1 MB of one part": lambda: "A" * 1_000_000,
    "1 MB of a header": lambda: token(header={"x": "x" * 1_000_000}),
}
