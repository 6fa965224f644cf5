"""Batches: the messages of a channel that are delivered together, and which subscribers get which of them.

The subscribers of a batch are those that the channel had when it was taken. What they get is determined one
group after the other, while the batch is being written, so that many different tags filters never delay
anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from msgspec import Struct

from tocsin_server.core.channel_message import ChannelMessage, encodable
from tocsin_server.core.form import PLAIN, Form
from tocsin_server.core.tags_filter import NO_TAGS, TagsFilter
from tocsin_server.protocol.codec import Codec

COMPARISONS_PER_WRITE = 4
"""So many comparisons of a publication with a filter take as long as one write to a transport."""

DELTA_BYTES_PER_WRITE = 40
"""Making deltas of payloads of so many bytes does, too: 8 KiB in a millisecond."""

DELTA_SLICE_BYTES = 8192
"""After the deltas of so many bytes the caller goes on, so that it can end its slice."""

REMEMBERED_FILTERS = 64
"""Of so many filters the outcome is remembered while a batch is written, for groups of the same filter."""


class Framing(Protocol):
    """How a transport packs messages that many subscribers share: once, then written to each."""

    @property
    def codec(self) -> Codec:
        """How the messages are encoded."""

    def pack(self, channel: str, messages: Sequence[ChannelMessage]) -> Any:
        """Return one payload that carries all `messages` in order. `len()` of it is its size in bytes.

        Raises PayloadNotJson where the codec cannot encode one of them.
        """


class SubscriberConnection(Protocol):
    """What a channel needs of a connection."""

    @property
    def framing(self) -> Framing:
        """How the connection's transport packs shared messages."""

    @property
    def write(self) -> Callable[[Any], object]:
        """Write a packed payload. Never waits; a slow client is disconnected by its transport."""


C = TypeVar("C", bound=SubscriberConnection)


class Subscriber(Struct, Generic[C], eq=False):
    """A connection in a channel's fan-out. After `retire` nothing is written to it, even mid-batch."""

    connection: C
    write: Callable[[Any], object]
    """That of the connection, as long as it is not retired."""
    start_offset: int
    """The client has everything up to this offset."""
    receives_joins: bool
    form: Form = PLAIN
    live_since_count: int = 0
    """The channel's message count when this subscriber went live."""

    @property
    def is_retired(self) -> bool:
        """Whether nothing is written to it any longer."""
        return self.write is _discard

    def retire(self) -> None:
        """Stop writing to this subscriber."""
        self.write = _discard


def _discard(_payload: Any) -> None:
    """Replace the `write` of a retired subscriber."""


class Group(NamedTuple, Generic[C]):
    """Subscribers that get the same of a batch."""

    framing: Framing
    form: Form
    subscribers: list[Subscriber[C]]
    skipped: int = 0
    """How many messages of the batch are before their subscriptions."""
    has_base: bool = True
    """Whether their clients have the publication before the batch, so that the first may be a delta."""


Recipients = tuple[Framing, list[Subscriber[C]], list[ChannelMessage]]


class Batch(Generic[C]):
    """Messages that are delivered together, and for each framing and form which subscribers get which."""

    __slots__ = ("_outcomes", "divides_joins", "groups", "messages", "work")

    def __init__(self, messages: list[ChannelMessage]) -> None:
        self.messages = messages
        self.groups: list[Group[C]] = []
        self.divides_joins = False
        """Whether it has joins or leaves that some of the subscribers do not receive."""
        self.work = 0
        """What determining the recipients has taken so far, in small writes to a transport."""
        self._outcomes: dict[TagsFilter, list[bool]] = {}

    @property
    def published_at(self) -> float:
        """When its oldest publication with a known time was published; 0 if no time is known."""
        for message in self.messages:
            if message.published_at:
                return message.published_at
        return 0.0

    @property
    def recipients(self) -> Iterator[Recipients[C]]:
        """For each framing and form: the subscribers, and what they get; neither, if that is nothing."""
        for framing, form, subscribers, skipped, has_base in self.groups:
            messages = self.messages[skipped:] if skipped else self.messages
            if form.tags_filter is not None:
                messages = self.matching(form.tags_filter, skipped)
            elif form.uses_delta:
                messages = as_deltas(messages, has_base=has_base)
                yield from self._make_deltas(framing, messages)
            if not messages:
                yield framing, [], []
            elif self.divides_joins:
                yield from _by_joins(framing, subscribers, messages)
            else:
                yield framing, subscribers, messages

    def _make_deltas(self, framing: Framing, messages: list[ChannelMessage]) -> Iterator[Recipients[C]]:
        """Encode messages before they are packed. Yields no recipients, after each part of the work."""
        size = 0
        for message in messages:
            if not encodable((message,), framing.codec):
                return  # nothing after it is delivered
            size += message.size
            if size >= DELTA_SLICE_BYTES:
                self.work += size // DELTA_BYTES_PER_WRITE
                size = 0
                yield framing, [], []

    def matching(self, tags_filter: TagsFilter, skipped: int = 0) -> list[ChannelMessage]:
        """The publications after the skipped messages that match a filter, and all joins and leaves."""
        outcomes = self._outcomes.get(tags_filter)
        if outcomes is None:
            if len(self._outcomes) >= REMEMBERED_FILTERS:
                self._outcomes.clear()
            outcomes = [is_for(message, tags_filter) for message in self.messages]
            self._outcomes[tags_filter] = outcomes
            self.work += len(outcomes) // COMPARISONS_PER_WRITE
        numbered = enumerate(self.messages)
        return [message for number, message in numbered if number >= skipped and outcomes[number]]


def is_for(message: ChannelMessage, tags_filter: TagsFilter) -> bool:
    """Whether a subscriber with this filter gets a message. It gets every join and leave."""
    publication = message.push.pub
    return publication is None or tags_filter.matches(publication.tags or NO_TAGS)


def as_deltas(messages: Sequence[ChannelMessage], *, has_base: bool) -> list[ChannelMessage]:
    """Consecutive messages of a channel as deltas; without a base the first publication whole."""
    found: list[ChannelMessage] = []
    for message in messages:
        found.append(message.delta if has_base else message.quoted)
        has_base = has_base or message.is_publication
    return found


def whole(messages: Sequence[ChannelMessage], form: Form) -> Sequence[ChannelMessage]:
    """Messages in a form, but none as a delta: for one subscriber that may lack any of those before."""
    if form.tags_filter is not None:
        return [message for message in messages if is_for(message, form.tags_filter)]
    return [message.quoted for message in messages] if form.uses_delta else messages


def _by_joins(
    framing: Framing, subscribers: list[Subscriber[C]], messages: list[ChannelMessage]
) -> Iterator[Recipients[C]]:
    """Divide subscribers into those that receive joins and those that do not."""
    publications = [message for message in messages if message.is_publication]
    for receives_joins, theirs in ((True, messages), (False, publications)):
        group = [other for other in subscribers if other.receives_joins is receives_joins]
        if group and theirs:
            yield framing, group, theirs
