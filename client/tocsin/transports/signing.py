"""Signatures of requests to the HTTP API, so that a key never travels (docs/http-api.md)."""

from __future__ import annotations

import hmac
import re
from hashlib import sha256

SCHEME = "tocsin-hmac-sha256"


class Signer:
    """Signs requests with a named key. Raises ``ValueError`` for a name that no server can have."""

    def __init__(self, key_name: str, api_key: str) -> None:
        if not re.fullmatch(r"[-a-zA-Z0-9_]{1,64}", key_name):
            raise ValueError("the name of a key has at most 64 letters, digits, - or _")
        self._name = key_name
        self._key = api_key.strip().encode()
        if not self._key:
            raise ValueError("a signature needs the key, not only its name")

    def header(self, path: str, body: bytes, unix_now: float, nonce: str) -> dict[str, str]:
        """Return the header of one request. ``nonce`` is a random text that no other request has."""
        digest, time = sha256(body).hexdigest(), str(int(unix_now))
        text = f"{SCHEME}\nPOST\n{path}\n{time}\n{nonce}\n{digest}"
        signature = hmac.new(self._key, text.encode(), sha256).hexdigest()
        parts = f"key={self._name}, time={time}, nonce={nonce}, digest={digest}, signature={signature}"
        return {"Authorization": f"{SCHEME} {parts}"}
