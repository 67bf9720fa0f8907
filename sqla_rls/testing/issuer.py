"""An identity provider on this machine, with keys over HTTP and tokens.

By default it has the URLs, the issuer and the claims of Stack Auth.  It can imitate any other provider, too.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import NAMESPACE_URL, uuid4, uuid5

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key

from sqla_rls.provider import Provider, stack_auth
from sqla_rls.tokens import clock

PrivateKey = EllipticCurvePrivateKey | Ed25519PrivateKey | RSAPrivateKey

ALGORITHMS: Final = ("ES256", "RS256", "EdDSA")


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A signing key."""

    kid: str
    algorithm: str
    private: PrivateKey

    @classmethod
    def generate(cls, algorithm: str = "ES256") -> Key:
        """Return a new key for one of ``ALGORITHMS``; RS256 takes 0.1 s, the others 0.1 ms."""
        private: PrivateKey
        match algorithm:
            case "ES256":
                private = generate_ec_key(SECP256R1())
            case "RS256":
                private = generate_rsa_key(public_exponent=65537, key_size=2048)
            case "EdDSA":
                private = Ed25519PrivateKey.generate()
            case _:
                raise ValueError(f"the key can't be made: algorithm {algorithm} isn't known. Pass key=")
        return cls(kid=uuid4().hex, algorithm=algorithm, private=private)

    def jwk(self) -> dict[str, Any]:
        """Return the public half as a JSON Web Key (RFC 7517)."""
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        public = algorithm.to_jwk(self.private.public_key(), as_dict=True)
        return {**public, "kid": self.kid, "alg": self.algorithm, "use": "sig"}


class Issuer:
    """An identity provider on 127.0.0.1; a context manager.

    Attributes:
        provider: the Provider, for a ``Verifier``.
        project_id: the project of the tokens.
        base_url: its URL, as ``provider.stack_auth()`` takes it.
        issuer: the ``iss`` claim of its tokens.
        jwks_uri: the URL of its public keys.
        fetches: the number of requests for the keys.
        status: the HTTP status of the answers, such as 503.
        delay: the delay of an answer, in seconds.
        body: the body of the answers; None for the keys.
    """

    def __init__(self, project_id: str | None = None, *, imitate: Provider | None = None) -> None:
        """Listen on a free port.

        Args:
            project_id: the project of Stack Auth; None is a random UUID.
            imitate: the provider whose tokens to issue instead.  The attribute ``provider`` has its issuer,
                its audience and all other rules, and the keys of this server.
        """
        self.project_id = project_id or str(uuid4())
        self._server = _Server(self)
        self.base_url = f"http://127.0.0.1:{self._server.server_address[1]}"
        imitated = imitate or stack_auth(self.project_id, base_url=self.base_url)
        self._imitates = imitate is not None
        self._path = urlsplit(imitated.jwks_uri or "/jwks.json").path
        self.issuer = imitated.issuers[0]
        self._audience = imitated.audience[0] if isinstance(imitated.audience, tuple) else imitated.audience
        self.jwks_uri = self.base_url + self._path
        self.provider = replace(imitated, jwks_uri=self.jwks_uri, jwks=None, public_key=None)

        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._keys = [Key.generate(imitated.algorithms[0])]
        self.reset()
        # Closing may take as long as this interval, in seconds.
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def reset(self) -> None:
        """Answer as a healthy provider does, and count fetches from zero; the keys stay."""
        self.fetches = 0
        self.status = 200
        self.delay = 0.0
        self.body: bytes | None = None

    def key(self, algorithm: str | None = None) -> Key:
        """Return the present signing key for *algorithm*; the first call makes it.

        Args:
            algorithm: one of ``ALGORITHMS``; None is the first algorithm of the provider.
        """
        algorithm = algorithm or self.provider.algorithms[0]
        with self._lock:
            # Each issuer has its own keys, so that its tokens can't pass for those of another.
            for key in self._keys:
                if key.algorithm == algorithm:
                    return key
            key = Key.generate(algorithm)
            self._keys.append(key)
            return key

    def rotate(self, algorithm: str | None = None, *, keep: bool = False) -> Key:
        """Sign with a new key from now on.

        Args:
            algorithm: the algorithm of the key; None is the first algorithm of the provider.
            keep: whether to publish the old keys, too, as a provider does until their tokens expire.
        """
        algorithm = algorithm or self.provider.algorithms[0]
        new = Key.generate(algorithm)
        with self._lock:
            self._keys = [new] + [key for key in self._keys if keep or key.algorithm != algorithm]
        return new

    def jwks(self) -> dict[str, Any]:
        """Return the public keys as a JSON Web Key Set (RFC 7517)."""
        with self._lock:
            return {"keys": [key.jwk() for key in self._keys]}

    def token(
        self,
        subject: str | None,
        *,
        algorithm: str | None = None,
        audience: str | Sequence[str] | None = None,
        issuer: str | None = None,
        issued_at: float | None = None,
        expires_in: float | None = 3600,
        claims: Mapping[str, Any] | None = None,
        headers: Mapping[str, Any] | None = None,
        key: Key | str | bytes | None = None,
    ) -> str:
        """Return an access token as the provider issues it, or an invalid one.

        Args:
            subject: the subject; None leaves out ``sub``.
            algorithm: one of ``ALGORITHMS``, ``none``, or another one with a *key* for it.
            audience: the audience; None is the provider's, or the first of several.
            issuer: the issuer; None is this one.
            issued_at: the time of issue, in seconds since 1970; None is the present.
            expires_in: the seconds until the token expires, or a negative number.  None leaves out ``exp``.
            claims: more claims, which win over the arguments above.  None as a value leaves out a claim.
            headers: more headers, which win over ``kid``.  None as a value leaves out a header.
            key: the key that signs; None is the issuer's.  A ``Key`` has its own algorithm and ``kid``.
        """
        now = int(clock.now() if issued_at is None else issued_at)
        payload = {
            "sub": subject,
            "iss": issuer or self.issuer,
            "aud": self._audience if audience is None else audience,
            "iat": now,
            "exp": None if expires_in is None else int(now + expires_in),
            **(self._required_claims(subject) if self._imitates else self._stack_auth_claims(subject)),
        }
        algorithm = algorithm or self.provider.algorithms[0]
        if key is None:
            key = "" if algorithm == "none" else self.key(algorithm)
        kid: str | None = None
        secret: PrivateKey | str | bytes
        if isinstance(key, Key):
            secret, algorithm, kid = key.private, key.algorithm, key.kid
        else:
            secret = key
        return jwt.encode(
            _without_none({**payload, **(claims or {})}),
            secret,
            algorithm=algorithm,
            headers=_without_none({"kid": kid, **(headers or {})}),
        )

    def _required_claims(self, subject: str | None) -> dict[str, str | None]:
        required = self.provider.required_claims.items()
        return {name: values[0] if values else self._sign_in(subject) for name, values in required}

    def _sign_in(self, subject: str | None) -> str:
        # All tokens of one subject belong to one sign-in, as after a refresh.
        return str(uuid5(NAMESPACE_URL, f"{self.issuer}#{subject}"))

    def _stack_auth_claims(self, subject: str | None) -> dict[str, Any]:
        return {
            "role": "authenticated",
            "project_id": self.project_id,
            "branch_id": "main",
            "refresh_token_id": self._sign_in(subject),
            "name": subject,
            "email": None if subject is None else f"{subject}@example.com",
            "email_verified": None if subject is None else True,
            "is_anonymous": False,
        }

    def close(self) -> None:
        """Stop the server; a second call has no effect."""
        if not self._closed.is_set():
            self._closed.set()
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def __enter__(self) -> Issuer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def answer(self, path: str) -> tuple[int, bytes]:
        """Return status and body of the answer to a GET of *path*, after the delay."""
        if path.partition("?")[0] != self._path:
            return 404, b"{}"
        with self._lock:
            self.fetches += 1
        self._closed.wait(self.delay)
        body = self.body
        return self.status, json.dumps(self.jwks()).encode() if body is None else body


def _without_none(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


class _Server(ThreadingMixIn, TCPServer):
    # HTTPServer looks up its host name, which takes seconds on some machines.
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, issuer: Issuer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.issuer = issuer


class _Handler(BaseHTTPRequestHandler):
    timeout = 10  # seconds

    def do_GET(self) -> None:
        assert isinstance(self.server, _Server)
        status, body = self.server.issuer.answer(self.path)
        with suppress(ConnectionError):  # the client may have closed the connection during the delay
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass
