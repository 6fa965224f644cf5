"""The broker interface: stores a channel's history and carries publications to every subscribed node."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from msgspec import Struct

from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core.positions import History
from tocsin_server.eager_future import EagerFuture
from tocsin_server.protocol.messages import ClientInfo, Position, Publication, Push
from tocsin_server.protocol.payloads import Payload

NO_POSITION = Position(0, "")
"""The result of a publish into a channel that keeps no history."""

IDEMPOTENCY_SECONDS = 300
"""How long the first result for an idempotency key is remembered (docs/protocol.md §14)."""

IdempotencyKey = tuple[str, str]
"""A channel, and an idempotency key within it."""


class NewPublication(Struct, frozen=True):
    """A publication that has no offset yet."""

    data: Payload
    info: ClientInfo | None = None
    tags: dict[str, str] | None = None
    skip_history: bool = False
    idempotency_key: str = ""
    """Within one channel, each key is published once.

    Later publishes with the key return the first result.
    """
    idempotency_seconds: int = IDEMPOTENCY_SECONDS
    """How long the first result is remembered, unless `expire_keys` shortens it."""
    version: int = 0
    """If above 0 in a channel with history: published only if it is above the last published version."""
    version_epoch: str = ""
    """Versions compare only within one version epoch. An empty one compares with any."""
    delta: bool = False
    """Subscribers that use deltas may get it as one, as with the channel's `delta_publish`."""

    def may_be_delta(self, options: ChannelOptions) -> bool:
        """Whether it may be delivered as a delta. Nodes without deltas do not know such messages."""
        return bool(options.allowed_delta_types) and (self.delta or options.delta_publish)


class HistoryQuery(Struct, frozen=True):
    """Which part of a channel's history to read.

    Forward, the result holds offsets above `since`, oldest first. In reverse, it holds offsets below
    `since`, newest first. Without `since`, reading begins at the oldest or the newest publication. A
    `limit` of 0 reads only the top; a negative one reads everything. The epoch of `since` is not compared.

    With `limit_bytes` the result ends before the publication with which it would exceed this size. It has at
    least one publication, if there is one, unless it `may_be_empty`.
    """

    since: Position | None = None
    limit: int = 0
    is_reverse: bool = False
    limit_bytes: int = 0
    """0: no limit."""
    may_be_empty: bool = False
    """Whether the result may be empty although there is a publication, which exceeds `limit_bytes`."""
    keeps_epoch: bool = False
    """Whether the store remembers for a minute the epoch of a history without publications.

    For the repeated reads of a node whose clients are in the channel.
    """


TOP_ONLY = HistoryQuery()


class BrokerHandler(Protocol):
    """The callbacks of a broker, implemented by the node. All are synchronous and never raise."""

    def on_publication(
        self,
        channel: str,
        publication: Publication,
        epoch: str,
        published_at: float,
        *,
        may_be_delta: bool,
    ) -> None:
        """A publication was received in a channel to which this node is subscribed.

        `epoch` is empty and the offset 0 if the publication is not in the channel's history. `published_at`
        is the second at which some node passed it to its engine, by this node's monotonic clock, or 0 if
        unknown. `may_be_delta`: subscribers that use deltas may get it as one. What is read from history they
        always get whole. The engine may keep `publication` itself in its history, so the handler must not
        change it.
        """

    def on_join_leave(self, channel: str, push: Push) -> None:
        """A join or leave was received in a channel to which this node is subscribed."""

    def on_resubscribed(self, channels: Collection[str]) -> None:
        """The subscription to these channels was interrupted and is restored.

        Messages that were published in the meantime may be lost. For channels with positions, the handler
        must read the history after its last position.
        """


class Broker(Protocol):
    """The broker of one node.

    Every method raises EngineError if the engine cannot do its work. Then nothing was stored or published,
    unless the error says that the outcome is unknown. A publish with an unknown outcome can be repeated
    safely with an idempotency key. Calls take effect in the order in which they are made.
    """

    async def publish(self, channel: str, publication: NewPublication, options: ChannelOptions) -> Position:
        """Store a publication if the channel keeps history, and publish it, in one atomic step.

        Returns the publication's position. Without history or with `skip_history` this is NO_POSITION. For a
        repeated idempotency key it is the first result; for an outdated version it is the current top. Raises
        EngineFull if the publication would begin a history in a store that is nearly full.
        """

    def begin_publish(
        self, channel: str, publication: NewPublication, options: ChannelOptions
    ) -> Position | EagerFuture[Position]:
        """Publish as `publish` does. Returns the position, or a future of it if it has to be waited for."""

    async def expire_keys(self, keys: Sequence[IdempotencyKey]) -> None:
        """Remember the results for these keys for IDEMPOTENCY_SECONDS from now, and no longer.

        A key without a result is ignored.
        """

    async def publish_join_leave(self, channel: str, push: Push) -> None:
        """Publish a join or leave. It is not stored."""

    async def subscribe(self, channel: str) -> None:
        """Subscribe this node to a channel. Idempotent.

        Once this returns, the handler receives every message that is published in the channel.
        """

    def subscribe_now(self, channel: str) -> bool:
        """Subscribe as `subscribe` does, if that needs no waiting. False: it does, and nothing was done.

        Raises nothing, as the other calls that return at once and have nothing to store.
        """

    async def unsubscribe(self, channel: str) -> None:
        """Unsubscribe this node from a channel. Idempotent."""

    def unsubscribe_now(self, channel: str) -> bool:
        """Unsubscribe as `unsubscribe` does, if that needs no waiting. False: it does."""

    async def read_history(self, channel: str, query: HistoryQuery, options: ChannelOptions) -> History:
        """Read a channel's history and its top in one atomic step.

        A history has an epoch even before its first publication: the initial epoch, which is the same on all
        nodes. The first publication keeps it. Reading such a history stores nothing (but see
        `HistoryQuery.keeps_epoch`).
        """

    def read_history_now(self, channel: str, query: HistoryQuery, options: ChannelOptions) -> History | None:
        """Read a history as `read_history` does, if that needs no waiting. None: it does."""

    async def remove_history(self, channel: str) -> None:
        """Remove a channel's stored publications. The top and the epoch stay."""
