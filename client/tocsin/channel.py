"""One channel of a session: whether it is live, its token, its stream and what is due for it (pure).

idle → (authorizing →) subscribing → subscribed, and back to idle whenever that breaks.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Any

from .protocol import SubscribeRequest
from .stream import Stream
from .values import Position

STEADY_SECONDS = 10.0  # live for this long, a subscription's past failures are forgotten


class Phase(Enum):
    """What a subscription waits for."""

    IDLE = auto()
    AUTHORIZING = auto()
    SUBSCRIBING = auto()
    SUBSCRIBED = auto()


class Channel:
    """What a session knows of one subscription.

    ``due`` is when to subscribe again, ``refresh_due`` when its token must be renewed; None when nothing is
    due. ``is_paused`` while its reader is too far behind: it stays off the wire and keeps its position.
    """

    def __init__(
        self,
        name: str,
        *,
        since: Position | None = None,
        token: str = "",
        has_provider: bool = False,
        data: Any = None,
        wants_join_leave: bool = False,
        is_server_side: bool = False,
    ) -> None:
        self.name = name
        self.stream = Stream(name, since)
        self.token = token
        self.has_provider = has_provider
        self.is_server_side = is_server_side
        self.phase = Phase.IDLE
        self.is_paused = False
        self.is_refreshing = False
        self.attempt = 0
        self.subscribe_id = 0
        self.due: float | None = None
        self.refresh_due: float | None = None
        self._data = data
        self._wants_join_leave = wants_join_leave
        self._live_since = 0.0

    @property
    def is_live(self) -> bool:
        """Publications count only between the subscribe reply and the end of the subscription."""
        return self.phase is Phase.SUBSCRIBED

    @property
    def needs_token(self) -> bool:
        """A provider is asked for the first token, and for another one when a token expired."""
        return self.has_provider and not self.token

    def request(self) -> SubscribeRequest:
        """Ask for the channel, from the known position if there is one."""
        position = self.stream.position
        return SubscribeRequest(
            channel="" if self.is_server_side else self.name,
            token=self.token,
            data=self._data,
            recover=position is not None,
            offset=position.offset if position else 0,
            epoch=position.epoch if position else "",
            positioned=not self.is_server_side,
            recoverable=not self.is_server_side,
            join_leave=self._wants_join_leave,
        )

    def idle(self) -> None:
        """Nothing is under way any more; the position stays."""
        self.phase = Phase.IDLE
        self.subscribe_id = 0
        self.is_refreshing = False
        self.due = self.refresh_due = None

    def live(self, now: float, refresh_due: float | None) -> None:
        """The subscribe reply has come."""
        self.idle()
        self.phase = Phase.SUBSCRIBED
        self.refresh_due = refresh_due
        self._live_since = now

    def interruptions(self, now: float) -> int:
        """Count one more interruption, and say how many there were shortly before it."""
        if self.is_live and now - self._live_since >= STEADY_SECONDS:
            self.attempt = 0
        self.attempt += 1
        return self.attempt - 1
