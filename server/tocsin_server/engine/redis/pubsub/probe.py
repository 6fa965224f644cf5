"""The canary: announced every second the normal way, and expected back over the link, busy or idle."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import NoReturn

from tocsin_server.engine.redis.pipeline import Pipeline
from tocsin_server.engine.redis.pubsub.connection import Link
from tocsin_server.errors import EngineError

CANARY_SECONDS = 0.9
"""About a second: three of them, and the time they take, are less than three."""

DEAF_AFTER = 2
"""Canaries that Redis took and that did not come back, when it is time for the next.

By then nothing was heard for three times CANARY_SECONDS. What Redis could not take says nothing of the link.
"""


class Canary:
    """Numbers go out, numbers come back."""

    def __init__(self, name: str, pipeline: Pipeline, link: Link) -> None:
        self._name = name
        self._heard_name = ""
        self._pipeline = pipeline
        self._link = link
        self._number = 0
        self._missing: list[int] = []
        self._connection = 0
        self._sent_at = 0.0
        self.lag_seconds = 0.0
        """How long the last canary that came back was under way."""
        self._heard_at = time.monotonic()

    @property
    def silence_seconds(self) -> float:
        """How long ago a canary last came back."""
        return time.monotonic() - self._heard_at

    @property
    def name(self) -> str:
        """Under which it is announced."""
        return self._name

    def rename(self, name: str) -> None:
        """Sing under another name from now on: the link is no longer to hear the one there was."""
        self._name = name

    async def run(self) -> NoReturn:
        """Sing until cancelled."""
        while True:
            if self._heard_name != self._name:
                await self._listen()
            if self._link.is_whole:
                await self._sing()
            await self._rest()

    async def _listen(self) -> None:
        self._heard_name = self._name
        self._missing.clear()
        with suppress(EngineError):  # the name is wanted all the same, and heard once there is a link
            await self._link.listen(self._name, self._hear)

    def _hear(self, message: bytes) -> None:
        heard = int(message)
        self._heard_at = time.monotonic()  # finer than the loop's, whose time stands still within a turn
        self._missing = [number for number in self._missing if number > heard]
        if heard == self._number:
            self.lag_seconds = self._heard_at - self._sent_at
            self._missing.clear()
            self._number += 1  # its acknowledgement may come later, and then counts no more
        self._link.prove()

    async def _sing(self) -> None:
        if self._link.connections != self._connection:
            self._connection = self._link.connections
            self._missing.clear()
        if len(self._missing) >= DEAF_AFTER:
            self._link.replace("its link is open but silent")
            return
        self._number += 1
        number = self._number
        self._sent_at = time.monotonic()
        try:
            hearers = await self._pipeline.call(self._pipeline.publish, self._name, number)
        except EngineError:
            return
        if not hearers and self._link.is_whole and self._link.connections == self._connection:
            # A master that became a replica passes on what its master announces, canaries too, as long as it
            # hears that. Promoted again, it may lack the end of a log, which nobody has heard of then.
            self._link.replace("its link does not lead to the server that takes its calls")
        elif self._number == number:
            self._missing.append(number)

    async def _rest(self) -> None:
        """Wait for the next second, or for a new link, which is to be proven at once."""
        self._link.restored.clear()
        try:
            async with asyncio.timeout(CANARY_SECONDS):
                await self._link.restored.wait()
        except TimeoutError:
            return
