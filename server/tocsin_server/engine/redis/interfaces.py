"""Commands and PubSub: how the parts of the engine use Redis, whether it is one server or a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from tocsin_server.eager_future import EagerFuture
from tocsin_server.engine.redis.scripts import Script

Argument = bytes | str | int

PendingReply = asyncio.Future[Any]
"""The future for the reply to a command.

It raises EngineError if Redis rejects the command, cannot be reached or does not answer in time.
"""

COMMAND_SECONDS = 3.0
"""How long a command may be queued. A deaf node is detected within the same time."""

OnMessage = Callable[[bytes], None]
"""Receives a message that was published under one name. Synchronous."""


class StoreState(NamedTuple):
    """Functions that say what is known of Redis' state now."""

    trusts_absence: Callable[[], bool]
    """Whether a missing top proves that a channel had no publications (see broker)."""
    may_grow: Callable[[], bool]
    """Whether Redis has memory for new histories and presence entries."""


class Commands(Protocol):
    """Sends commands to Redis. Commands with the same keys run in the order in which they are made."""

    publish_command: str
    """PUBLISH, or SPUBLISH on a cluster."""
    is_sharded: bool
    """Whether keys are spread over several servers.

    Then only commands with the same keys keep their order.
    """

    @property
    def connection_count(self) -> int:
        """How many connections were made so far. A new one may lead to a Redis that has lost data."""

    def execute(
        self, *command: Argument, seconds: float = COMMAND_SECONDS, after: PendingReply | None = None
    ) -> PendingReply:
        """Send a command, whose second word is its key or pub/sub name.

        It fails if it is not sent within `seconds`. `after` is the reply to an earlier command: this command
        does not run before that one. On a cluster, this command is not sent if that one fails.
        """

    def send(self, packed: bytes, key: str) -> EagerFuture[Any]:
        """Send a command that is packed already, and whose key or pub/sub name is `key`.

        What follows from the reply runs in the call that reads it.
        """

    def run_script(
        self, script: Script, keys: Sequence[str], *arguments: Argument, after: PendingReply | None = None
    ) -> PendingReply:
        """Run a script. `after` is as for `execute`."""


class PubSub(Protocol):
    """Subscribes to names in Redis' pub/sub."""

    async def subscribe(self, name: str, on_message: OnMessage) -> None:
        """Subscribe to a name. Once this returns, `on_message` receives each message. Idempotent.

        Raises EngineError if Redis does not confirm in time. The subscription stays wanted and may still
        succeed, until `unsubscribe` is called.
        """

    async def unsubscribe(self, name: str) -> None:
        """Unsubscribe from a name. Once this returns, no message of it is received. Idempotent."""
