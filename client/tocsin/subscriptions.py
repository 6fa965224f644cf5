"""A session's channels: subscribed, recovered, refreshed and ended as connections come and go (pure).

A channel that breaks is subscribed again from its position, at once the first time and with backoff when it
happens again soon, until the server refuses it for good or its owner drops it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from . import backoff
from .channel import Channel, Phase
from .effects import AskToken
from .errors import (
    CLIENT_BAD_PROTOCOL,
    CLIENT_UNAUTHORIZED,
    FIRST_RESUBSCRIBE_CODE,
    TOKEN_EXPIRED,
    TocsinError,
    is_temporary,
)
from .ledger import Ledger
from .protocol import ChannelRequest, Push, RefreshRequest, Reply, SubscribeResult, WireCode, WirePublication
from .stream import Verdict
from .values import Joined, Left, Unsubscribed

REFRESH_RETRY_SECONDS = 10.0
ALREADY_SUBSCRIBED = 105
SUBSCRIPTION_EXPIRED = 2501
SUBSCRIPTION_INVALIDATED = 2502


class Subscriptions:
    """All channels of one session, its own and those the server subscribed it to.

    ``reconnect`` is called with a reason when only a new connection can help.
    """

    def __init__(self, ledger: Ledger, random: Callable[[], float], reconnect: Callable[[str], None]) -> None:
        self._ledger = ledger
        self._random = random
        self._reconnect = reconnect
        self._channels: dict[str, Channel] = {}
        self._is_connected = False

    @property
    def deadline(self) -> float | None:
        """When the first channel needs something."""
        return min(
            (
                at
                for channel in self._channels.values()
                for at in (channel.due, channel.refresh_due)
                if at is not None
            ),
            default=None,
        )

    # --- the connection comes and goes

    def connected(self, given: dict[str, SubscribeResult]) -> None:
        """Go live with what the connect reply gives, end what it no longer gives, and subscribe the rest."""
        self._is_connected = True
        for name in [
            name for name, one in self._channels.items() if one.is_server_side and name not in given
        ]:
            self._finish(self._channels[name], 0, "no longer subscribed by the server")
        for name, result in given.items():
            self.give(name, result)
        for channel in list(self._channels.values()):
            self._start(channel)

    def disconnected(self) -> None:
        """Nothing is live any more; every position stays."""
        self._is_connected = False
        for channel in self._channels.values():
            channel.idle()

    def invalidate(self) -> None:
        """Forget every token and position (close code 3014)."""
        for channel in self._channels.values():
            channel.stream.forget()
            if channel.has_provider:
                channel.token = ""

    def recovery_requests(self) -> dict[str, Channel]:
        """Server-side channels with a position, for the connect command."""
        return {
            name: channel
            for name, channel in self._channels.items()
            if channel.is_server_side and channel.stream.position is not None
        }

    def give(self, name: str, result: SubscribeResult) -> None:
        """The server subscribed this connection to a channel by itself."""
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = Channel(name, is_server_side=True)
        if channel.is_server_side:
            self._go_live(channel, result)

    # --- the owner

    def add(self, channel: Channel) -> None:
        """Subscribe now, or as soon as there is a connection."""
        if channel.name in self._channels:
            self._ledger.tell(Unsubscribed(channel.name, ALREADY_SUBSCRIBED, "already subscribed"))
            return
        self._channels[channel.name] = channel
        self._start(channel)

    def remove(self, name: str) -> None:
        """Leave a channel; what still arrives for it is dropped."""
        channel = self._channels.pop(name, None)
        if channel is not None:
            self._leave(channel)
            self._ledger.tell(Unsubscribed(name, 0, "unsubscribed"))

    def pause(self, name: str) -> None:
        """Leave a channel for a while, keeping its position."""
        channel = self._channels.get(name)
        if channel is not None and not channel.is_server_side:
            channel.is_paused = True
            self._leave(channel)

    def resume(self, name: str) -> None:
        """Come back to a paused channel, and recover."""
        channel = self._channels.get(name)
        if channel is not None and channel.is_paused:
            channel.is_paused = False
            self._start(channel)

    # --- the server

    def take(self, push: Push) -> None:
        """React to a push of a channel; what is not live here, or not known, is dropped (protocol §15)."""
        channel = self._channels.get(push.channel)
        if push.subscribe is not None:
            self.give(push.channel, push.subscribe)
        elif channel is None or not channel.is_live:
            return
        elif push.pub is not None:
            self._publication(channel, push.pub)
        elif push.join is not None:
            self._ledger.tell(Joined(channel.name, push.join.info))
        elif push.leave is not None:
            self._ledger.tell(Left(channel.name, push.leave.info))
        elif push.unsubscribe is not None:
            self._unsubscribed(channel, push.unsubscribe)

    def token_found(self, name: str, token: str) -> None:
        """A provider gave a channel's token; an empty one means that there is no permission."""
        channel = self._channels.get(name)
        if channel is None or (channel.phase is not Phase.AUTHORIZING and not channel.is_refreshing):
            return
        if not token:
            self._refuse(channel, CLIENT_UNAUTHORIZED, "get_token gave no token")
            return
        channel.token = token
        if channel.is_refreshing:
            self._refresh(channel)
        else:
            channel.phase = Phase.IDLE
            self._start(channel)

    def token_failed(self, name: str, reason: str, *, is_final: bool) -> None:
        """A provider raised: try again later, unless it said that this is final."""
        channel = self._channels.get(name)
        if channel is None or (channel.phase is not Phase.AUTHORIZING and not channel.is_refreshing):
            return
        if is_final:
            self._refuse(channel, CLIENT_UNAUTHORIZED, reason)
        elif channel.is_refreshing:
            self._refresh_later(channel)
        else:
            self._again(channel)

    def expire(self) -> None:
        """Do what has become due."""
        now = self._ledger.now
        for channel in list(self._channels.values()):
            if channel.due is not None and channel.due <= now:
                channel.due = None
                self._start(channel)
            if channel.refresh_due is not None and channel.refresh_due <= now:
                channel.refresh_due = None
                channel.is_refreshing = True
                self._ledger.emit(AskToken(channel.name))

    # --- steps

    def _start(self, channel: Channel) -> None:
        may_start = self._is_connected and not channel.is_paused and not channel.is_server_side
        if not may_start or channel.phase is not Phase.IDLE or channel.due is not None:
            return
        if channel.needs_token:
            channel.phase = Phase.AUTHORIZING
            self._ledger.emit(AskToken(channel.name))
            return
        channel.phase = Phase.SUBSCRIBING
        channel.subscribe_id = self._ledger.ask(
            "subscribe", channel.request(), partial(self._answered, channel), partial(self._failed, channel)
        )

    def _answered(self, channel: Channel, reply: Reply) -> None:
        if channel.subscribe_id != reply.id:
            return  # left meanwhile
        if reply.error is not None:
            error = reply.error
            is_expired = error.code == TOKEN_EXPIRED
            if is_expired and channel.has_provider:
                channel.token = ""
            if is_temporary(error.code, error.temporary) and (channel.has_provider or not is_expired):
                self._again(channel)
            else:
                self._finish(channel, error.code, error.message)
        elif reply.subscribe is None:
            self._finish(channel, CLIENT_BAD_PROTOCOL, "the answer to subscribe has no result")
        else:
            self._go_live(channel, reply.subscribe)

    def _failed(self, channel: Channel, error: TocsinError) -> None:
        if self._is_connected and channel.phase is Phase.SUBSCRIBING:
            self._reconnect(f"subscribe timeout: {error}")

    def _go_live(self, channel: Channel, result: SubscribeResult) -> None:
        may_refresh = result.expires and channel.has_provider
        channel.live(self._ledger.now, self._ledger.now + result.ttl if may_refresh else None)
        for event in channel.stream.begin(result):
            self._ledger.tell(event)

    def _publication(self, channel: Channel, wire: WirePublication) -> None:
        verdict = channel.stream.offer(wire)
        if verdict is Verdict.NEXT:
            self._ledger.tell(channel.stream.publication(wire))
        elif verdict is Verdict.HOLE and channel.is_server_side:
            self._reconnect(f"a publication of {channel.name} is missing")
        elif verdict is Verdict.HOLE:
            self._leave_to_return(channel)

    def _leave_to_return(self, channel: Channel) -> None:
        """Recover on this connection: leave, and subscribe from the position."""
        interruptions = channel.interruptions(self._ledger.now)
        self._leave(channel)
        self._return(channel, interruptions)

    def _unsubscribed(self, channel: Channel, told: WireCode) -> None:
        if channel.is_server_side or told.code < FIRST_RESUBSCRIBE_CODE:
            self._finish(channel, told.code, told.reason)
            return
        if told.code in (SUBSCRIPTION_EXPIRED, SUBSCRIPTION_INVALIDATED) and channel.has_provider:
            channel.token = ""
        if told.code == SUBSCRIPTION_INVALIDATED:
            channel.stream.forget()
        interruptions = channel.interruptions(self._ledger.now)
        channel.idle()
        self._return(channel, interruptions)

    def _return(self, channel: Channel, interruptions: int) -> None:
        if interruptions:
            channel.due = self._ledger.now + backoff.delay(interruptions, self._random())
        self._start(channel)

    def _again(self, channel: Channel) -> None:
        attempt = channel.interruptions(self._ledger.now)
        channel.idle()
        channel.due = self._ledger.now + backoff.delay(attempt, self._random())

    def _leave(self, channel: Channel) -> None:
        on_wire = channel.phase in (Phase.SUBSCRIBING, Phase.SUBSCRIBED)
        channel.idle()
        if on_wire and self._is_connected:
            request = ChannelRequest(channel.name)
            self._ledger.ask("unsubscribe", request, self._left, self._could_not_leave)

    def _left(self, reply: Reply) -> None:
        if reply.error is not None:
            self._reconnect(f"unsubscribe error: {reply.error.message}")

    def _could_not_leave(self, error: TocsinError) -> None:
        if self._is_connected:
            self._reconnect(f"unsubscribe error: {error}")

    def _refuse(self, channel: Channel, code: int, reason: str) -> None:
        self._leave(channel)
        self._finish(channel, code, reason)

    def _finish(self, channel: Channel, code: int, reason: str) -> None:
        channel.idle()
        self._channels.pop(channel.name, None)
        self._ledger.tell(Unsubscribed(channel.name, code, reason))

    # --- refreshing

    def _refresh(self, channel: Channel) -> None:
        request = RefreshRequest(channel.token, channel.name)
        answered = partial(self._refreshed, channel)
        self._ledger.ask("sub_refresh", request, answered, lambda _: self._refresh_later(channel))

    def _refreshed(self, channel: Channel, reply: Reply) -> None:
        if not channel.is_live:
            return
        if reply.error is not None and not is_temporary(reply.error.code, reply.error.temporary):
            self._refuse(channel, reply.error.code, reply.error.message)
        elif reply.sub_refresh is None:
            self._refresh_later(channel)
        else:
            channel.is_refreshing = False
            due = self._ledger.now + reply.sub_refresh.ttl
            channel.refresh_due = due if reply.sub_refresh.expires else None

    def _refresh_later(self, channel: Channel) -> None:
        if channel.is_live:
            channel.is_refreshing = False
            channel.refresh_due = self._ledger.now + REFRESH_RETRY_SECONDS * (1 + self._random())
