"""The pub/sub connection of one shard: receives the messages of the slots that one master serves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tocsin_server.engine.redis.cluster.redirects import REDIRECT_ERRORS
from tocsin_server.engine.redis.cluster.subscriptions import MigratedSubscription, ShardedSubscriptions
from tocsin_server.engine.redis.connections.connection import RedisConnection, pack_command
from tocsin_server.engine.redis.connections.connector import Backoff, Connector
from tocsin_server.engine.redis.pubsub.connection import OnResubscribed, PubSubConnection
from tocsin_server.engine.redis.pubsub.subscriptions import SubscribeCommand


class ShardedPubSubConnection(PubSubConnection):
    """A connection for sharded pub/sub.

    It follows no slot by itself: the router moves names from one connection to another. It calls
    `invalidate_topology` when Redis says that it does not serve a name.
    """

    def __init__(
        self,
        connector: Connector,
        backoff: Backoff,
        on_resubscribed: OnResubscribed,
        invalidate_topology: Callable[[], None],
    ) -> None:
        super().__init__(connector, backoff, on_resubscribed)
        self._subscriptions: ShardedSubscriptions = ShardedSubscriptions()
        self._invalidate_topology = invalidate_topology

    def release(self, is_elsewhere: Callable[[bytes], bool]) -> list[MigratedSubscription]:
        """Remove and return the names that another shard must subscribe to."""
        migrated = self._subscriptions.release(is_elsewhere)
        self._send_soon()
        return migrated

    def accept(self, migrated: MigratedSubscription) -> None:
        """Subscribe to a name that another shard released."""
        self._subscriptions.accept(migrated)
        self._send_soon()

    def retry(self) -> None:
        """Subscribe again to the names that Redis rejected or revoked."""
        self._subscriptions.retry()
        self._send_soon()

    def _send(self, connection: RedisConnection, command: SubscribeCommand) -> None:
        # One command for each name, because all names of one command must be in one slot.
        word = "SSUBSCRIBE" if command.is_subscribe else "SUNSUBSCRIBE"
        connection.send(b"".join([pack_command(word, name) for name in command.names]))

    def _on_reply(self, reply: Any) -> None:
        if isinstance(reply, REDIRECT_ERRORS):
            self._subscriptions.reject(getattr(reply, "slot_id", None))
            self._invalidate_topology()
            self._check_restored()
            return
        if isinstance(reply, Exception):
            raise reply
        kind, name, message = reply
        if kind == b"smessage":
            if on_message := self._subscriptions.callback_for(name):
                on_message(message)
        elif kind == b"sunsubscribe" and self._subscriptions.is_unsolicited(name):
            self._subscriptions.revoke(name)
            self._invalidate_topology()
        else:
            self._on_confirmed(name)

    def _on_confirmed(self, name: bytes) -> None:
        self._subscriptions.confirm(name)
        if self._subscriptions.take_resumed(name):
            self._on_resubscribed([name])
        self._check_restored()
