"""The asyncio client: what its owner calls and hears. A session decides, a driver carries it out."""

from __future__ import annotations

import asyncio
import random
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from ssl import SSLContext
from types import TracebackType
from typing import Any, Self, Unpack

from . import effects, protocol, values
from .address import websocket_url
from .callbacks import Callbacks, ClientCallbacks, by_event, dispatch
from .channel import Channel
from .driver import Driver, TokenProvider
from .errors import CLIENT_CLOSED, Disconnected, TocsinError
from .inbox import Inbox
from .protocol import ChannelRequest, HistoryRequest, PublishRequest, RpcRequest
from .session import Session
from .subscription import Subscription
from .transport import Transport
from .values import ClientInfo, History, Position, PresenceStats, Publication, State, StateChanged

INBOX_BYTES = 1024 * 1024


class Client:
    """A connection that comes back by itself: ``async with Client("http://localhost:8000") as client``.

    ``url`` is the server's base address, http(s) or ws(s). ``token`` is a connection token; ``get_token`` is
    awaited for the first one and whenever one expires (raise ``Unauthorized`` to give up). ``data`` goes with
    every connect.

    Entering starts connecting and does not wait (``ready`` does). Leaving closes the connection and ends
    every task. The callbacks may be plain or async and may await this client; they are called in order, one
    at a time. ``on_state`` hears the connection, the others the channels that the server subscribed this
    client to. A client is used once; everything in it belongs to the event loop that entered it.
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
            token=token,
            has_provider=get_token is not None,
            data=None if data is None else protocol.payload(data),
        )
        self._providers: dict[str | None, TokenProvider | None] = {None: get_token}
        self._callbacks = by_event(callbacks)
        self._inbox: Inbox[values.Event] | None = None
        self._subscriptions: dict[str, weakref.ref[Subscription]] = {}
        self._driver: Driver | None = None
        self._connected: asyncio.Future[None]
        self._error: TocsinError | None = None
        self._is_ended = False

    # --- life

    async def __aenter__(self) -> Self:
        if self._driver is not None:
            raise RuntimeError("a client is entered once")
        self._connected = asyncio.get_running_loop().create_future()
        self._driver = Driver(self._session, self._transport, self._providers, self._tell, self._end)
        if self._callbacks:
            self._inbox = Inbox(self._inbox_bytes, self._stall, self._driver.may_open.set)
            self._driver.spawn(dispatch(_iterate(self._inbox), self._callbacks))
        self._driver.feed(effects.Start())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def ready(self) -> Self:
        """Wait for the first connection; raises if it is refused for good. Bound it: ``asyncio.timeout``."""
        self._require_driver()
        await asyncio.shield(self._connected)
        return self

    async def close(self) -> None:
        """Close the connection, end iterations quietly, wait for every task (at most 7 s).

        From within a callback it only starts all that, since a callback cannot wait for itself.
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
        """Subscribe, now or once connected, and after every interruption; iterate it or give callbacks.

        ``since`` is a position to recover from (``offset@epoch``). ``token`` and ``get_token`` are for
        channels that need a subscription token. With callbacks the subscription lives until it is
        unsubscribed; without, as long as it is referenced. Raises ``ValueError`` while the channel already
        has a subscription, and ``TocsinError`` once the client has ended.
        """
        driver = self._require_driver()
        self._make_room(channel)
        wanted = by_event(callbacks)
        state = Channel(
            channel,
            since=Position.parse(since) if isinstance(since, str) else since,
            token=token,
            has_provider=get_token is not None,
            data=None if data is None else protocol.payload(data),
            wants_join_leave=values.Joined in wanted or values.Left in wanted,
        )
        subscription = self._new_subscription(driver, channel)
        self._providers[channel] = get_token
        driver.feed(effects.Subscribe(state))
        if wanted:
            driver.spawn(dispatch(subscription.events(), wanted))
        return subscription

    def drop(self, channel: str) -> None:
        """Leave a channel at once; the reply is not waited for."""
        if self._driver is not None:
            self._driver.feed(effects.Unsubscribe(channel))

    async def unsubscribe(self, channel: str) -> None:
        """Leave a channel, whoever subscribed it: this client or the server."""
        self.drop(channel)

    def _new_subscription(self, driver: Driver, channel: str) -> Subscription:
        full = partial(driver.feed, effects.Pause(channel))
        drained = partial(driver.feed, effects.Resume(channel))
        subscription = Subscription(self, channel, Inbox(self._inbox_bytes, full, drained))
        self._subscriptions[channel] = weakref.ref(subscription, partial(self._dropped, channel))
        return subscription

    def _make_room(self, channel: str) -> None:
        known = self._subscriptions.get(channel)
        if known is not None:
            if known() is not None:
                raise ValueError(f"{channel!r} is already subscribed here: use that subscription, or end it")
            self.drop(channel)

    def _dropped(self, channel: str, known: weakref.ref[Subscription]) -> None:
        if self._driver is not None:
            self._driver.feed_from_any_thread(partial(self._release, channel, known))

    def _release(self, channel: str, known: weakref.ref[Subscription]) -> None:
        if self._subscriptions.get(channel) is known:
            self.drop(channel)

    # --- calls: each waits up to 5 s for a connection and 5 s for its reply

    async def publish(self, channel: str, data: Any) -> None:
        """Publish as this client.

        Raises ``CallError``, ``TimedOut``, ``ConnectionLost`` (perhaps published), …
        """
        await self._call("publish", PublishRequest(channel, protocol.payload(data)))

    async def history(
        self, channel: str, *, limit: int = -1, since: Position | str | None = None, reverse: bool = False
    ) -> History:
        """Read a page of the log: ``limit`` 0 gives only the position, -1 all the server gives at once."""
        position = Position.parse(since) if isinstance(since, str) else since
        result = await self._call("history", HistoryRequest(channel, limit, position, reverse))
        publications = [
            Publication(channel, one.data, one.offset, result.epoch, one.info, one.tags or {}, one.time)
            for one in result.publications or ()
        ]
        return History(publications, Position(result.offset, result.epoch))

    async def presence(self, channel: str) -> dict[str, ClientInfo]:
        """Say who is in a channel, by client id."""
        result = await self._call("presence", ChannelRequest(channel))
        return result.presence or {}

    async def presence_stats(self, channel: str) -> PresenceStats:
        """Say how many are in a channel."""
        stats: PresenceStats = await self._call("presence_stats", ChannelRequest(channel))
        return stats

    async def rpc(self, method: str, data: Any = None) -> Any:
        """Call a procedure of the server; error 108 where none is registered."""
        result = await self._call("rpc", RpcRequest(method, None if data is None else protocol.payload(data)))
        return result.data

    async def _call(self, method: str, request: protocol.Request) -> Any:
        return await self._require_driver().call(method, request)

    def _require_driver(self) -> Driver:
        if self._is_ended:
            raise self._error or Disconnected(CLIENT_CLOSED, "the client is closed")
        if self._driver is None:
            raise RuntimeError("enter the client first: async with Client(url) as client")
        return self._driver

    # --- what the driver tells

    def _transport(self, feed: Callable[[effects.Event], None]) -> Transport:
        return Transport(self._url, feed, self._headers, self._ssl)

    def _tell(self, event: values.Event, size: int) -> None:
        if isinstance(event, StateChanged):
            self.state = event.state
            if event.state is State.CONNECTED and not self._connected.done():
                self._connected.set_result(None)
        elif event.channel in self._subscriptions:
            self._tell_subscription(event, size)
            return
        if self._inbox is not None and type(event) in self._callbacks:
            self._inbox.put(event, size)

    def _tell_subscription(self, event: values.ChannelEvent, size: int) -> None:
        subscription = self._subscriptions[event.channel]()
        if isinstance(event, values.Unsubscribed):
            del self._subscriptions[event.channel]
            self._providers.pop(event.channel, None)
        if subscription is not None:
            subscription.offer(event, size)

    def _end(self, error: TocsinError | None) -> None:
        self._is_ended = True
        self._error = error
        if self._inbox is not None:
            self._inbox.close(None)
        for known in self._subscriptions.values():
            subscription = known()
            if subscription is not None:
                subscription.end(error)
        self._subscriptions.clear()
        if not self._connected.done():
            self._connected.set_exception(error or Disconnected(CLIENT_CLOSED, "the client is closed"))
            self._connected.exception()  # whoever does not wait for it hears of it elsewhere

    def _stall(self) -> None:
        if self._driver is not None:
            self._driver.may_open.clear()
            self._driver.feed(effects.Reconnect("the callbacks are too far behind"))


async def _iterate(inbox: Inbox[values.Event]) -> AsyncIterator[values.Event]:
    while True:
        try:
            event = await inbox.take()
        except StopAsyncIteration:
            return
        yield event
