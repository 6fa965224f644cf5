"""One connection's subscription to one channel: what was granted, how it recovers, when it expires.

being set up --SubscriptionsOpened--> live --unsubscribe, expiry, close--> closed

The mutable state is that of `Subscription`; only core/subscriptions.py changes it.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Raw, Struct
from msgspec.structs import replace

from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core.capabilities import Action
from tocsin_server.core.events import CloseSubscription, HistoryRead, SubscriptionPlan, Timestamp
from tocsin_server.core.form import PLAIN, Form
from tocsin_server.core.positions import History
from tocsin_server.core.recovery import NOT_RECOVERED, Recovery, recover, recover_latest
from tocsin_server.core.tags_filter import NO_TAGS
from tocsin_server.core.tokens import Override
from tocsin_server.errors import Unsubscribed
from tocsin_server.protocol.messages import (
    NO_JSON,
    ClientInfo,
    Position,
    Publication,
    SubscribePush,
    SubscribeResult,
)
from tocsin_server.protocol.payloads import Payload


def ttl_seconds(deadline: float | None, now: Timestamp) -> int:
    """Return the whole seconds until a monotonic deadline, at least 1; 0 without a deadline."""
    return 0 if deadline is None else min(max(1, int(deadline - now.monotonic)), 2**32 - 1)


def monotonic_deadline(expire_at: float | None, now: Timestamp) -> float | None:
    """Return the monotonic second of a unix expiry; None and 0 mean never."""
    return now.monotonic + expire_at - now.unix if expire_at else None


class SubscriptionTerms(Struct, frozen=True):
    """What a subscription token grants."""

    info: ClientInfo
    data: Payload = NO_JSON
    expires_at: float | None = None
    """Monotonic seconds; None for never."""
    override: Override | None = None
    """Channel options that the token replaces."""
    allowed: frozenset[Action] = frozenset()
    """What the subscriber may do in the channel besides."""
    token_id: str = ""
    issued_at: float | None = None
    """When the token was issued, in unix seconds; None without a token."""


class Subscription(Struct, eq=False):
    """What a session keeps of one channel."""

    channel: str
    options: ChannelOptions
    info: ClientInfo
    command_id: int = 0
    """The subscribe command to reply to; 0 for a server-side subscription."""
    is_server_side: bool = False
    is_positioned: bool = False
    is_recoverable: bool = False
    since: Position | None = None
    """The position that the client recovers from; None if it does not recover."""
    refuses_unrecovered: bool = False
    receives_joins: bool = False
    form: Form = PLAIN
    """In which form the client gets publications."""
    expires_at: float | None = None
    """Monotonic seconds; None for never."""
    data: Payload = NO_JSON
    allowed: frozenset[Action] = frozenset()
    """What its token grants in the channel besides."""
    is_by_capability: bool = False
    """Whether only the connection token's capabilities permit it, so that it ends with them."""
    is_refreshed_by_client: bool = True
    """Whether the client is told when it expires. The node renews what an answer from outside admitted."""
    is_live: bool = False
    token_id: str = ""
    issued_at: float | None = None
    """When its token was issued, in unix seconds; None if it has none."""
    ended_while_opening: Unsubscribed | None = None
    """Why the server ended it while it was being set up; the client is told after its subscribe reply."""

    def renew(self, grant: SubscriptionTerms) -> None:
        """Apply a fresh token. The options stay, since the subscription must end as it was set up."""
        self.expires_at = grant.expires_at
        self.info = grant.info
        self.data = grant.data
        self.token_id, self.issued_at = grant.token_id, grant.issued_at
        self.allowed = grant.allowed

    def extend(self, expires_at: float | None, info: Raw, issued_at: float | None) -> None:
        """Let it expire later, as an answer says that was asked for at unix second `issued_at`.

        None: it counts as issued when it was before. `info` replaces the former one of the channel, unless it
        is NO_JSON.
        """
        self.expires_at = expires_at
        if issued_at is not None:
            self.issued_at = issued_at
        if info:
            self.info = replace(self.info, chan_info=info)

    def plan(self, history_limit: int) -> SubscriptionPlan:
        """Return what it takes to set the subscription up."""
        return SubscriptionPlan(self.channel, self.options, self.info, self._history_read(history_limit))

    def _history_read(self, history_limit: int) -> HistoryRead | None:
        if not self.is_positioned:
            return None
        if self.since is None or not self.is_recoverable:
            return HistoryRead()
        if self.is_cache:
            return HistoryRead(self.since, is_latest=True)
        return HistoryRead(self.since, history_limit)

    @property
    def can_expire(self) -> bool:
        """Whether its expiry may be handled: the client is told of a server-side subscription first."""
        return self.is_live or not self.is_server_side

    @property
    def is_cache(self) -> bool:
        """Whether only the newest publication of the channel matters."""
        return self.options.force_recovery_mode == "cache"

    def misses_cache(self, history: History | None) -> bool:
        """Whether it is in cache mode, and the channel had no publication when this history was read.

        If it does not recover, only the top was read. Then only a channel that never had one counts.
        """
        if history is None or not self.is_cache:
            return False
        recovers = self.since is not None and self.is_recoverable
        return not history.publications and (recovers or history.top.offset == 0)

    def _recovery(self, history: History | None, is_continued: bool) -> Recovery:
        if history is None or self.since is None or not self.is_recoverable:
            return NOT_RECOVERED
        if is_continued:
            return Recovery(True, history.publications)
        decide = recover_latest if self.is_cache else recover
        return decide(self.since, history)

    def start_offset(self, history: History | None, *, is_continued: bool) -> int:
        """Return the offset up to which the client has everything once it has the subscribe result."""
        if history is None or self.since is None or not is_continued:
            return history.top.offset if history else 0
        if history.publications:
            return history.publications[-1].offset
        return history.top.offset - 1 if self.is_cache else self.since.offset

    def result(
        self, history: History | None, now: Timestamp, *, is_continued: bool = False
    ) -> SubscribeResult:
        """Return the subscribe result. If `is_continued`, `history` is the first page of a recovery.

        The offset of a recovered client is the one it sent; the publications advance it (protocol §4).
        """
        recovery = self._recovery(history, is_continued)
        wanted = self._wanted(recovery.publications)
        offset, epoch = (history.top.offset, history.top.epoch) if history else (0, "")
        if recovery.is_recovered and self.since is not None:
            offset = self.since.offset
            if recovery.publications and not wanted:  # the client has nothing else that advances its position
                offset = recovery.publications[-1].offset
            elif recovery.publications:  # in cache mode, `since` may be beyond the end of another history
                offset = min(offset, recovery.publications[0].offset - 1)
            elif is_continued:
                offset = min(offset, self.start_offset(history, is_continued=True))
        return SubscribeResult(
            recoverable=self.is_recoverable,
            positioned=self.is_positioned,
            epoch=epoch,
            offset=offset,
            recovered=recovery.is_recovered,
            was_recovering=self.since is not None,
            publications=wanted,
            expires=self.expires_at is not None and self.is_refreshed_by_client,
            ttl=ttl_seconds(self.expires_at if self.is_refreshed_by_client else None, now),
            data=self.data,
            delta=self.form.uses_delta,
        )

    def _wanted(self, publications: Sequence[Publication]) -> list[Publication]:
        """Those that its filter does not leave out."""
        tags_filter = self.form.tags_filter
        if tags_filter is None:
            return list(publications)
        return [missed for missed in publications if tags_filter.matches(missed.tags or NO_TAGS)]

    def push(self, result: SubscribeResult) -> SubscribePush:
        """Return the push for a subscription that the server made after the connect reply.

        Recovered publications follow as pushes of their own.
        """
        return SubscribePush(
            recoverable=result.recoverable,
            positioned=result.positioned,
            epoch=result.epoch,
            offset=result.offset,
            data=result.data,
        )

    def close(self) -> CloseSubscription:
        """Return the effect that ends it."""
        return CloseSubscription(
            self.channel, self.options, self.info, was_announced=self.is_live and self.options.join_leave
        )
