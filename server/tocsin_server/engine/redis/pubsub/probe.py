"""The probe: a message that a node publishes to itself, to prove that its pub/sub connection works."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import suppress
from hashlib import blake2b
from typing import NoReturn

from tocsin_server.engine.redis.pipeline import Pipeline
from tocsin_server.engine.redis.pubsub.connection import PubSubConnection
from tocsin_server.errors import EngineError

PROBE_SECONDS = 0.9
"""The interval between probes, so that three of them and their travel time are less than three seconds."""

DEAF_AFTER_PROBES = 2
"""How many probes Redis may accept without one coming back. When the next is due, the connection is deaf.

By then no message was received for three times PROBE_SECONDS. A probe that Redis did not accept does not
count.
"""


class Probe:
    """Publishes numbers on the pipeline, and expects them on the pub/sub connection.

    The mutable state is the last number, the missing numbers, and when a probe was last sent and received.
    `_publish` adds a missing number; `_on_message` removes numbers.
    """

    def __init__(self, name: str, pipeline: Pipeline, pubsub: PubSubConnection) -> None:
        self._name = name
        self._subscribed_name = ""
        self._pipeline = pipeline
        self._pubsub = pubsub
        self._number = 0
        self._key = secrets.token_bytes(16)
        self._missing: list[int] = []
        self._connection_count = 0
        self._sent_at = 0.0
        self.lag_seconds = 0.0
        """How long the last probe that was received had travelled."""
        self._received_at = time.monotonic()

    @property
    def silence_seconds(self) -> float:
        """How long ago a probe was last received."""
        return time.monotonic() - self._received_at

    @property
    def name(self) -> str:
        """The pub/sub name of the probes."""
        return self._name

    def rename(self, name: str) -> None:
        """Publish under another name from now on. The owner unsubscribes from the earlier one."""
        self._name = name

    async def run(self) -> NoReturn:
        """Publish probes until cancelled."""
        while True:
            if self._subscribed_name != self._name:
                await self._subscribe()
            if self._pubsub.is_subscribed:
                await self._publish()
            await self._wait()

    async def _subscribe(self) -> None:
        self._subscribed_name = self._name
        self._missing.clear()
        with suppress(EngineError):  # the name stays wanted, and is subscribed to on the next connection
            await self._pubsub.subscribe(self._name, self._on_message)

    def _on_message(self, message: bytes) -> None:
        digits = message.partition(b" ")[0]
        if not digits.isdigit() or message != self._signed(int(digits)):
            return  # of another publisher
        received = int(digits)
        self._received_at = time.monotonic()  # the event loop's time does not advance within a turn
        self._missing = [number for number in self._missing if number > received]
        if received == self._number:
            self.lag_seconds = self._received_at - self._sent_at
            self._missing.clear()
            self._number += 1  # the reply to this publish may arrive later and must then be ignored
        self._pubsub.mark_proven()

    def _signed(self, number: int) -> bytes:
        """The message of a probe. No other program can make it, so the connection must have carried it."""
        digits = b"%d" % number
        return digits + b" " + blake2b(digits, key=self._key, digest_size=8).hexdigest().encode()

    async def _publish(self) -> None:
        if self._pubsub.connection_count != self._connection_count:
            self._connection_count = self._pubsub.connection_count
            self._missing.clear()
        if len(self._missing) >= DEAF_AFTER_PROBES:
            self._pubsub.replace("its pub/sub connection is open but silent")
            return
        self._number += 1
        number = self._number
        self._sent_at = time.monotonic()
        try:
            receivers = await self._pipeline.execute(
                self._pipeline.publish_command, self._name, self._signed(number)
            )
        except EngineError:
            return
        is_same_connection = self._pubsub.connection_count == self._connection_count
        if not receivers and self._pubsub.is_subscribed and is_same_connection:
            # A master that became a replica forwards the messages of its own master, probes included, while
            # it is connected to it. If it is promoted again, it may lack the end of a history, and no node
            # would be notified of that.
            self._pubsub.replace("its pub/sub connection is to another server than its commands")
        elif self._number == number:
            self._missing.append(number)

    async def _wait(self) -> None:
        """Wait for the next probe to be due, or for a new connection, which must be proven at once."""
        self._pubsub.subscribed.clear()
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await self._pubsub.subscribed.wait()
        except TimeoutError:
            return
