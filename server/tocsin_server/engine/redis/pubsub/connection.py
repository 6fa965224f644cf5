"""The pub/sub connection: receives messages from one Redis server, and is replaced when it is broken or deaf.

    disconnected --connect--> restoring --all names confirmed--> subscribed --mark_proven()--> proven
         ^------------------------------- any failure ------------------------------------------'

Only a probe shows whether the connection works. Pub/sub neither acknowledges nor counts messages, so a
connection that is silently dead looks like an idle one.

The mutable state, and the methods that change it:

    _subscriptions                      see subscriptions
    _connection                         _serve() sets it; _connect_and_receive() clears it
    is_subscribed, connection_count     _check_restored(); _connect_and_receive() resets is_subscribed
    proven, unready_reason              mark_proven(); _connect_and_receive() and _report_failure() reset them
    _is_send_scheduled                  _send_soon() and _send_pending()
    _is_running                         run()
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import structlog

from tocsin_server.engine.redis.connections.connection import (
    CONNECTION_ERRORS,
    REPLY_SECONDS,
    RedisConnection,
    describe,
    pack_command,
)
from tocsin_server.engine.redis.connections.connector import Backoff, Connector
from tocsin_server.engine.redis.interfaces import COMMAND_SECONDS, OnMessage
from tocsin_server.engine.redis.pubsub.subscriptions import RedisSubscriptions, SubscribeCommand
from tocsin_server.errors import EngineError

log = structlog.get_logger()

OnResubscribed = Callable[[Sequence[bytes]], None]
"""Receives the names whose subscription was interrupted and is restored."""


class DeafConnection(Exception):
    """The pub/sub connection is open, but no message arrives."""


class PubSubConnection:
    """Implements PubSub for one server, on one connection after another. The owner runs `run` in a task."""

    def __init__(self, connector: Connector, backoff: Backoff, on_resubscribed: OnResubscribed) -> None:
        self._connector = connector
        self._backoff = backoff
        self._on_resubscribed = on_resubscribed
        self._subscriptions = RedisSubscriptions()
        self._connection: RedisConnection | None = None
        self._is_send_scheduled = False
        self._is_running = False
        self.subscribed = asyncio.Event()
        """Set whenever a new connection is subscribed to all wanted names.

        The task that awaits it clears it.
        """
        self.proven = asyncio.Event()
        """Set while a probe has been received on the current connection."""
        self.is_subscribed = False
        """Whether the current connection is subscribed to all wanted names."""
        self.connection_count = 0
        """How many connections were subscribed to all wanted names so far."""
        self.unready_reason = f"This node has received no message from Redis at {connector.name} yet."
        """Why no message can be received now, as a sentence. Empty if a probe has been received."""

    async def subscribe(self, name: str, on_message: OnMessage) -> None:
        """Subscribe to a name, as PubSub describes."""
        await self._confirmed(self._subscriptions.subscribe(name.encode(), on_message))

    async def unsubscribe(self, name: str) -> None:
        """Unsubscribe from a name. Idempotent."""
        await self._confirmed(self._subscriptions.unsubscribe(name.encode()))

    async def _confirmed(self, confirmation: asyncio.Future[None] | None) -> None:
        if not self._is_running:
            raise EngineError("the engine is not running")
        if confirmation is not None:
            self._send_soon()
            try:
                async with asyncio.timeout(COMMAND_SECONDS):
                    await confirmation
            except TimeoutError:
                raise EngineError("Redis did not confirm the subscription in time") from None

    def mark_proven(self) -> None:
        """A probe was received."""
        if self.is_subscribed:
            self.unready_reason = ""
            self.proven.set()

    def replace(self, why: str) -> None:
        """Close the current connection because it is deaf, and make another. `why` completes "…: why"."""
        if self._connection is not None:
            self._connection.fail(DeafConnection(why))

    # ------------------------------------------------------------------------------------------- connections

    async def run(self) -> NoReturn:
        """Connect, and reconnect, until cancelled."""
        self._is_running = True
        try:
            while True:
                await self._connect_and_receive()
                await asyncio.sleep(self._backoff.next())
        finally:
            self._is_running = False

    async def _connect_and_receive(self) -> None:
        try:
            async with self._connector.connected() as connection:
                try:
                    await self._serve(connection)
                finally:
                    self._connection = None
                    self.is_subscribed = False
                    self.proven.clear()
        except (*CONNECTION_ERRORS, DeafConnection) as error:
            self._report_failure(error)
        except Exception as error:
            log.exception("pubsub_handler_failed", redis=self._connector.name)
            self._report_failure(error)

    async def _serve(self, connection: RedisConnection) -> NoReturn:
        self._subscriptions.on_connected()
        connection.on_reply = self._on_reply
        self._connection = connection
        self._send_pending()
        while True:
            before = self._subscriptions.restoring_count
            await connection.wait_for_failure(REPLY_SECONDS)
            # Once the connection is subscribed, the probe checks it.
            if not self.is_subscribed and self._subscriptions.restoring_count == before:
                raise DeafConnection("its pub/sub connection is open but silent")

    def _report_failure(self, error: Exception) -> None:
        if not self.unready_reason:
            log.warning(
                "redis_disconnected", connection="pubsub", redis=self._connector.name, error=describe(error)
            )
        self.unready_reason = (
            f"This node cannot receive from Redis at {self._connector.name}: {describe(error)}."
        )

    def _send_soon(self) -> None:
        """Send the pending changes at the end of this turn of the event loop, together."""
        if self._connection is not None and not self._is_send_scheduled:
            self._is_send_scheduled = True
            asyncio.get_running_loop().call_soon(self._send_pending)

    def _send_pending(self) -> None:
        self._is_send_scheduled = False
        if self._connection is None:
            return
        try:
            while command := self._subscriptions.next_command():
                self._send(self._connection, command)
            self._check_restored()
        except Exception as error:  # noqa: BLE001 - logged where the connection ends
            self._connection.fail(error)

    def _send(self, connection: RedisConnection, command: SubscribeCommand) -> None:
        word = "SUBSCRIBE" if command.is_subscribe else "UNSUBSCRIBE"
        connection.send(pack_command(word, *command.names))

    def _on_reply(self, reply: Any) -> None:
        if isinstance(reply, Exception):
            raise reply
        kind, name, message = reply
        if kind != b"message":
            self._subscriptions.confirm(name)
            self._check_restored()
        elif on_message := self._subscriptions.callback_for(name):
            on_message(message)

    def _check_restored(self) -> None:
        """After a change of the subscriptions: send more of them, and report when all are restored."""
        if self._subscriptions.has_pending:
            self._send_soon()
        if self.is_subscribed or not self._subscriptions.is_restored:
            return
        self.is_subscribed = True
        self.connection_count += 1
        self._backoff.reset()
        self.subscribed.set()
        if names := self._subscriptions.take_restored():
            log.info("pubsub_resubscribed", redis=self._connector.name, channels=len(names))
            self._on_resubscribed(names)
