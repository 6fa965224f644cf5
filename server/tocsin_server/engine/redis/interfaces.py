"""Calls and ears: how the parts of the engine ask Redis and hear it, however many servers it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from tocsin_server.engine.redis.scripts import Script

Argument = bytes | str | int

Answer = asyncio.Future[Any]
"""Raises EngineError if Redis refused, could not be asked in time, or did not answer."""

CALL_SECONDS = 3.0
"""How long a call may wait for its turn. As long as a deaf link may go unnoticed."""

Hear = Callable[[bytes], None]
"""Takes a message of one channel. Synchronous."""


class Calls(Protocol):
    """Calls of the same keys are carried out in the order in which they were made."""

    publish: str
    """The command that announces: PUBLISH, or SPUBLISH on a cluster."""
    is_sharded: bool
    """Whether keys are on several servers. Then only calls of the same keys keep their order."""

    @property
    def connections(self) -> int:
        """How many there have been. A new one may lead to a Redis that has forgotten something."""

    def call(self, *command: Argument, seconds: float = CALL_SECONDS, after: Answer | None = None) -> Answer:
        """Send a command, whose second word is its key or its channel, within `seconds`.

        With `after`, which an earlier call answered, not before that call was carried out; on a cluster not
        at all if it failed.
        """

    def run_script(
        self, script: Script, keys: Sequence[str], *arguments: Argument, after: Answer | None = None
    ) -> Answer:
        """Run a script; as `call`."""


class Ears(Protocol):
    """Hears names that are announced under."""

    async def listen(self, name: str, hear: Hear) -> None:
        """Once this returns, whatever is announced under `name` reaches `hear`. Idempotent.

        Raises EngineError if Redis does not confirm in time. Then it may be heard nevertheless, until
        forgotten.
        """

    async def forget(self, name: str) -> None:
        """Once this returns, nothing announced under `name` is heard. Idempotent."""
