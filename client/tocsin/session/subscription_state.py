"""The state of one subscription of a session: its phase, token, position and deadlines (pure).

idle → (authorizing →) subscribing → subscribed; an interruption returns it to idle
"""

from __future__ import annotations

from typing import Any

from tocsin import backoff
from tocsin.models import Position
from tocsin.protocol.messages import SubscribeRequest

from .phases import SubscriptionPhase
from .positions import PositionTracker


class SubscriptionState:
    """One subscription. Only ``Subscriptions`` changes it, once it is added there.

    ``subscribe_at`` and ``refresh_at`` are deadlines: when to subscribe again, and when to renew the token;
    None means never. ``is_paused``: the reader is too far behind, so the channel stays unsubscribed and keeps
    its position. ``is_server_side``: the server subscribed the connection, and no command may do so.
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
        self.tracker = PositionTracker(name, since)
        self.token = token
        self.has_provider = has_provider
        self.is_server_side = is_server_side
        self.phase = SubscriptionPhase.IDLE
        self.is_paused = False
        self.is_refreshing = False
        self.subscribe_id = 0
        self.subscribe_at: float | None = None
        self.refresh_at: float | None = None
        self._interruptions = 0
        self._early_refreshes = 0  # in a row, each later than the server said
        self._data = data
        self._wants_join_leave = wants_join_leave
        self._live_since = 0.0

    @property
    def is_live(self) -> bool:
        """True from the subscribe reply until the subscription is interrupted or ends."""
        return self.phase is SubscriptionPhase.SUBSCRIBED

    @property
    def needs_token(self) -> bool:
        """True if the provider must be called before the next subscribe command."""
        return self.has_provider and not self.token

    def request(self) -> SubscribeRequest:
        """Return the body of the subscribe command. It recovers from the position, if there is one."""
        position = self.tracker.position
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

    def reset(self) -> None:
        """Return to idle without deadlines. The position stays."""
        self.phase = SubscriptionPhase.IDLE
        self.subscribe_id = 0
        self.is_refreshing = False
        self.subscribe_at = self.refresh_at = None

    def go_live(self, now: float, ttl: int | None) -> None:
        """Handle the subscribe reply. ``ttl``: the seconds until the token is renewed; None: never."""
        self.reset()
        self.phase = SubscriptionPhase.SUBSCRIBED
        if ttl is not None:
            self.refresh_after(ttl, now)
        self._live_since = now

    def refresh_after(self, ttl: int, now: float) -> None:
        """Schedule the renewal of a token that lasts ``ttl`` seconds, as the server says."""
        delay = backoff.refresh_delay(ttl, self._early_refreshes)
        self._early_refreshes = self._early_refreshes + 1 if ttl < delay else 0
        self.refresh_at = now + delay

    def count_interruption(self, now: float) -> int:
        """Count one more interruption, and return how many there were shortly before it."""
        if self.is_live and now - self._live_since >= backoff.STEADY_SECONDS:
            self._interruptions = 0
        self._interruptions += 1
        return self._interruptions - 1
