"""Signatures: only a node can make control commands, surveys and responses.

The right to publish in Redis is not enough for that. A signature needs a key. It is in Redis, and reading it
needs the right to read keys; or it is `engine.control_secret`, and Redis does not have it.

    message    <prefix><signature><payload>

The signature is a keyed BLAKE2b of the pub/sub name and the payload.
"""

from __future__ import annotations

import asyncio
import secrets
from hashlib import blake2b
from hmac import compare_digest
from typing import NoReturn

import structlog

from tocsin_server.engine.redis import scripts
from tocsin_server.engine.redis.interfaces import Commands, PendingReply
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.errors import EngineError

KEY_BYTES = 32
SIGNATURE_BYTES = 16

KEEP_SECONDS = 5.0
"""How often a node ensures that Redis holds the key. Redis may have lost it."""

log = structlog.get_logger()


class Signatures:
    """Signs and verifies messages.

    Without a configured secret, the first node makes the key and stores it in Redis. A Redis that lost it
    gets it from any node again. If nodes have different keys for a moment, the one in Redis is right.

    The mutable state is the key; `keep` and `_on_key` change it.
    """

    def __init__(self, keys: Keys, commands: Commands, secret: str = "") -> None:
        self._commands = commands
        self._name = "" if secret else keys.secret
        self._key = blake2b(secret.encode(), digest_size=KEY_BYTES).digest() if secret else b""

    @property
    def key(self) -> bytes:
        """The current key. Empty before the first `keep`."""
        return self._key

    async def keep(self) -> None:
        """Store the key in Redis if it has none, and use the one that it has. Raises EngineError."""
        if self._name:
            await self.read()

    def read(self) -> PendingReply:
        """Read the key from Redis, and use it before the callbacks of the caller run."""
        key = self._key or secrets.token_bytes(KEY_BYTES)
        reply = self._commands.run_script(scripts.GET_OR_SET, [self._name], key)
        reply.add_done_callback(self._on_key)
        return reply

    @property
    def may_change(self) -> bool:
        """Whether the key in Redis may be another one than this node's."""
        return bool(self._name)

    async def run(self) -> NoReturn:
        """Keep the key in Redis until cancelled."""
        while True:
            await asyncio.sleep(KEEP_SECONDS)
            try:
                await self.keep()
            except EngineError as error:
                log.warning("signature_key_not_kept", error=str(error))

    def _on_key(self, reply: PendingReply) -> None:
        if not reply.cancelled() and reply.exception() is None and reply.result():
            self._key = bytes(reply.result())

    def sign(self, prefix: bytes, name: str, payload: bytes) -> bytes:
        """Make the message that carries `payload` under a pub/sub name."""
        return prefix + self._signature(name, payload) + payload

    def verify(self, prefix: bytes, name: str, message: bytes) -> bytes | None:
        """The payload of a message that was received under a pub/sub name. None if a node did not make it."""
        start = len(prefix) + SIGNATURE_BYTES
        payload = message[start:]
        is_valid = compare_digest(message[len(prefix) : start], self._signature(name, payload))
        return payload if is_valid and self._key else None

    def _signature(self, name: str, payload: bytes) -> bytes:
        return blake2b(name.encode() + b"\0" + payload, key=self._key, digest_size=SIGNATURE_BYTES).digest()
