"""What an operator sees of the deliveries to each subscriber, and does with its dead letters.

Every node answers for all nodes, because dead letters and failing deliveries are in the engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import NamedTuple

import msgspec

from tocsin_server import errors
from tocsin_server.core.delivery import FailingDelivery, Outcome, Result
from tocsin_server.core.lifecycle import LifecycleEvent
from tocsin_server.engine.deliveries import StoredDeadLetter
from tocsin_server.errors import Refused
from tocsin_server.hooks.deliveries import Deliveries
from tocsin_server.hooks.subscriber import Subscriber
from tocsin_server.hooks.webhooks.webhook import Webhook

WEBHOOK_PREFIX = "webhooks."

PAGE = 1000
"""How many dead letters are looked through at once for the wanted ids."""

_decode_event = msgspec.json.Decoder(LifecycleEvent).decode


class SubscriberStatus(NamedTuple):
    """How the deliveries to one subscriber go, on all nodes."""

    name: str
    url: str
    """The address of a webhook, without its query; empty for a handler."""
    failing_parts: int
    """How many parts of the event log have a delivery that fails."""
    failing_since: float
    """The unix second of the first failed attempt of those; 0 if none fails."""
    oldest_event_at: float
    """The unix second at which the oldest event of those happened; 0 if none fails."""
    next_attempt_at: float
    """The unix second of the next attempt; 0 if none fails."""
    error: str
    """Why the oldest one fails."""
    dead_letters: int


class Replay(NamedTuple):
    """What became of dead letters that were delivered again."""

    replayed: int
    """How many were taken, and are dead letters no longer."""
    outcome: Outcome


class DeadLetters:
    """Shows and handles the dead letters of a node's subscribers. Methods raise Refused and EngineError.

    A subscriber is named by its full name, such as `webhooks.app`, or a webhook by its own, `app`. `clock`
    returns unix seconds.
    """

    def __init__(self, deliveries: Deliveries, clock: Callable[[], float] = time.time) -> None:
        self._deliveries = deliveries
        self._store = deliveries.store
        self._clock = clock

    async def status(self) -> Sequence[SubscriberStatus]:
        """Return the status of every subscriber."""
        return [await self._status_of(subscriber) for subscriber in self._deliveries.subscribers]

    async def read(self, name: str, limit: int, after: str) -> Sequence[StoredDeadLetter]:
        """Return the oldest dead letters, or those that follow the one with the id `after`."""
        try:
            return await self._store.read_dead_letters(self._find(name).name, limit, after)
        except ValueError as error:
            raise Refused(errors.bad_request(str(error))) from None

    async def replay(self, name: str, ids: Sequence[str]) -> Replay:
        """Deliver dead letters in one attempt, oldest first, and remove them if the subscriber takes them.

        Without ids these are the oldest ones. At most one batch is delivered. Ids that no dead letter
        has are ignored.
        """
        subscriber = self._find(name)
        size = subscriber.options.batch_size
        found = await self._chosen(subscriber, ids, size)
        if not found:
            return Replay(0, Outcome(Result.DELIVERED))
        events = [_decode_event(one.letter.event) for one in found]
        outcome = await subscriber.deliver(_replay_id([one.id for one in found]), events)
        if outcome.result is not Result.DELIVERED:
            return Replay(0, outcome)
        await self._store.remove_dead_letters(subscriber.name, [one.id for one in found])
        return Replay(len(found), outcome)

    async def discard(self, name: str, ids: Sequence[str]) -> int:
        """Remove dead letters; without ids, at most PAGE of the oldest. Return how many there were."""
        subscriber = self._find(name)
        if not ids:
            ids = [one.id for one in await self._store.read_dead_letters(subscriber.name, PAGE)]
        try:
            return await self._store.remove_dead_letters(subscriber.name, ids)
        except ValueError as error:
            raise Refused(errors.bad_request(str(error))) from None

    def _find(self, name: str) -> Subscriber:
        found = self._deliveries.find(name) or self._deliveries.find(WEBHOOK_PREFIX + name)
        if found is None:
            raise Refused(errors.because(errors.NOT_FOUND, f"this node has no webhook {name[:64]!r}"))
        return found

    async def _chosen(
        self, subscriber: Subscriber, ids: Sequence[str], size: int
    ) -> Sequence[StoredDeadLetter]:
        if not ids:
            return await self._store.read_dead_letters(subscriber.name, size)
        wanted, found, after = set(ids), list[StoredDeadLetter](), ""
        while wanted:
            page = await self._store.read_dead_letters(subscriber.name, PAGE, after)
            found += [one for one in page if one.id in wanted]
            wanted -= {one.id for one in page}
            if len(page) < PAGE:
                break
            after = page[-1].id
        return found[:size]

    async def _status_of(self, subscriber: Subscriber) -> SubscriberStatus:
        failing: Sequence[FailingDelivery] = list((await self._store.failing(subscriber.name)).values())
        oldest = min(failing, key=lambda one: one.oldest_event_at, default=None)
        return SubscriberStatus(
            subscriber.name,
            subscriber.shown_url if isinstance(subscriber, Webhook) else "",
            failing_parts=len(failing),
            failing_since=min((one.failing_since for one in failing), default=0.0),
            oldest_event_at=oldest.oldest_event_at if oldest else 0.0,
            next_attempt_at=min((one.next_attempt_at for one in failing), default=0.0),
            error=oldest.error if oldest else "",
            dead_letters=await self._store.count_dead_letters(subscriber.name),
        )


def _replay_id(ids: Sequence[str]) -> str:
    """The delivery id of a replay. It is not that of the delivery that failed, whose receiver may have it."""
    return sha256("\n".join(("replay", *ids)).encode()).hexdigest()[:32]
