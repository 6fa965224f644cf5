"""An identity provider of the tests: its keys, its tokens, and a real HTTP server for its key set."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

_RSA = rsa.generate_private_key(65537, 2048)
PRIVATE_KEYS: dict[str, Any] = {
    "RS256": _RSA,
    "PS256": _RSA,
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
"""One private key for each algorithm. Making them takes time, so all providers share them."""


def public_jwk(algorithm: str, key_id: str = "k1", /, **members: Any) -> dict[str, Any]:
    """The public key for an algorithm as a JSON Web Key; members that are None are left out."""
    public = PRIVATE_KEYS[algorithm].public_key()
    jwk = jwt.get_algorithm_by_name(algorithm).to_jwk(public, as_dict=True)
    jwk.pop("key_ops", None)
    found = {**jwk, "kid": key_id, "use": "sig", "alg": algorithm, **members}
    return {name: value for name, value in found.items() if value is not None}


def sign(claims: dict[str, Any], algorithm: str = "RS256", key_id: str | None = "k1", **header: Any) -> str:
    """A token that is signed with the private key for an algorithm."""
    headers = {**({} if key_id is None else {"kid": key_id}), **header}
    payload = json.dumps(claims).encode()
    return jwt.PyJWS().encode(payload, PRIVATE_KEYS[algorithm], algorithm, headers=headers)


class IdentityProvider:
    """A key set behind an address, which may change, fail, or answer slowly."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = [public_jwk("RS256")]
        self.status = "200 OK"
        self.headers: dict[str, str] = {}
        self.body: bytes | None = None
        """What it answers instead of its keys."""
        self.requests: list[str] = []
        """The path of each request so far, with the header lines after it."""
        self.gate = asyncio.Event()
        """It answers once this is set, as it is unless a test clears it."""
        self.gate.set()
        self._port = 0

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def jwks_url(self) -> str:
        return f"{self.issuer}/jwks"

    def token(self, user: str = "ann", key_id: str | None = "k1", **claims: Any) -> str:
        """A token of this issuer for the audience `tocsin`, valid for a minute."""
        standard = {"iss": self.issuer, "aud": "tocsin", "sub": user, "exp": time.time() + 60}
        return sign({**standard, **claims}, key_id=key_id)

    @property
    def section(self) -> dict[str, Any]:
        """The options of this issuer."""
        return {"issuer": self.issuer, "audiences": ["tocsin"], "jwks_url": self.jwks_url}

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.requests.append(request)
            await self.gate.wait()
            body = json.dumps({"keys": self.keys}).encode() if self.body is None else self.body
            headers = {"Content-Length": str(len(body)), "Connection": "close", **self.headers}
            lines = [f"HTTP/1.1 {self.status}", *(f"{name}: {value}" for name, value in headers.items())]
            writer.write("\r\n".join([*lines, "", ""]).encode() + body)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator[IdentityProvider]:
        """Serve on a port of this machine."""
        server = await asyncio.start_server(self._answer, "127.0.0.1", port)
        self._port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self.gate.set()
            server.close()
            await server.wait_closed()
