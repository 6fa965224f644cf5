"""The broker: channels' logs, and the way of a publication to every node that hears its channel."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from msgspec import Raw, Struct

from tocsin_server.config.options import ChannelOptions
from tocsin_server.core.positions import History
from tocsin_server.protocol.messages import ClientInfo, Position, Publication, Push

NO_POSITION = Position(0, "")
"""What a publish answers where the channel keeps no log."""

IDEMPOTENCY_SECONDS = 300
"""How long the first answer to an idempotency key is remembered (protocol §14)."""


class NewPublication(Struct, frozen=True):
    """A publication before it has a place in a log."""

    data: Raw
    """One JSON value without line breaks (`protocol.compact`)."""
    info: ClientInfo | None = None
    tags: dict[str, str] | None = None
    skip_history: bool = False
    idempotency_key: str = ""
    """Within one channel the same key is published once; later calls get the first answer."""
    version: int = 0
    """Above 0, in a channel with a log: published only if above the last version that was published there."""
    version_epoch: str = ""
    """Versions compare only within one; the log remembers the last. An empty one compares with any."""


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """Which part of a log to read.

    Forward: offsets above `since`, oldest first; reverse: below it, newest first. Without `since` from the
    oldest or the newest on. `limit` 0 reads only the top, a negative one everything. The epoch in `since` is
    not compared here.
    """

    since: Position | None = None
    limit: int = 0
    is_reverse: bool = False


TOP_ONLY = HistoryQuery()


class BrokerHandler(Protocol):
    """Who a broker tells what it hears: the node. All are synchronous and never raise."""

    def on_publication(self, channel: str, publication: Publication, epoch: str, published_at: float) -> None:
        """A publication was announced in a channel this node listens to.

        `epoch` is empty, and the offset 0, where no log holds it. `published_at` is when some node gave it to
        its engine, by this node's monotonic clock, or 0 if that is not known. The engine may keep
        `publication` itself in its log, so nobody changes it.
        """

    def on_join_leave(self, channel: str, push: Push) -> None:
        """A join or a leave was announced in a channel this node listens to."""

    def on_resubscribed(self, channels: Collection[str]) -> None:
        """The link to these channels was broken, and is whole again.

        What was announced meanwhile was not heard: whoever follows positions reads the logs from where they
        stood.
        """


class Broker(Protocol):
    """One per node.

    Every method raises EngineError if the engine cannot do it. Then nothing was stored or announced, unless
    the error says that the outcome is unknown: a publish whose answer was lost may have happened, and with
    an idempotency key it can be repeated safely. Calls are carried out in the order in which they were
    made.
    """

    async def publish(self, channel: str, draft: NewPublication, options: ChannelOptions) -> Position:
        """Append to the log if the channel keeps one and announce, in one atomic step.

        Answers the publication's position; NO_POSITION without a log or with `skip_history`; the first answer
        for a repeated idempotency key; the current top for an outdated version.
        """

    async def publish_join_leave(self, channel: str, push: Push) -> None:
        """Announce a join or leave, without a log."""

    async def subscribe(self, channel: str) -> None:
        """Hear a channel: once this returns, whatever is published reaches the audience. Idempotent."""

    async def unsubscribe(self, channel: str) -> None:
        """Hear a channel no more. Idempotent."""

    async def read_history(self, channel: str, query: HistoryQuery, options: ChannelOptions) -> History:
        """Read a log and its top as of one moment.

        The log gets an epoch by being read, also before its first publication.
        """

    async def remove_history(self, channel: str) -> None:
        """Drop what a log keeps. Its top and epoch stay."""
