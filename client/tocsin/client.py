"""The asyncio client: the object that a caller uses. Its session decides, its driver carries out."""

from __future__ import annotations

import asyncio
import random
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from ssl import SSLContext
from types import TracebackType
from typing import Any, Self, Unpack

from . import models
from .callbacks import Callbacks, ClientCallbacks, TokenProvider, by_event, dispatch
from .driver import Driver
from .errors import CLIENT_CLOSED, Disconnected, TocsinError, WrongUse
from .inbox import Inbox
from .models import ClientInfo, History, Position, PresenceStats, Publication, State, StateChanged
from .protocol.codec import encode_payload
from .protocol.messages import ChannelRequest, HistoryRequest, PublishRequest, Request, RpcRequest
from .session import events
from .session.session import Session
from .session.subscription_state import SubscriptionState
from .subscription import Subscription
from .transports.address import websocket_url
from .transports.websocket import WebSocketTransport

INBOX_BYTES = 1024 * 1024


class Client:
    """A connection that reconnects by itself: ``async with Client("http://localhost:8000") as client``.

    ``url`` is the server's base address, http(s) or ws(s). ``token`` is a connection token. ``get_token`` is
    awaited for the first token, and whenever one expires; if it raises ``Unauthorized``, the client ends.
    ``data`` goes with every connect command.

    Entering starts connecting and does not wait; ``ready`` waits. Leaving closes the connection and ends
    every task. Callbacks are plain or async functions, and may await this client; they are called in order,
    one at a time. ``on_state`` gets the changes of the connection, the others the events of server-side
    subscriptions. A client is used once. It belongs to the event loop that entered it: used in another loop,
    thread or forked process, it raises ``WrongUse``.

    The mutable state is ``state``, the subscriptions and providers by channel, and at the end ``_error`` and
    ``_is_ended``. ``subscribe`` adds to it; the driver's calls of ``_on_event`` and ``_end`` change it.
    """

    def __init__(  # each is an option
        self,
        url: str,
        *,
        token: str = "",
        get_token: TokenProvider | None = None,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        ssl: SSLContext | None = None,
        inbox_bytes: int = INBOX_BYTES,
        **callbacks: Unpack[ClientCallbacks],
    ) -> None:
        self.state = State.DISCONNECTED
        self._url = websocket_url(url)
        self._headers = headers or {}
        self._ssl = ssl
        self._inbox_bytes = inbox_bytes
        self._session = Session(
            random=random.random,
            token=token.strip(),
            has_provider=get_token is not None,
            data=None if data is None else encode_payload(data),
        )
        self._providers: dict[str | None, TokenProvider | None] = {None: get_token}
        self._callbacks = by_event(callbacks)
        self._inbox: Inbox[models.Event] | None = None
        self._subscriptions: dict[str, weakref.ref[Subscription]] = {}
        self._driver: Driver | None = None
        self._connected: asyncio.Future[None]
        self._error: TocsinError | None = None
        self._is_ended = False

    # --- lifecycle

    async def __aenter__(self) -> Self:
        if self._driver is not None:
            raise WrongUse("a client is entered once")
        self._connected = asyncio.get_running_loop().create_future()
        self._driver = Driver(self._session, self._new_transport, self._providers, self._on_event, self._end)
        if self._callbacks:
            self._inbox = Inbox(self._inbox_bytes, self._on_inbox_full, self._driver.may_open.set)
            self._driver.spawn(dispatch(_events_of(self._inbox), self._callbacks))
        self._driver.feed(events.Start())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def ready(self) -> Self:
        """Wait for the first connection. Raises if the server refuses it for good.

        There is no time limit: use ``asyncio.timeout``.
        """
        self._require_driver()
        await asyncio.shield(self._connected)
        return self

    async def close(self) -> None:
        """Close the connection, end iterations without an error, and wait for every task (at most 7 s).

        Called from a callback, it does not wait, since a callback cannot wait for itself.
        """
        if self._driver is not None:
            await self._driver.stop()

    # --- channels

    def subscribe(
        self,
        channel: str,
        *,
        since: Position | str | None = None,
        token: str = "",
        get_token: TokenProvider | None = None,
        data: Any = None,
        **callbacks: Unpack[Callbacks],
    ) -> Subscription:
        """Subscribe now or once connected, and again after every interruption.

        Iterate the result, or pass callbacks.

        ``since`` is a position to recover from (``offset@epoch``). ``token`` and ``get_token`` are for
        channels that need a subscription token. With callbacks the subscription lasts until it is
        unsubscribed; without, as long as it is referenced. Raises ``ValueError`` if the channel already has
        a subscription, and ``TocsinError`` if the client has ended.
        """
        driver = self._require_driver()
        self._check_unused(channel)
        by_type = by_event(callbacks)
        state = SubscriptionState(
            channel,
            since=Position.parse(since) if isinstance(since, str) else since,
            token=token.strip(),
            has_provider=get_token is not None,
            data=None if data is None else encode_payload(data),
            wants_join_leave=models.Joined in by_type or models.Left in by_type,
        )
        subscription = self._new_subscription(driver, channel)
        self._providers[channel] = get_token
        driver.feed(events.Subscribe(state))
        if by_type:
            driver.spawn(dispatch(subscription.events(), by_type))
        return subscription

    def drop(self, channel: str) -> None:
        """Unsubscribe from a channel, without waiting for the reply."""
        if self._driver is not None:
            self._driver.binding.require()
            self._driver.feed(events.Unsubscribe(channel))

    async def unsubscribe(self, channel: str) -> None:
        """Unsubscribe from a channel, whether this client or the server subscribed to it."""
        self.drop(channel)

    def _new_subscription(self, driver: Driver, channel: str) -> Subscription:
        on_full = partial(driver.feed, events.Pause(channel))
        on_drained = partial(driver.feed, events.Resume(channel))
        inbox: Inbox[models.ChannelEvent] = Inbox(self._inbox_bytes, on_full, on_drained)
        subscription = Subscription(channel, inbox, partial(self.drop, channel))
        self._subscriptions[channel] = weakref.ref(subscription, partial(self._on_collected, channel))
        return subscription

    def _check_unused(self, channel: str) -> None:
        reference = self._subscriptions.get(channel)
        if reference is not None:
            if reference() is not None:
                raise ValueError(f"{channel!r} already has a subscription: use it, or unsubscribe first")
            self.drop(channel)

    def _on_collected(self, channel: str, reference: weakref.ref[Subscription]) -> None:
        if self._driver is not None:
            self._driver.call_from_any_thread(partial(self._drop_collected, channel, reference))

    def _drop_collected(self, channel: str, reference: weakref.ref[Subscription]) -> None:
        if self._subscriptions.get(channel) is reference:
            self.drop(channel)

    # --- commands: each waits up to 5 s for a connection and 5 s for its reply

    async def publish(self, channel: str, data: Any) -> None:
        """Publish as this client.

        Raises ``CallError``, or ``TimedOut`` or ``ConnectionLost`` if it may or may not be published.
        """
        await self._call("publish", PublishRequest(channel, encode_payload(data)))

    async def history(
        self, channel: str, *, limit: int = -1, since: Position | str | None = None, reverse: bool = False
    ) -> History:
        """Read a page of history. ``limit`` 0 returns only the position, -1 as many as the server allows."""
        position = Position.parse(since) if isinstance(since, str) else since
        result = await self._call("history", HistoryRequest(channel, limit, position, reverse))
        publications = [
            Publication(channel, one.data, one.offset, result.epoch, one.info, one.tags or {}, one.time)
            for one in result.publications or ()
        ]
        return History(publications, Position(result.offset, result.epoch))

    async def presence(self, channel: str) -> dict[str, ClientInfo]:
        """Return the clients that are subscribed to a channel, by client id."""
        result = await self._call("presence", ChannelRequest(channel))
        return result.presence or {}

    async def presence_stats(self, channel: str) -> PresenceStats:
        """Return how many connections and users are subscribed to a channel."""
        stats: PresenceStats = await self._call("presence_stats", ChannelRequest(channel))
        return stats

    async def rpc(self, method: str, data: Any = None) -> Any:
        """Call a procedure of the server. Raises ``CallError`` 108 if none is registered."""
        result = await self._call("rpc", RpcRequest(method, None if data is None else encode_payload(data)))
        return result.data

    async def _call(self, method: str, request: Request) -> Any:
        return await self._require_driver().call(method, request)

    def _require_driver(self) -> Driver:
        if self._is_ended:
            raise self._error or Disconnected(CLIENT_CLOSED, "the client is closed")
        if self._driver is None:
            raise WrongUse("enter the client first: async with Client(url) as client")
        self._driver.binding.require()
        return self._driver

    # --- called by the driver

    def _new_transport(self, on_event: Callable[[events.SessionEvent], None]) -> WebSocketTransport:
        return WebSocketTransport(self._url, on_event, self._headers, self._ssl)

    def _on_event(self, event: models.Event, size: int) -> None:
        if isinstance(event, StateChanged):
            self.state = event.state
            if event.state is State.CONNECTED and not self._connected.done():
                self._connected.set_result(None)
        elif event.channel in self._subscriptions:
            self._on_subscription_event(event, size)
            return
        if self._inbox is not None and type(event) in self._callbacks:
            self._inbox.put(event, size)

    def _on_subscription_event(self, event: models.ChannelEvent, size: int) -> None:
        subscription = self._subscriptions[event.channel]()
        if isinstance(event, models.Unsubscribed):
            del self._subscriptions[event.channel]
            self._providers.pop(event.channel, None)
        if subscription is not None:
            subscription.put(event, size)

    def _end(self, error: TocsinError | None) -> None:
        self._is_ended = True
        self._error = error
        if self._inbox is not None:
            self._inbox.close(None)
        for reference in self._subscriptions.values():
            subscription = reference()
            if subscription is not None:
                subscription.end(error)
        self._subscriptions.clear()
        if not self._connected.done():
            self._connected.set_exception(error or Disconnected(CLIENT_CLOSED, "the client is closed"))
            self._connected.exception()  # marks it as retrieved: the iterations raise it too

    def _on_inbox_full(self) -> None:
        if self._driver is not None:
            self._driver.may_open.clear()
            self._driver.feed(events.Reconnect("the callbacks are too far behind"))


async def _events_of(inbox: Inbox[models.Event]) -> AsyncIterator[models.Event]:
    while True:
        try:
            event = await inbox.take()
        except StopAsyncIteration:
            return
        yield event
