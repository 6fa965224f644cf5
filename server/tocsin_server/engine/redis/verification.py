"""Verification of messages between nodes: a node signed each, sent it now, and each is accepted once.

The mutable state is that of `Verifier` and of `NewRequests`; only their methods change it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from tocsin_server.engine.redis import encoding
from tocsin_server.engine.redis.clock import SharedClock
from tocsin_server.engine.redis.dropped_messages import DroppedMessages
from tocsin_server.engine.redis.signatures import Signatures

MAX_AGE_SECONDS = 10.0
"""Within it a request is received. It waits for 3 s at most in the sender's pipeline."""

KEY_READ_SECONDS = 1.0
"""How often the key is read because of messages with another signature."""

MAX_SENDERS = 1000
"""Of so many senders the last request is known. Requests of earlier ones are too old."""

_KINDS = {
    encoding.REQUEST: "request",
    encoding.RESPONSE: "response",
    encoding.COMMANDS: "commands",
    encoding.RECEIPT: "receipt",
}


class Verifier:
    """Hands on the payloads of messages that a node signed, and counts the others as forged."""

    def __init__(self, signatures: Signatures, dropped: DroppedMessages) -> None:
        self._signatures = signatures
        self._dropped = dropped
        self._key_read_at = -math.inf

    def verify(self, prefix: bytes, name: str, message: bytes, handle: Callable[[bytes], None]) -> None:
        """Call `handle` if a node signed the message. The key may have changed; it is read again first."""
        payload = self._signatures.verify(prefix, name, message)
        if payload is not None:
            handle(payload)
        elif self._signatures.may_change and time.monotonic() - self._key_read_at > KEY_READ_SECONDS:
            self._key_read_at = time.monotonic()
            self._signatures.read().add_done_callback(
                lambda _reply: self.verify(prefix, name, message, handle)
            )
        else:
            self._dropped.drop_forged(_KINDS[prefix], "not signed")


class NewRequests:
    """Tells new requests from repeated and old ones."""

    def __init__(self, clock: SharedClock) -> None:
        self._clock = clock
        self._started_at = 0.0
        self._last_numbers: dict[str, int] = {}

    def start(self) -> None:
        """Accept only requests that are sent from now on.

        Not needed where the name that is signed is that of this node: no node knew it before.
        """
        self._started_at = time.monotonic()

    def is_new(self, sender: str, number: int, sent_at: int) -> bool:
        """Whether a request was sent now, after `start`, and is received for the first time.

        `number` increases with each request of a sender. `sent_at` is a stamp (see clock). The sender's clock
        counts as exact as this node's, so that none of the first requests after `start` is refused.
        """
        sent, error = self._clock.monotonic(sent_at), 2 * self._clock.error
        if sent < self._started_at - error or abs(time.monotonic() - sent) > MAX_AGE_SECONDS:
            return False
        if number <= self._last_numbers.pop(sender, 0):
            return False
        self._last_numbers[sender] = number  # now the newest entry
        if len(self._last_numbers) > MAX_SENDERS:
            del self._last_numbers[next(iter(self._last_numbers))]
        return True
