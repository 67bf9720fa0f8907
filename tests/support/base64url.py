"""What the parts of a token are written in."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode


def part(content: bytes) -> str:
    return urlsafe_b64encode(content).rstrip(b"=").decode()


def decoded(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))
