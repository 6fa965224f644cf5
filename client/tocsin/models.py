"""The values that a caller gets: positions, publications, and the events of a subscription."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Self

from msgspec import Meta, Struct, field

Offset = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""An offset as a server may send it: an integer that each JSON codec can write again."""
LONGEST_OFFSET = len(str(2**63 - 1))


class Position(Struct, frozen=True):
    """An offset in a channel's history, and its epoch. Offsets compare only within one epoch.

    ``str()`` gives ``offset@epoch``.
    """

    offset: Offset
    epoch: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``offset@epoch``. Raises ``ValueError`` with the expected form."""
        offset, at, epoch = text.partition("@")
        if not (at and offset.isascii() and offset.isdigit() and len(offset) <= LONGEST_OFFSET):
            raise ValueError(
                f"{text[:100]!r} is not a position: expected offset@epoch, for example 42@kxQvTzLm"
            )
        return cls(int(offset), epoch)

    def __str__(self) -> str:
        return f"{self.offset}@{self.epoch}"


class ClientInfo(Struct, frozen=True):
    """A client that published, joined or is present. ``user`` is empty if it is anonymous."""

    user: str = ""
    client: str = ""
    conn_info: Any = None
    chan_info: Any = None


class Publication(Struct, frozen=True):
    """One publication of a channel.

    ``offset`` is 0 in a channel without history. ``info`` is None unless a client published it. ``time`` is
    in Unix milliseconds, or 0 when the server does not send it. ``data`` is ``bytes`` where a history of the
    HTTP API has a payload that is no JSON.
    """

    channel: str
    data: Any
    offset: int = 0
    epoch: str = ""
    info: ClientInfo | None = None
    tags: dict[str, str] = field(default_factory=dict)
    time: int = 0

    @property
    def position(self) -> Position | None:
        """The position from which to recover after this publication. None without history."""
        return Position(self.offset, self.epoch) if self.offset and self.epoch else None


class Subscribed(Struct, frozen=True):
    """A channel is live from ``position`` on. Sent for the first subscription and after each interruption.

    ``recovered`` is True when no publication was missed since the last position, and False when some may have
    been missed, so that the caller must load the state again. It is None for the first subscription.
    """

    channel: str
    recovered: bool | None = None
    position: Position | None = None
    data: Any = None


class Unsubscribed(Struct, frozen=True):
    """A subscription ended for good. The code is an unsubscribe code (protocol §9) or an error code (§7)."""

    channel: str
    code: int
    reason: str


class Joined(Struct, frozen=True):
    """A client subscribed to the channel."""

    channel: str
    info: ClientInfo


class Left(Struct, frozen=True):
    """A client left the channel."""

    channel: str
    info: ClientInfo


class State(StrEnum):
    """The state of a client's connection. CONNECTING includes the wait before the next attempt."""

    DISCONNECTED = "disconnected"
    CONNECTING = "connecting"
    CONNECTED = "connected"


class StateChanged(Struct, frozen=True):
    """The connection changed to ``state``, for this reason.

    ``code`` is a close code (protocol §8), or 0 if the client itself is the cause.
    """

    state: State
    code: int = 0
    reason: str = ""


class History(Struct, frozen=True):
    """A page of a channel's history, and the position of its top."""

    publications: list[Publication]
    position: Position


class PresenceStats(Struct, frozen=True):
    """The numbers of connections and of distinct users in a channel."""

    num_clients: int = 0
    num_users: int = 0


ChannelEvent = Publication | Subscribed | Unsubscribed | Joined | Left
Event = ChannelEvent | StateChanged
