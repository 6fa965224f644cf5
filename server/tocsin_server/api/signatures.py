"""Signed requests: a key proves itself by a signature, and never travels (docs/http-api.md).

    Authorization: tocsin-hmac-sha256 key=NAME, time=UNIX, nonce=TEXT, digest=HEX, signature=HEX

The signature is the HMAC-SHA256, with the key, of `signed_text`. The digest is the SHA-256 of the body as it
is sent. So a signature is verified before the body is read.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple

SCHEME = "tocsin-hmac-sha256"
SEEN_LIMIT = 100_000
"""How many signatures each half of the window may have: some 15 MB."""

_PARAMETER = re.compile(r'([a-z]+)="?([^",\s]*)"?')
_NONCE_CHARACTERS = 128


class Signature(NamedTuple):
    """The credentials of a signed request, in the order of the header."""

    key: str
    time: str
    nonce: str
    digest: str
    signature: str

    @classmethod
    def read(cls, credentials: str) -> Signature | None:
        """Read what follows the scheme in the header. None unless each parameter is there once."""
        parameters = [_PARAMETER.fullmatch(part.strip()) for part in credentials.split(",")]
        pairs = [(found[1], found[2]) for found in parameters if found]
        values = dict(pairs)
        if len(pairs) != len(parameters) or len(values) != len(pairs) or values.keys() != set(cls._fields):
            return None
        found = cls(**values)
        is_valid = found.time.isascii() and found.time.isdecimal() and len(found.time) < 16
        return found if is_valid and 0 < len(found.nonce) <= _NONCE_CHARACTERS else None

    def is_by(self, keys: Iterable[str], path: str) -> bool:
        """Whether one of the keys made the signature for a path. Compares with all of them."""
        text = signed_text(path, self.time, self.nonce, self.digest).encode()
        given = self.signature.lower().encode()
        return True in [
            hmac.compare_digest(hmac.new(key.encode(), text, sha256).hexdigest().encode(), given)
            for key in keys
        ]

    def covers(self, body: bytes | bytearray) -> bool:
        """Whether the digest is that of a body."""
        return hmac.compare_digest(sha256(body).hexdigest().encode(), self.digest.lower().encode())


def signed_text(path: str, time: str, nonce: str, digest: str) -> str:
    """What is signed: one line each. `path` is `/api` and what follows it, without a query."""
    return f"{SCHEME}\nPOST\n{path}\n{time}\n{nonce}\n{digest}"


class SeenSignatures:
    """The signatures of requests whose time is still within the window, so that none is used twice.

    They are kept in two halves, each for as long as a signature can be valid. The mutable state is the
    halves; only `add` changes it.
    """

    def __init__(self, window_seconds: float) -> None:
        self._half_seconds = 2 * window_seconds  # from the window before a request's time to that after it
        self._newer: set[str] = set()
        self._older: set[str] = set()
        self._newer_since = 0.0

    def add(self, signature: str, now: float) -> bool | None:
        """Remember a signature. Returns whether it is new; None if there is no room for it.

        `now` is in seconds of a monotonic clock.
        """
        if now - self._newer_since >= self._half_seconds:
            is_recent = now - self._newer_since < 2 * self._half_seconds
            self._older = self._newer if is_recent else set()
            self._newer = set()
            self._newer_since = now
        if signature in self._newer or signature in self._older:
            return False
        if len(self._newer) >= SEEN_LIMIT:
            return None
        self._newer.add(signature)
        return True
