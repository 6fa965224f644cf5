"""The subscriptions of a session: subscribe, recover, refresh and end them (pure).

An interrupted subscription is subscribed again from its position: at once the first time, and with backoff if
it is interrupted again soon. It ends when the server refuses it for good, or the caller unsubscribes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tocsin import backoff
from tocsin.errors import (
    CLIENT_BAD_PROTOCOL,
    CLIENT_UNAUTHORIZED,
    FIRST_RESUBSCRIBE_CODE,
    TOKEN_EXPIRED,
    BadProtocol,
    TocsinError,
    is_temporary,
)
from tocsin.models import Joined, Left, Unsubscribed
from tocsin.protocol.messages import (
    ChannelRequest,
    Push,
    RefreshRequest,
    Reply,
    SubscribeResult,
    WireCode,
    WirePublication,
)

from .commands import PendingCommands
from .effects import FetchToken
from .phases import SubscriptionPhase
from .positions import Verdict
from .subscription_state import SubscriptionState
from .turn import Turn

REFRESH_RETRY_SECONDS = 10.0
ALREADY_SUBSCRIBED = 105
SUBSCRIPTION_EXPIRED = 2501
SUBSCRIPTION_INVALIDATED = 2502
SUBSCRIPTION_LIMIT = 10_000  # a server may not add server-side subscriptions above it; servers permit 128
LONGEST_NAME = 4_096  # characters of a server-side channel's name; servers permit 255


class Subscriptions:
    """All subscriptions of one session: those of the caller, and those that the server created.

    The mutable state is the table of subscriptions, their ``SubscriptionState`` and ``_is_connected``; only
    this class changes it. It calls ``reconnect`` with a reason when only a new connection can help.
    """

    def __init__(
        self,
        turn: Turn,
        commands: PendingCommands,
        random: Callable[[], float],
        reconnect: Callable[[str], None],
    ) -> None:
        self._turn = turn
        self._commands = commands
        self._random = random
        self._reconnect = reconnect
        self._subscriptions: dict[str, SubscriptionState] = {}
        self._is_connected = False

    @property
    def deadline(self) -> float | None:
        """The first deadline of all subscriptions."""
        return min(
            (
                at
                for subscription in self._subscriptions.values()
                for at in (subscription.subscribe_at, subscription.refresh_at)
                if at is not None
            ),
            default=None,
        )

    # --- the connection

    def on_connected(self, server_side: dict[str, SubscribeResult]) -> None:
        """Handle the connect reply: take over its server-side subscriptions, then subscribe all others.

        A server-side subscription that the reply does not contain ends.
        """
        self._is_connected = True
        ended = [
            name
            for name, one in self._subscriptions.items()
            if one.is_server_side and name not in server_side
        ]
        for name in ended:
            self._end(self._subscriptions[name], 0, "no longer subscribed by the server")
        for name, result in server_side.items():
            self._go_live_server_side(name, result)
        for subscription in list(self._subscriptions.values()):
            self._subscribe(subscription)

    def on_disconnected(self) -> None:
        """Handle the loss of the connection: no subscription is live. Every position stays."""
        self._is_connected = False
        for subscription in self._subscriptions.values():
            subscription.reset()

    def invalidate(self) -> None:
        """Drop every position, and every token that a provider can renew (close code 3014)."""
        for subscription in self._subscriptions.values():
            subscription.tracker.forget()
            if subscription.has_provider:
                subscription.token = ""

    def server_side_to_recover(self) -> dict[str, SubscriptionState]:
        """Return the server-side subscriptions with a position, for the connect command."""
        return {
            name: subscription
            for name, subscription in self._subscriptions.items()
            if subscription.is_server_side and subscription.tracker.position is not None
        }

    # --- the caller

    def add(self, subscription: SubscriptionState) -> None:
        """Subscribe now, or as soon as the session is connected."""
        if subscription.name in self._subscriptions:
            self._turn.notify(Unsubscribed(subscription.name, ALREADY_SUBSCRIBED, "already subscribed"))
            return
        self._subscriptions[subscription.name] = subscription
        self._subscribe(subscription)

    def remove(self, name: str) -> None:
        """Unsubscribe from a channel. Later pushes of the channel are ignored."""
        subscription = self._subscriptions.pop(name, None)
        if subscription is not None:
            self._unsubscribe(subscription)
            self._turn.notify(Unsubscribed(name, 0, "unsubscribed"))

    def pause(self, name: str) -> None:
        """Unsubscribe from a channel until ``resume``, keeping its position."""
        subscription = self._subscriptions.get(name)
        if subscription is not None and not subscription.is_server_side:
            subscription.is_paused = True
            self._unsubscribe(subscription)

    def resume(self, name: str) -> None:
        """Subscribe to a paused channel again, and recover."""
        subscription = self._subscriptions.get(name)
        if subscription is not None and subscription.is_paused:
            subscription.is_paused = False
            self._subscribe(subscription)

    # --- the server

    def handle_push(self, push: Push) -> None:
        """Handle a push of a channel. It is ignored unless the channel is live here (protocol §15)."""
        subscription = self._subscriptions.get(push.channel)
        if push.subscribe is not None:
            self._go_live_server_side(push.channel, push.subscribe)
        elif subscription is None or not subscription.is_live:
            return
        elif push.pub is not None:
            self._on_publication(subscription, push.pub)
        elif push.join is not None:
            self._turn.notify(Joined(subscription.name, push.join.info))
        elif push.leave is not None:
            self._turn.notify(Left(subscription.name, push.leave.info))
        elif push.unsubscribe is not None:
            self._on_unsubscribe_push(subscription, push.unsubscribe)

    # --- tokens and deadlines

    def on_token(self, name: str, token: str) -> None:
        """Handle the token of a provider. An empty token means that there is no permission."""
        subscription = self._awaiting_token(name)
        if subscription is None:
            return
        if not token:
            self._refuse(subscription, CLIENT_UNAUTHORIZED, "get_token returned no token")
            return
        subscription.token = token
        if subscription.is_refreshing:
            self._refresh(subscription)
        else:
            subscription.phase = SubscriptionPhase.IDLE
            self._subscribe(subscription)

    def on_token_failed(self, name: str, reason: str, *, is_final: bool) -> None:
        """Handle a provider that raised: try again later, unless the failure is final."""
        subscription = self._awaiting_token(name)
        if subscription is None:
            return
        if is_final:
            self._refuse(subscription, CLIENT_UNAUTHORIZED, reason)
        elif subscription.is_refreshing:
            self._refresh_later(subscription)
        else:
            self._subscribe_later(subscription)

    def expire(self) -> None:
        """Act on every deadline that has passed."""
        now = self._turn.now
        for subscription in list(self._subscriptions.values()):
            if subscription.subscribe_at is not None and subscription.subscribe_at <= now:
                subscription.subscribe_at = None
                self._subscribe(subscription)
            if subscription.refresh_at is not None and subscription.refresh_at <= now:
                subscription.refresh_at = None
                subscription.is_refreshing = True
                self._turn.emit(FetchToken(subscription.name))

    def _awaiting_token(self, name: str) -> SubscriptionState | None:
        subscription = self._subscriptions.get(name)
        if subscription is None:
            return None
        is_awaiting = subscription.phase is SubscriptionPhase.AUTHORIZING or subscription.is_refreshing
        return subscription if is_awaiting else None

    # --- subscribing

    def _subscribe(self, subscription: SubscriptionState) -> None:
        may_subscribe = self._is_connected and not subscription.is_paused and not subscription.is_server_side
        is_idle = subscription.phase is SubscriptionPhase.IDLE and subscription.subscribe_at is None
        if not may_subscribe or not is_idle:
            return
        if subscription.needs_token:
            subscription.phase = SubscriptionPhase.AUTHORIZING
            self._turn.emit(FetchToken(subscription.name))
            return
        subscription.phase = SubscriptionPhase.SUBSCRIBING
        subscription.subscribe_id = self._commands.send(
            "subscribe",
            subscription.request(),
            partial(self._on_subscribe_reply, subscription),
            partial(self._on_subscribe_failure, subscription),
        )

    def _on_subscribe_reply(self, subscription: SubscriptionState, reply: Reply) -> None:
        if subscription.subscribe_id != reply.id:
            return  # unsubscribed in the meantime
        if reply.error is not None:
            error = reply.error
            is_expired = error.code == TOKEN_EXPIRED
            if is_expired and subscription.has_provider:
                subscription.token = ""
            can_retry = subscription.has_provider or not is_expired
            if is_temporary(error.code, error.temporary) and can_retry:
                self._subscribe_later(subscription)
            else:
                self._end(subscription, error.code, error.message)
        elif reply.subscribe is None:
            self._end(subscription, CLIENT_BAD_PROTOCOL, "the reply to subscribe has no result")
        else:
            self._go_live(subscription, reply.subscribe)

    def _on_subscribe_failure(self, subscription: SubscriptionState, error: TocsinError) -> None:
        if self._is_connected and subscription.phase is SubscriptionPhase.SUBSCRIBING:
            self._reconnect(f"subscribe timeout: {error}")

    def _go_live_server_side(self, name: str, result: SubscribeResult) -> None:
        subscription = self._subscriptions.get(name)
        if subscription is None:
            self._check_may_add(name)
            subscription = self._subscriptions[name] = SubscriptionState(name, is_server_side=True)
        if subscription.is_server_side:
            self._go_live(subscription, result)

    def _check_may_add(self, name: str) -> None:
        if len(self._subscriptions) >= SUBSCRIPTION_LIMIT or len(name) > LONGEST_NAME:
            raise BadProtocol(
                f"the server subscribed this client to too many channels, or to one with too long a name: "
                f"at most {SUBSCRIPTION_LIMIT:,}, of {LONGEST_NAME:,} characters"
            )

    def _go_live(self, subscription: SubscriptionState, result: SubscribeResult) -> None:
        may_refresh = result.expires and subscription.has_provider
        subscription.go_live(self._turn.now, result.ttl if may_refresh else None)
        for event in subscription.tracker.go_live(result):
            self._turn.notify(event)

    def _on_publication(self, subscription: SubscriptionState, wire: WirePublication) -> None:
        verdict = subscription.tracker.check(wire)
        if verdict is Verdict.NEXT:
            self._turn.notify(subscription.tracker.publication(wire))
        elif verdict is Verdict.AHEAD and subscription.is_server_side:
            self._reconnect(f"a publication of {subscription.name} is missing")
        elif verdict is Verdict.AHEAD:
            self._resubscribe(subscription)

    def _resubscribe(self, subscription: SubscriptionState) -> None:
        """Recover on the same connection: unsubscribe, and subscribe from the position."""
        interruptions = subscription.count_interruption(self._turn.now)
        self._unsubscribe(subscription)
        self._subscribe_after(subscription, interruptions)

    def _on_unsubscribe_push(self, subscription: SubscriptionState, push: WireCode) -> None:
        if subscription.is_server_side or push.code < FIRST_RESUBSCRIBE_CODE:
            self._end(subscription, push.code, push.reason)
            return
        if push.code in (SUBSCRIPTION_EXPIRED, SUBSCRIPTION_INVALIDATED) and subscription.has_provider:
            subscription.token = ""
        if push.code == SUBSCRIPTION_INVALIDATED:
            subscription.tracker.forget()
        interruptions = subscription.count_interruption(self._turn.now)
        subscription.reset()
        self._subscribe_after(subscription, interruptions)

    def _subscribe_after(self, subscription: SubscriptionState, interruptions: int) -> None:
        """Subscribe at once after the first interruption, otherwise with backoff."""
        if interruptions:
            subscription.subscribe_at = self._turn.now + backoff.delay(interruptions, self._random())
        self._subscribe(subscription)

    def _subscribe_later(self, subscription: SubscriptionState) -> None:
        interruptions = subscription.count_interruption(self._turn.now)
        subscription.reset()
        subscription.subscribe_at = self._turn.now + backoff.delay(interruptions, self._random())

    # --- unsubscribing

    def _unsubscribe(self, subscription: SubscriptionState) -> None:
        is_sent = subscription.phase in (SubscriptionPhase.SUBSCRIBING, SubscriptionPhase.SUBSCRIBED)
        subscription.reset()
        if is_sent and self._is_connected:
            request = ChannelRequest(subscription.name)
            self._commands.send(
                "unsubscribe", request, self._on_unsubscribe_reply, self._on_unsubscribe_failure
            )

    def _on_unsubscribe_reply(self, reply: Reply) -> None:
        if reply.error is not None:
            self._reconnect(f"unsubscribe error: {reply.error.message}")

    def _on_unsubscribe_failure(self, error: TocsinError) -> None:
        if self._is_connected:
            self._reconnect(f"unsubscribe error: {error}")

    def _refuse(self, subscription: SubscriptionState, code: int, reason: str) -> None:
        self._unsubscribe(subscription)
        self._end(subscription, code, reason)

    def _end(self, subscription: SubscriptionState, code: int, reason: str) -> None:
        subscription.reset()
        self._subscriptions.pop(subscription.name, None)
        self._turn.notify(Unsubscribed(subscription.name, code, reason))

    # --- refreshing

    def _refresh(self, subscription: SubscriptionState) -> None:
        request = RefreshRequest(subscription.token, subscription.name)
        on_reply = partial(self._on_refresh_reply, subscription)
        self._commands.send("sub_refresh", request, on_reply, lambda _: self._refresh_later(subscription))

    def _on_refresh_reply(self, subscription: SubscriptionState, reply: Reply) -> None:
        if not subscription.is_live:
            return
        if reply.error is not None and not is_temporary(reply.error.code, reply.error.temporary):
            self._refuse(subscription, reply.error.code, reply.error.message)
        elif reply.sub_refresh is None:
            self._refresh_later(subscription)
        else:
            subscription.is_refreshing = False
            subscription.refresh_at = None
            if reply.sub_refresh.expires:
                subscription.refresh_after(reply.sub_refresh.ttl, self._turn.now)

    def _refresh_later(self, subscription: SubscriptionState) -> None:
        if subscription.is_live:
            subscription.is_refreshing = False
            subscription.refresh_at = self._turn.now + REFRESH_RETRY_SECONDS * (1 + self._random())
