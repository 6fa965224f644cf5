"""Lifecycle events: what an application is told about sessions and channels, and what a node writes of them.

    session   connected -> subscribed <-> unsubscribed -> … -> disconnected
    channel   occupied <-> vacated                             over all nodes

Values only. `core/lifecycle_recorder.py` makes them from the effects of sessions, an engine's event log
(engine/event_log.py) keeps them until every subscriber has acknowledged them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple
from zlib import crc32

from msgspec import Struct

from tocsin_server.config.event_options import EventType
from tocsin_server.errors import Disconnect, Unsubscribed

SESSION_TYPES: frozenset[EventType] = frozenset(
    ("connected", "disconnected", "subscribed", "unsubscribed", "cache_empty")
)
"""The types of events of one session. They have a client, a user and a sequence."""

CHANNEL_TYPES: frozenset[EventType] = frozenset(("occupied", "vacated"))
"""The types of events of a channel over all nodes."""


CLIENT_UNSUBSCRIBED = Unsubscribed(0, "client unsubscribed")
CLIENT_DISCONNECTED = Unsubscribed(1, "client disconnected")
CLIENT_LEFT = Disconnect(3000, "connection closed")
NODE_DIED = Disconnect(3020, "node died")
"""Reasons that no client is told, so that they are not in `errors.py`. The first three are centrifuge's."""


class LifecycleEvent(Struct, frozen=True, omit_defaults=True, gc=False):
    """One lifecycle event. It is delivered at least once; a repeated delivery has the same `id`."""

    type: EventType
    id: str
    """Unique for the event."""
    time: float
    """When it happened, in unix seconds of the node's clock."""
    node: str = ""
    """The name of the node that has, or had, the session; for a channel, of the node that caused it."""
    client: str = ""
    user: str = ""
    sequence: int = 0
    """Rises with every event of the session. 0 for events of channels."""
    channel: str = ""
    transport: str = ""
    """How the session is connected, as in metrics. Empty in events of channels."""
    code: int = 0
    """Why, in `disconnected` and `unsubscribed`: a code of `errors.py` or of the application."""
    reason: str = ""

    @property
    def key(self) -> str:
        """What decides its part: events of one session, or of one channel, are in the same part."""
        return self.client or self.channel


def part_of(key: str, parts: int) -> int:
    """The part of an event log that has the events of a client or of a channel."""
    return crc32(key.encode(errors="surrogatepass")) % parts


class SessionRecord(Struct, frozen=True, array_like=True, gc=False):
    """What the store knows of one live session, so that another node can say its end."""

    user: str
    transport: str
    sequence: int
    """That of its last event."""
    channels: tuple[str, ...] = ()
    """The channels in which it is subscribed, in the order of its subscriptions."""


class EventBatch(NamedTuple):
    """What a node writes in one step.

    A node writes its batches one after the other. One with an unknown outcome is written again unchanged.
    """

    number: int
    """1, 2, 3 … since the node began to write; after a new beginning, 1 again."""
    events: Sequence[LifecycleEvent]
    """In their order. `occupied` and `vacated` mean this node: the log decides for all nodes."""
    sessions: Mapping[str, SessionRecord | None]
    """The sessions that changed, by client id, as they are after `events`. None: it ended."""


class WriteOutcome(Enum):
    """What became of a batch."""

    WRITTEN = "written"
    """It is in the log, by this or by an earlier attempt."""
    REAPED = "reaped"
    """It is not. Other nodes took this node for dead, and said the end of all that the log knew of it."""
    WRITTEN_AND_REAPED = "written and reaped"
    """An earlier attempt wrote it. Then the same happened."""
    STATE_LOST = "state lost"
    """It may be in the log or not, because the store has lost data. It must be told all sessions again."""


def ends_of(client: str, record: SessionRecord, node: str, now: float) -> list[LifecycleEvent]:
    """What a node that died could not say of a session: the end of each subscription, and its own.

    Their ids differ from all that the node itself has used.
    """
    ends: list[tuple[EventType, str, Disconnect | Unsubscribed]] = [
        ("unsubscribed", channel, CLIENT_DISCONNECTED) for channel in record.channels
    ]
    ends.append(("disconnected", "", NODE_DIED))
    return [
        LifecycleEvent(
            type=kind,
            id=f"{client}-{sequence}-reaped",
            time=now,
            node=node,
            client=client,
            user=record.user,
            sequence=sequence,
            channel=channel,
            transport=record.transport,
            code=why.code,
            reason=why.reason,
        )
        for sequence, (kind, channel, why) in enumerate(ends, record.sequence + 1)
    ]
