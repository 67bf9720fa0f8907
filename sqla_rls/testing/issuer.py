"""An identity provider on this machine: keys over HTTP, and tokens signed with them.

By default it looks like Stack Auth: its URLs, its issuer, the claims of its access tokens.  It can
imitate any other provider, too.
"""

from __future__ import annotations

import json
import threading
import time
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
        """A new key for one of ``ALGORITHMS``; RS256 takes 0.1 s, the others 0.1 ms."""
        private: PrivateKey
        match algorithm:
            case "ES256":
                private = generate_ec_key(SECP256R1())
            case "RS256":
                private = generate_rsa_key(public_exponent=65537, key_size=2048)
            case "EdDSA":
                private = Ed25519PrivateKey.generate()
            case _:
                raise ValueError(f"no key can be made for algorithm {algorithm}; pass key=")
        return cls(kid=uuid4().hex, algorithm=algorithm, private=private)

    def jwk(self) -> dict[str, Any]:
        """The public half, as a JSON Web Key (RFC 7517)."""
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        public = algorithm.to_jwk(self.private.public_key(), as_dict=True)
        return {**public, "kid": self.kid, "alg": self.algorithm, "use": "sig"}


class Issuer:
    """An identity provider on 127.0.0.1; a context manager.

    Attributes:
        provider: what to give to a ``Verifier``.
        project_id: of whom the tokens are.
        base_url: where it listens, as ``provider.stack_auth()`` takes it.
        issuer: the ``iss`` of its tokens.
        jwks_uri: where its public keys are.
        fetches: how often they were asked for.
        status: the HTTP status to answer with, such as 503.
        delay: how long to wait before the answer, in seconds.
        body: what to answer instead of the keys; None for the keys.
    """

    def __init__(self, project_id: str | None = None, *, imitate: Provider | None = None) -> None:
        """Listen on a free port.

        Arguments:
            project_id: of Stack Auth; default is a random UUID.
            imitate: whose tokens to issue instead; only the keys are here: ``provider`` has the issuer,
                the audience and all other rules of this one.
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
        # The interval, in seconds, is how long closing may take.
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def reset(self) -> None:
        """Answer as a healthy provider does, and count from zero; the keys stay."""
        self.fetches = 0
        self.status = 200
        self.delay = 0.0
        self.body: bytes | None = None

    def key(self, algorithm: str | None = None) -> Key:
        """The key that tokens of *algorithm* are signed with now; made when first asked for.

        The default, here and below, is the first of the provider's.
        """
        algorithm = algorithm or self.provider.algorithms[0]
        with self._lock:
            # Not shared with other issuers: then the tokens of one would pass for those of another.
            for key in self._keys:
                if key.algorithm == algorithm:
                    return key
            key = Key.generate(algorithm)
            self._keys.append(key)
            return key

    def rotate(self, algorithm: str | None = None, *, keep: bool = False) -> Key:
        """Sign with a new key from now on.

        Arguments:
            algorithm: whose key to replace.
            keep: whether to publish the old ones still, as a provider does until their tokens expire.
        """
        algorithm = algorithm or self.provider.algorithms[0]
        new = Key.generate(algorithm)
        with self._lock:
            self._keys = [new] + [key for key in self._keys if keep or key.algorithm != algorithm]
        return new

    def jwks(self) -> dict[str, Any]:
        """The public keys, as a JSON Web Key Set (RFC 7517)."""
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
        """An access token as the provider would issue it, or a bad one.

        In *claims* and *headers* None leaves a member out.

        Arguments:
            subject: who it is for; None leaves out ``sub``.
            algorithm: one of ``ALGORITHMS``; ``none``; or another one, with a *key* for it.
            audience: default is the provider's, or the first of several.
            issuer: default is this one.
            issued_at: seconds since 1970; default is now.
            expires_in: seconds from then; may be negative; None leaves out ``exp``.
            claims: these win over those above.
            headers: these win over ``kid``.
            key: signs instead of ours.  A ``Key`` brings its algorithm and ``kid``.
        """
        now = int(time.time() if issued_at is None else issued_at)
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
        # All tokens for one subject are of one sign-in: a provider refreshes them.
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
        """Stop answering; does nothing the second time."""
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
        """What a GET of *path* is answered with, after the delay: status and body."""
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
    # Not http.server's: that one looks up its own name, which takes seconds on some machines.
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
        with suppress(ConnectionError):  # who asked didn't wait for the delay
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass
