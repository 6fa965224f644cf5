"""The subscriptions of one connection: set up, made live, refreshed, and ended.

The mutable state is the subscriptions by channel, how many client subscribes are being set up, and what the
connection has used of its new channels. Only the methods of `Subscriptions` change it; each returns the
effects that its change makes necessary. Where the protocol asks for a close, the method returns the
`Disconnect`, and the session closes.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

from tocsin_server import errors
from tocsin_server.core import events
from tocsin_server.core.capabilities import Capabilities
from tocsin_server.core.channel_names import section_of
from tocsin_server.core.client_limits import Exceeded
from tocsin_server.core.events import Approval, Effect, OpenSubscriptions, Send, Timestamp
from tocsin_server.core.positions import History
from tocsin_server.core.rate_limit import NEVER_USED
from tocsin_server.core.replies import refuse, send_push
from tocsin_server.core.session_context import SessionContext
from tocsin_server.core.subscription import Subscription, ttl_seconds
from tocsin_server.core.subscription_authorization import (
    authorize_by_claims,
    authorize_subscription,
    caller_of,
    check_subscribe_request,
    may_subscribe,
    server_side_subscription,
    subscription_claims_of,
)
from tocsin_server.core.tokens import SubscriptionClaims
from tocsin_server.errors import Disconnect, Refusal, Unsubscribed
from tocsin_server.protocol.messages import (
    EMPTY,
    ClientInfo,
    Push,
    Reply,
    SubRefreshRequest,
    SubRefreshResult,
    SubscribeRequest,
    SubscribeResult,
    UnsubscribePush,
    UnsubscribeRequest,
)

Outcome = list[Effect] | Disconnect


class Subscriptions:
    """All subscriptions of one connection."""

    __slots__ = ("_by_channel", "_context", "_new_channels_full_at", "_opening_count", "capabilities")

    def __init__(self, context: SessionContext) -> None:
        self._context = context
        self._by_channel: dict[str, Subscription] = {}
        self._new_channels_full_at = NEVER_USED
        self.capabilities: Capabilities | None = None
        """What the connection's token grants. Only `begin` and `change_capabilities` change it."""
        self._opening_count = 0  # subscribe commands without a reply; server-side ones do not count

    @property
    def is_opening(self) -> bool:
        """Whether a subscribe command has no reply yet."""
        return self._opening_count > 0

    @property
    def live(self) -> list[Subscription]:
        """The live subscriptions."""
        return [subscription for subscription in self._by_channel.values() if subscription.is_live]

    @property
    def next_expiry(self) -> float | None:
        """When the first of them expires, in monotonic seconds; None for never."""
        expiry = None
        for subscription in self._by_channel.values():
            expires_at = subscription.expires_at
            if expires_at is None or not subscription.can_expire:
                continue
            if expiry is None or expires_at < expiry:
                expiry = expires_at
        return expiry

    def is_setting_up(self, channel: str) -> bool:
        """Whether there is a subscription to a channel that is not live yet."""
        subscription = self._by_channel.get(channel)
        return subscription is not None and not subscription.is_live

    def live_in(self, channel: str) -> Subscription | None:
        """Return the live subscription to a channel."""
        subscription = self._by_channel.get(channel)
        return subscription if subscription is not None and subscription.is_live else None

    # ----------------------------------------------------------------------------------------------- set-up

    def begin(self, subscriptions: Mapping[str, Subscription], granted: Capabilities | None) -> list[Effect]:
        """Set up the server-side subscriptions of the connect command. Their result is part of its reply.

        `granted` are the capabilities of its token.
        """
        self.capabilities = granted
        self._by_channel = dict(subscriptions)
        return [self._open(subscriptions.values())] if subscriptions else []

    def subscribe(
        self,
        command_id: int,
        request: SubscribeRequest,
        approval: Approval | None,
        info: ClientInfo,
        now: Timestamp,
    ) -> Outcome:
        """Run a subscribe command. Its reply follows once the subscription is set up."""
        decided = authorize_subscription(
            self._context,
            info,
            self.capabilities,
            self._by_channel,
            request,
            now,
            subscription_claims_of(approval),
        )
        if isinstance(decided, Disconnect):
            return decided
        if isinstance(decided, Refusal):
            return [refuse(command_id, decided)]
        exceeded = self._exceeded_limit(decided, info, now)
        if exceeded is not None:
            self._context.report_limit(info.client, exceeded.limit)
            return [refuse(command_id, exceeded.refusal)]
        if approval is not None:
            decided.data = approval.data or decided.data
        decided.command_id = command_id
        self._by_channel[decided.channel] = decided
        self._opening_count += 1
        return [self._open([decided])]

    def check(self, request: SubscribeRequest, info: ClientInfo) -> Refusal | Disconnect | None:
        """Return why a subscribe command is not valid, so that no hook is asked."""
        decided = check_subscribe_request(self._context, info, self._by_channel, request)
        return decided if isinstance(decided, Refusal | Disconnect) else None

    def _exceeded_limit(
        self, subscription: Subscription, info: ClientInfo, now: Timestamp
    ) -> Exceeded | None:
        channel = self._context.channels.get(subscription.channel)
        if channel is None:
            return self._take_new_channels(1, info, now)
        limit = subscription.options.subscriber_limit
        if limit and channel.subscriber_count >= limit:
            reason = f"the channel has {limit} subscribers on this node"
            key = f"{section_of(subscription.channel)}.subscriber_limit"
            return Exceeded(key, errors.because(errors.LIMIT_EXCEEDED, reason))
        return None

    def take_new_channels(self, channels: Iterable[str], info: ClientInfo, now: Timestamp) -> Exceeded | None:
        """Use the allowance of new channels for those of `channels` that have no subscriber here."""
        count = 0
        for channel in channels:
            count += channel not in self._context.channels
        return self._take_new_channels(count, info, now) if count else None

    def _take_new_channels(self, count: int, info: ClientInfo, now: Timestamp) -> Exceeded | None:
        limits = self._context.limits
        limit = limits.new_channels
        taken = limit.take(self._new_channels_full_at, now.monotonic, min(count, limit.burst))
        if taken is None:
            return limits.too_many_new_channels
        self._new_channels_full_at = taken
        return limits.take_new_channels(info, count, now.monotonic)

    def subscribe_from_server(
        self, event: events.ServerSubscribe, info: ClientInfo, now: Timestamp
    ) -> list[Effect]:
        """Set up a subscription that the API asked for, unless there is one or there is no room."""
        is_full = len(self._by_channel) >= self._context.options.channel_limit
        if event.channel in self._by_channel or is_full:
            return []
        subscription = server_side_subscription(self._context, info, self.capabilities, event, now)
        if subscription is None:
            return []
        self._by_channel[event.channel] = subscription
        return [self._open([subscription])]

    def _open(self, subscriptions: Iterable[Subscription]) -> OpenSubscriptions:
        limit = self._context.options.history_limit
        return OpenSubscriptions([subscription.plan(limit) for subscription in subscriptions])

    # ------------------------------------------------------------------------------------- set-up has ended

    def connect_results(
        self, opened: events.SubscriptionsOpened, now: Timestamp
    ) -> dict[str, SubscribeResult]:
        """Return the server-side subscriptions for the connect reply. `go_live` must follow it."""
        return {
            name: self._by_channel[name].result(history, now, is_continued=name in opened.continued)
            for name, history in opened.histories.items()
        }

    def go_live(self, opened: events.SubscriptionsOpened) -> list[Effect]:
        """Make the server-side subscriptions of the connect reply live."""
        effects: list[Effect] = []
        for channel, history in opened.histories.items():
            effects += self._go_live(self._by_channel[channel], history, channel in opened.continued)
        return effects

    def opened(self, opened: events.SubscriptionsOpened, now: Timestamp) -> list[Effect]:
        """Confirm subscriptions that were set up after the connect reply, and make them live.

        All replies come before the joins and what else follows, so that they leave in one write.
        """
        effects: list[Effect] = []
        later: list[Effect] = []
        for channel, history in opened.histories.items():
            is_continued = channel in opened.continued
            effects += self._confirm(self._by_channel[channel], history, now, is_continued, later)
        return effects + later

    def _confirm(
        self,
        subscription: Subscription,
        history: History | None,
        now: Timestamp,
        is_continued: bool,
        later: list[Effect],
    ) -> list[Effect]:
        """Return the effects that confirm it, and append those that follow to `later`."""
        channel, result = subscription.channel, subscription.result(history, now, is_continued=is_continued)
        if subscription.is_server_side:
            pushes: list[Effect] = [send_push(Push(channel, subscribe=subscription.push(result)))]
            pushes += [send_push(Push(channel, pub=missed)) for missed in result.publications]
            live = self._go_live(subscription, history, is_continued)
            later += live[1:]
            return [*pushes, live[0]]
        self._opening_count -= 1
        if subscription.refuses_unrecovered and result.was_recovering and not result.recovered:
            del self._by_channel[channel]
            later.append(subscription.close())
            return [refuse(subscription.command_id, errors.UNRECOVERABLE_POSITION)]
        reply = Send(Reply(subscription.command_id, subscribe=result))
        live = self._go_live(subscription, history, is_continued)
        later += live[1:]
        return [reply, live[0]]

    def _go_live(
        self, subscription: Subscription, history: History | None, is_continued: bool
    ) -> list[Effect]:
        """Return the `GoLive`, and what follows it."""
        subscription.is_live = True
        start = subscription.start_offset(history, is_continued=is_continued)
        effects: list[Effect] = [
            events.GoLive(
                subscription.channel,
                start,
                subscription.receives_joins,
                catches_up=is_continued,
                form=subscription.form,
            )
        ]
        if subscription.options.join_leave:
            effects.append(events.PublishJoin(subscription.channel, subscription.info))
        if subscription.ended_while_opening is not None:
            effects += self.end(subscription, subscription.ended_while_opening)
        return effects

    def failed(self, channels: Iterable[str], why: Refusal) -> list[Effect]:
        """Drop subscriptions that could not be set up."""
        effects: list[Effect] = []
        for channel in channels:
            subscription = self._by_channel.pop(channel)
            effects.append(subscription.close())
            if not subscription.is_server_side:
                self._opening_count -= 1
                effects.append(refuse(subscription.command_id, why))
        return effects

    def undo(self, channels: Iterable[str]) -> list[Effect]:
        """Close subscriptions whose set-up ended after the session did."""
        dropped = (self._by_channel.pop(channel, None) for channel in channels)
        return [subscription.close() for subscription in dropped if subscription is not None]

    # ------------------------------------------------------------------------------------- refresh, the end

    def unsubscribe(self, command_id: int, request: UnsubscribeRequest) -> Outcome:
        """Run an unsubscribe command; it succeeds for a channel without a subscription, too."""
        if not request.channel:
            return errors.PROTOCOL_VIOLATION
        reply = Send(Reply(command_id, unsubscribe=EMPTY))
        subscription = self.live_in(request.channel)
        if subscription is None:
            return [reply]
        del self._by_channel[request.channel]
        return [subscription.close(), reply]

    def refresh(
        self,
        command_id: int,
        request: SubRefreshRequest,
        claims: SubscriptionClaims | None,
        info: ClientInfo,
        now: Timestamp,
    ) -> Outcome:
        """Run a sub_refresh command."""
        if not request.channel:
            return errors.PROTOCOL_VIOLATION
        subscription = self.live_in(request.channel)
        if subscription is None:
            return [refuse(command_id, errors.PERMISSION_DENIED)]
        if not request.token:
            return [refuse(command_id, errors.bad_request("there is no token"))]
        if not subscription.is_refreshed_by_client:
            reason = f"it was admitted without it, so the node renews it: {request.channel[:100]}"
            self._context.report_refusal(info.client, "subscription token", reason)
            return errors.PROTOCOL_VIOLATION
        decided = authorize_by_claims(self._context, info, request.channel, request.token, now, claims)
        if decided is errors.PERMISSION_DENIED:
            return errors.INVALID_TOKEN  # protocol §4: an invalid token closes here, unlike at subscribe
        if isinstance(decided, Refusal):
            return [refuse(command_id, decided)]
        if isinstance(decided, Disconnect):
            return decided
        subscription.renew(decided)
        ttl = ttl_seconds(decided.expires_at, now)
        return [Send(Reply(command_id, sub_refresh=SubRefreshResult(decided.expires_at is not None, ttl)))]

    def renewable(self, channel: str) -> Subscription | None:
        """Return the subscription to a channel if it expires and its client does not refresh it."""
        found = self._by_channel.get(channel)
        is_renewable = found is not None and found.expires_at is not None and not found.is_refreshed_by_client
        return found if is_renewable else None

    def change_capabilities(self, granted: Capabilities | None, user: str) -> list[Effect]:
        """Apply a fresh token's capabilities, and end the subscriptions that only the old ones permit."""
        if granted is self.capabilities:
            return []
        self.capabilities = granted
        caller = caller_of(self._context, user, granted)
        effects: list[Effect] = []
        for subscription in list(self._by_channel.values()):
            if subscription.is_by_capability and may_subscribe(
                self._context, caller, subscription.channel, subscription.options
            ):
                effects += self.end(subscription, errors.SERVER_UNSUBSCRIBE)
        return effects

    def unsubscribe_from_server(self, event: events.ServerUnsubscribe) -> list[Effect]:
        """End the subscription that the API names, or all of them."""
        channels = [event.channel] if event.channel else list(self._by_channel)
        effects: list[Effect] = []
        for channel in channels:
            if channel in self._by_channel:
                effects += self.end(self._by_channel[channel], event.why)
        return effects

    def reset(self, channel: str) -> Outcome:
        """End a subscription whose position no longer continues (protocol §10).

        The client makes its own subscription again; for a server-side one it must reconnect.
        """
        subscription = self.live_in(channel)
        if subscription is None or not subscription.is_positioned:
            return []
        if subscription.is_server_side:
            return errors.INSUFFICIENT_STATE
        return self.end(subscription, errors.UNSUBSCRIBED_INSUFFICIENT_STATE)

    def expire(self, now: Timestamp) -> list[Effect | Disconnect]:
        """End every subscription whose token expired. A `Disconnect` comes last, and ends the connection."""
        delay = self._context.options.expired_close_delay
        effects: list[Effect | Disconnect] = []
        for subscription in list(self._by_channel.values()):
            if subscription.expires_at is None or not subscription.can_expire:
                continue
            if now.monotonic >= subscription.expires_at + delay:
                if subscription.is_server_side:
                    return [*effects, errors.SUBSCRIPTION_EXPIRED]
                subscription.expires_at = None
                effects += self.end(subscription, errors.UNSUBSCRIBED_EXPIRED)
        return effects

    def has_token(self, token_ids: Container[str]) -> bool:
        """Whether a subscription was made with one of these tokens."""
        return any(found.token_id in token_ids for found in self._by_channel.values() if found.token_id)

    def end_revoked(self, user: str, now: Timestamp) -> list[Effect]:
        """End every subscription whose token is revoked, as if it had expired."""
        effects: list[Effect] = []
        for found in list(self._by_channel.values()):
            if found.issued_at is not None and self._context.revocations.covers(
                found.token_id, user, found.issued_at, now.unix, found.channel
            ):
                effects += self.end(found, errors.UNSUBSCRIBED_EXPIRED)
        return effects

    def expire_now(self, channel: str) -> Outcome:
        """End a subscription because the application says that it has expired."""
        subscription = self._by_channel.get(channel)
        if subscription is None:
            return []
        if subscription.is_server_side:
            return errors.SUBSCRIPTION_EXPIRED
        return self.end(subscription, errors.UNSUBSCRIBED_EXPIRED)

    def end(self, subscription: Subscription, why: Unsubscribed) -> list[Effect]:
        """End a subscription from the server's side; one that is being set up ends after its reply."""
        if not subscription.is_live:
            subscription.ended_while_opening = why
            return []
        del self._by_channel[subscription.channel]
        ended = UnsubscribePush(why.code, why.reason)
        return [subscription.close(), send_push(Push(subscription.channel, unsubscribe=ended))]

    def close_live(self) -> list[Effect]:
        """Close every live subscription, because the session is over. The others follow by `undo`."""
        effects: list[Effect] = []
        for subscription in self.live:
            del self._by_channel[subscription.channel]
            effects.append(subscription.close())
        return effects
