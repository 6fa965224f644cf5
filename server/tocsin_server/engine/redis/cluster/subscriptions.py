"""The subscriptions of one shard's pub/sub connection. Names move between shards together with their slots.

In addition to the changes of `pubsub.subscriptions`, Redis may reject a name, or revoke it when its slot
moves:

    in flight --reject()--> rejected --retry()--> pending …
    confirmed --revoke()--> rejected
    any state --release()--> the accept() of another shard --> pending …
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from tocsin_server.engine.redis.cluster.slots import slot_of
from tocsin_server.engine.redis.interfaces import OnMessage
from tocsin_server.engine.redis.pubsub.subscriptions import PendingChange, RedisSubscriptions


class MigratedSubscription(NamedTuple):
    """A name on its way from one shard to another."""

    name: bytes
    on_message: OnMessage
    change: PendingChange
    """The change to subscribe, with the callers that wait for it."""
    was_subscribed: bool
    """Whether messages of the name were received before, so that its subscription is interrupted now."""


class ShardedSubscriptions(RedisSubscriptions):
    """The subscriptions of one shard. Synchronous, without I/O.

    Further mutable state, and the methods that change it:

        _rejected       changes that Redis rejected, and names that it revoked
                        reject(), revoke(), retry(), release(), subscribe(), unsubscribe()
        _interrupted    names that were received, here or from another shard, and are not received now
                        reject(), revoke(), accept(), release(), take_resumed(), on_connected()
    """

    def __init__(self) -> None:
        super().__init__()
        self._rejected: dict[bytes, PendingChange] = {}
        self._interrupted: set[bytes] = set()

    def on_connected(self) -> None:
        """A new connection is subscribed to no name: all wanted names become pending."""
        self.retry()
        self._lost |= self._interrupted
        self._interrupted.clear()
        super().on_connected()

    def take_resumed(self, name: bytes) -> bool:
        """Whether an interrupted name is confirmed again. Returns True once for each interruption."""
        is_resumed = name in self._interrupted and name in self._confirmed
        if is_resumed:
            self._interrupted.discard(name)
        return is_resumed

    def reject(self, slot: int | None = None) -> None:
        """Redis rejected the oldest change in flight, because it does not serve the name's slot now.

        `slot` is the slot that Redis names. If it is another slot than that of the oldest change, this
        rejects an unsubscribe whose name Redis had just revoked. The revocation was then taken for the
        confirmation.
        """
        if not self._in_flight or slot not in (None, slot_of(self._in_flight[0][0])):
            return
        name, change = self._in_flight.popleft()
        if self._last_in_flight.get(name) is change:
            del self._last_in_flight[name]
        newer = self._pending.get(name) or self._last_in_flight.get(name)
        self._restoring.discard(name)  # the connection can be restored without it
        if name in self._lost:
            self._lost.discard(name)
            self._interrupted.add(name)
        if not change.is_subscribe or name not in self._callbacks:
            self._confirmed.discard(name)
            self._interrupted.discard(name)
            change.confirm()
        elif newer is not None:
            newer.share_waiters(change)
        else:
            self._rejected[name] = change

    def is_unsolicited(self, name: bytes) -> bool:
        """Whether an unsubscribe message for a name is a revocation, and not the confirmation of a change."""
        return not self._in_flight or self._in_flight[0][0] != name or self._in_flight[0][1].is_subscribe

    def revoke(self, name: bytes) -> None:
        """Redis unsubscribed a name by itself, because its slot has moved."""
        self._confirmed.discard(name)
        if name in self._callbacks:
            self._interrupted.add(name)
            if name not in self._pending and name not in self._last_in_flight:
                self._rejected[name] = PendingChange(is_subscribe=True)

    def retry(self) -> None:
        """Make the rejected changes pending again."""
        self._pending.update(self._rejected)
        self._rejected.clear()

    def release(self, is_elsewhere: Callable[[bytes], bool]) -> list[MigratedSubscription]:
        """Remove and return the names that another shard must subscribe to."""
        for changes in (self._pending, self._last_in_flight):
            for name in [name for name in changes if name not in self._callbacks and is_elsewhere(name)]:
                changes.pop(name).confirm()  # an unsubscribe: the name is not received here in any case
                self._restoring.discard(name)
        return [self._release(name) for name in list(self._callbacks) if is_elsewhere(name)]

    def _release(self, name: bytes) -> MigratedSubscription:
        change = PendingChange(is_subscribe=True)
        for changes in (self._rejected, self._pending, self._last_in_flight):
            if (old := changes.pop(name, None)) is not None:
                change.take_waiters(old)
        was_subscribed = any(name in names for names in (self._confirmed, self._lost, self._interrupted))
        for names in (self._confirmed, self._lost, self._interrupted, self._restoring):
            names.discard(name)
        return MigratedSubscription(name, self._callbacks.pop(name), change, was_subscribed)

    def accept(self, migrated: MigratedSubscription) -> None:
        """Subscribe to a name that another shard released."""
        self._callbacks[migrated.name] = migrated.on_message
        if (older := self._pending.get(migrated.name)) is not None:
            migrated.change.take_waiters(older)
        self._pending[migrated.name] = migrated.change
        if migrated.was_subscribed:
            self._interrupted.add(migrated.name)

    def _change(self, name: bytes, *, is_subscribe: bool) -> asyncio.Future[None] | None:
        """If the name is rejected, that change becomes pending first."""
        if (rejected := self._rejected.pop(name, None)) is not None:
            self._pending[name] = rejected
        return super()._change(name, is_subscribe=is_subscribe)
