"""The PyPI package `centrifuge-python`, in the test's own event loop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from dataclasses import asdict
from typing import Any

import centrifuge
from centrifuge import contexts, types
from centrifuge.filter import FilterNode

from tests.conformance.sdks.contract import Json
from tests.support.recorded_events import RecordedEvents
from tests.support.refusal import Refused


class ClientEvents(centrifuge.ClientEventHandler):
    """Records the events of the connection and of its server-side subscriptions."""

    def __init__(self, events: RecordedEvents) -> None:
        self._record = events.record

    async def on_connecting(self, ctx: contexts.ConnectingContext) -> None:
        await self._record("connecting", **asdict(ctx))

    async def on_connected(self, ctx: contexts.ConnectedContext) -> None:
        await self._record("connected", client=ctx.client, data=ctx.data)

    async def on_disconnected(self, ctx: contexts.DisconnectedContext) -> None:
        await self._record("disconnected", **asdict(ctx))

    async def on_error(self, ctx: contexts.ErrorContext) -> None:
        await self._record("error", code=ctx.code, message=str(ctx.error))

    async def on_subscribed(self, ctx: contexts.ServerSubscribedContext) -> None:
        await self._record("server_subscribed", **_subscribed(ctx))

    async def on_subscribing(self, ctx: contexts.ServerSubscribingContext) -> None:
        await self._record("server_subscribing", **asdict(ctx))

    async def on_unsubscribed(self, ctx: contexts.ServerUnsubscribedContext) -> None:
        await self._record("server_unsubscribed", **asdict(ctx))

    async def on_publication(self, ctx: contexts.ServerPublicationContext) -> None:
        await self._record("server_publication", channel=ctx.channel, **asdict(ctx.pub))

    async def on_join(self, ctx: contexts.ServerJoinContext) -> None:
        await self._record("server_join", **asdict(ctx))

    async def on_leave(self, ctx: contexts.ServerLeaveContext) -> None:
        await self._record("server_leave", **asdict(ctx))


class SubscriptionEvents(centrifuge.SubscriptionEventHandler):
    """Records the events of one subscription."""

    def __init__(self, events: RecordedEvents, channel: str) -> None:
        self._record = events.record
        self._channel = channel

    async def on_subscribing(self, ctx: contexts.SubscribingContext) -> None:
        await self._record("subscribing", channel=self._channel, **asdict(ctx))

    async def on_subscribed(self, ctx: contexts.SubscribedContext) -> None:
        await self._record("subscribed", **_subscribed(ctx))

    async def on_unsubscribed(self, ctx: contexts.UnsubscribedContext) -> None:
        await self._record("unsubscribed", channel=self._channel, **asdict(ctx))

    async def on_publication(self, ctx: contexts.PublicationContext) -> None:
        await self._record("publication", channel=self._channel, **asdict(ctx.pub))

    async def on_join(self, ctx: contexts.JoinContext) -> None:
        await self._record("join", channel=self._channel, **asdict(ctx))

    async def on_leave(self, ctx: contexts.LeaveContext) -> None:
        await self._record("leave", channel=self._channel, **asdict(ctx))

    async def on_error(self, ctx: contexts.SubscriptionErrorContext) -> None:
        code = getattr(ctx.error, "code", ctx.code)  # the server's code if the server refused
        await self._record("subscription_error", channel=self._channel, code=code, message=str(ctx.error))


class CentrifugePython:
    """Translates the SDK's callbacks, dataclasses and exceptions into those of the contract."""

    def __init__(self) -> None:
        self.events = RecordedEvents()
        self._client: centrifuge.Client | None = None

    @property
    def client(self) -> centrifuge.Client:
        assert self._client is not None, "not connected yet"
        return self._client

    async def connect(
        self, url: str, *, token: str = "", tokens: list[str] | None = None, data: Any = None
    ) -> None:
        source = None if tokens is None else _TokenSource(self.events, tokens)
        self._client = centrifuge.Client(
            url,
            ClientEvents(self.events),
            token=token,
            get_token=source,
            data=data,
            max_reconnect_delay=0.2,
            proxy=None,
        )
        await self._client.connect()

    async def disconnect(self) -> None:
        await self.client.disconnect()

    async def subscribe(
        self,
        channel: str,
        *,
        token: str = "",
        tokens: list[str] | None = None,
        recoverable: bool = False,
        positioned: bool = False,
        join_leave: bool = False,
        delta: str = "",
        tags_filter: Json | None = None,
    ) -> None:
        source = None if tokens is None else _TokenSource(self.events, tokens)
        events = SubscriptionEvents(self.events, channel)
        subscription = self.client.new_subscription(
            channel,
            events,
            token=token,
            get_token=source,
            max_resubscribe_delay=0.2,
            positioned=positioned,
            recoverable=recoverable,
            join_leave=join_leave,
            delta=centrifuge.DeltaType(delta) if delta else None,
            tags_filter=None if tags_filter is None else FilterNode(tags_filter),
        )
        await subscription.subscribe()

    async def unsubscribe(self, channel: str) -> None:
        subscription = self.client.get_subscription(channel)
        assert subscription is not None
        await subscription.unsubscribe()

    async def publish(self, channel: str, data: Any) -> None:
        await _or_refused(self.client.publish(channel, data))

    async def presence(self, channel: str) -> dict[str, Json]:
        result = await _or_refused(self.client.presence(channel))
        return {client: asdict(info) for client, info in result.clients.items()}

    async def presence_stats(self, channel: str) -> dict[str, int]:
        result = await _or_refused(self.client.presence_stats(channel))
        return {"clients": result.num_clients, "users": result.num_users}

    async def history(
        self, channel: str, *, limit: int = 0, since: Json | None = None, reverse: bool = False
    ) -> Json:
        position = types.StreamPosition(**since) if since else None
        call = self.client.history(channel, limit=limit, since=position, reverse=reverse)
        return asdict(await _or_refused(call))

    async def rpc(self, method: str, data: Any) -> Any:
        return (await _or_refused(self.client.rpc(method, data))).data


class _TokenSource:
    """Returns the given tokens one by one, as an application's endpoint would, and then refuses."""

    def __init__(self, events: RecordedEvents, tokens: list[str]) -> None:
        self._events = events
        self._tokens = iter(tokens)

    async def __call__(self, channel: str | None = None) -> str:
        await self._events.record("token_requested", channel=channel)
        token = next(self._tokens, None)
        if token is None:
            raise centrifuge.UnauthorizedError
        return token


def _subscribed(ctx: contexts.SubscribedContext | contexts.ServerSubscribedContext) -> Json:
    details = asdict(ctx)
    return {"position": details.pop("stream_position"), **details}


async def _or_refused(call: Awaitable[Any]) -> Any:
    try:
        return await call
    except centrifuge.ReplyError as error:
        raise Refused(error.code, error.message) from error


@contextlib.asynccontextmanager
async def centrifuge_python() -> AsyncIterator[CentrifugePython]:
    sdk = CentrifugePython()
    try:
        yield sdk
    finally:
        if sdk._client is not None:
            await sdk.disconnect()
            await asyncio.gather(*sdk._client._background_tasks, return_exceptions=True)  # closing sockets
