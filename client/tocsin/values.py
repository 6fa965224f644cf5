"""What a caller is given: positions, publications, and the events of a subscription."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Self

from msgspec import Struct, field


class Position(Struct, frozen=True):
    """A place in a channel's log. Offsets compare only within one epoch; ``str()`` gives ``offset@epoch``."""

    offset: int
    epoch: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``offset@epoch`` back; ``ValueError`` says what was expected instead."""
        offset, at, epoch = text.partition("@")
        if not (at and offset.isascii() and offset.isdigit()):
            raise ValueError(f"{text!r} is not a position: expected offset@epoch, for example 42@kxQvTzLm")
        return cls(int(offset), epoch)

    def __str__(self) -> str:
        return f"{self.offset}@{self.epoch}"


class ClientInfo(Struct, frozen=True):
    """Who published, joined or is present; ``client`` is a connection's id, ``user`` "" if anonymous."""

    user: str = ""
    client: str = ""
    conn_info: Any = None
    chan_info: Any = None


class Publication(Struct, frozen=True):
    """One message of a channel.

    ``offset`` is 0 in a channel without a log. ``info`` is there only when a client published, not the HTTP
    API. ``time`` is in milliseconds, 0 when the server does not say.
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
        """Where to resume after this message; None where the server does not promise that."""
        return Position(self.offset, self.epoch) if self.offset and self.epoch else None


class Subscribed(Struct, frozen=True):
    """A channel is live from ``position`` on; comes again after every interruption.

    ``recovered`` is True when nothing was missed since the last position, False when something may have been
    (load the state anew), None when there was nothing to miss: the first subscription.
    """

    channel: str
    recovered: bool | None = None
    position: Position | None = None
    data: Any = None


class Unsubscribed(Struct, frozen=True):
    """A subscription is over for good; the code is of protocol §9, or the error that refused it (§7)."""

    channel: str
    code: int
    reason: str


class Joined(Struct, frozen=True):
    """Somebody subscribed to the channel."""

    channel: str
    info: ClientInfo


class Left(Struct, frozen=True):
    """Somebody left the channel."""

    channel: str
    info: ClientInfo


class State(StrEnum):
    """Where a connection stands; CONNECTING includes waiting before the next attempt."""

    DISCONNECTED = "disconnected"
    CONNECTING = "connecting"
    CONNECTED = "connected"


class StateChanged(Struct, frozen=True):
    """The connection went into ``state``; code and reason say why (protocol §8; 0 is the client's own)."""

    state: State
    code: int = 0
    reason: str = ""


class History(Struct, frozen=True):
    """A page of a channel's log, and the log's top."""

    publications: list[Publication]
    position: Position


class PresenceStats(Struct, frozen=True):
    """How many connections, and how many distinct users, are in a channel."""

    num_clients: int = 0
    num_users: int = 0


ChannelEvent = Publication | Subscribed | Unsubscribed | Joined | Left
Event = ChannelEvent | StateChanged
