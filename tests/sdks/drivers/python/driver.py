"""Drives `centrifuge-python`: commands and events are the JSON lines of tests/sdks/README.md."""

import asyncio
import base64
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import centrifuge
from centrifuge import contexts, types

Json = dict[str, Any]


def write(message: Json) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


class Payloads:
    """What applications hand to the SDK: any JSON, or in protobuf bytes."""

    def __init__(self, is_binary: bool) -> None:
        self._is_binary = is_binary

    def sent(self, data: Any, binary: str | None) -> Any:
        """The SDK's argument for JSON `data`, or for bytes in base64."""
        if not self._is_binary:
            return data
        return base64.b64decode(binary) if binary is not None else json.dumps(data).encode()

    def received(self, data: Any, name: str = "data") -> Json:
        """`{name: JSON}`, or `{"binary": base64}` of bytes that are not JSON."""
        if not isinstance(data, bytes):
            return {name: data}
        try:
            return {name: json.loads(data)}
        except ValueError:
            return {"binary": base64.b64encode(data).decode()}

    def info(self, info: types.ClientInfo | None) -> Json | None:
        if info is None:
            return None
        return {
            "client": info.client,
            "user": info.user,
            **self.received(info.conn_info, "conn_info"),
            **self.received(info.chan_info, "chan_info"),
        }

    def publication(self, publication: types.Publication) -> Json:
        return {
            **self.received(publication.data),
            "offset": publication.offset,
            "info": self.info(publication.info),
            "tags": publication.tags or {},
        }


class Events:
    """Writes the events of one client."""

    def __init__(self, client: int, payloads: Payloads) -> None:
        self._client = client
        self.payloads = payloads

    def emit(self, event: str, **details: Any) -> None:
        write({"client": self._client, "event": event, "details": details})

    def token_source(self, channel: str | None, tokens: list[str] | None) -> Any:
        """Returns the tokens one by one, as an application's endpoint would, and then refuses."""
        if tokens is None:
            return None
        remaining = iter(tokens)

        async def next_token(*_: str) -> str:
            self.emit("token_requested", channel=channel)
            token = next(remaining, None)
            if token is None:
                raise centrifuge.UnauthorizedError
            return token

        return next_token

    def subscribed(
        self, event: str, ctx: contexts.SubscribedContext | contexts.ServerSubscribedContext
    ) -> None:
        self.emit(
            event,
            channel=ctx.channel,
            was_recovering=ctx.was_recovering,
            recovered=ctx.recovered,
            **self.payloads.received(ctx.data),
        )


class ClientEvents(centrifuge.ClientEventHandler):
    """The events of a connection and of its server-side subscriptions."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._emit = events.emit

    async def on_connecting(self, ctx: contexts.ConnectingContext) -> None:
        self._emit("connecting", code=ctx.code, reason=ctx.reason)

    async def on_connected(self, ctx: contexts.ConnectedContext) -> None:
        self._emit("connected", client=ctx.client)

    async def on_disconnected(self, ctx: contexts.DisconnectedContext) -> None:
        self._emit("disconnected", code=ctx.code, reason=ctx.reason)

    async def on_error(self, ctx: contexts.ErrorContext) -> None:
        self._emit("error", code=getattr(ctx.error, "code", 0), message=str(ctx.error))

    async def on_subscribed(self, ctx: contexts.ServerSubscribedContext) -> None:
        self._events.subscribed("server_subscribed", ctx)

    async def on_publication(self, ctx: contexts.ServerPublicationContext) -> None:
        self._emit("server_publication", channel=ctx.channel, **self._events.payloads.publication(ctx.pub))


class SubscriptionEvents(centrifuge.SubscriptionEventHandler):
    """The events of one subscription."""

    def __init__(self, events: Events, channel: str) -> None:
        self._events = events
        self._emit = events.emit
        self._channel = channel

    async def on_subscribed(self, ctx: contexts.SubscribedContext) -> None:
        self._events.subscribed("subscribed", ctx)

    async def on_unsubscribed(self, ctx: contexts.UnsubscribedContext) -> None:
        self._emit("unsubscribed", channel=self._channel, code=ctx.code, reason=ctx.reason)

    async def on_publication(self, ctx: contexts.PublicationContext) -> None:
        self._emit("publication", channel=self._channel, **self._events.payloads.publication(ctx.pub))

    async def on_join(self, ctx: contexts.JoinContext) -> None:
        self._emit("join", channel=self._channel, info=self._events.payloads.info(ctx.info))

    async def on_leave(self, ctx: contexts.LeaveContext) -> None:
        self._emit("leave", channel=self._channel, info=self._events.payloads.info(ctx.info))

    async def on_error(self, ctx: contexts.SubscriptionErrorContext) -> None:
        code = getattr(ctx.error, "code", ctx.code)
        self._emit("subscription_error", channel=self._channel, code=code, message=str(ctx.error))


class Client:
    """The calls of one client."""

    def __init__(self, number: int, *, url: str, format: str, token: str, tokens: list[str] | None) -> None:  # noqa: A002
        self._payloads = Payloads(is_binary=format == "protobuf")
        self._events = Events(number, self._payloads)
        self.sdk = centrifuge.Client(
            url,
            ClientEvents(self._events),
            token=token,
            get_token=self._events.token_source(None, tokens),
            use_protobuf=format == "protobuf",
            max_reconnect_delay=0.2,
            proxy=None,
        )

    async def disconnect(self) -> None:
        await self.sdk.disconnect()

    async def subscribe(
        self,
        channel: str,
        *,
        token: str = "",
        tokens: list[str] | None = None,
        delta: bool = False,
        tag: list[str] | None = None,
    ) -> None:
        subscription = self.sdk.new_subscription(
            channel,
            SubscriptionEvents(self._events, channel),
            token=token,
            get_token=self._events.token_source(channel, tokens),
            max_resubscribe_delay=0.2,
            delta=centrifuge.DeltaType.FOSSIL if delta else None,
            tags_filter=centrifuge.Filter.eq(*tag) if tag else None,
        )
        await subscription.subscribe()

    async def unsubscribe(self, channel: str) -> None:
        subscription = self.sdk.get_subscription(channel)
        assert subscription is not None
        await subscription.unsubscribe()

    async def publish(self, channel: str, *, data: Any = None, binary: str | None = None) -> None:
        await self.sdk.publish(channel, self._payloads.sent(data, binary))

    async def presence(self, channel: str) -> Json:
        clients = (await self.sdk.presence(channel)).clients
        return {client: self._payloads.info(info) for client, info in clients.items()}

    async def presence_stats(self, channel: str) -> Json:
        stats = await self.sdk.presence_stats(channel)
        return {"clients": stats.num_clients, "users": stats.num_users}

    async def history(
        self, channel: str, *, limit: int = 0, since: Json | None = None, reverse: bool = False
    ) -> Json:
        position = types.StreamPosition(**since) if since else None
        page = await self.sdk.history(channel, limit=limit, since=position, reverse=reverse)
        publications = [self._payloads.publication(publication) for publication in page.publications]
        return {"publications": publications, "offset": page.offset, "epoch": page.epoch}

    async def rpc(self, method: str, *, data: Any) -> Any:
        result = await self.sdk.rpc(method, self._payloads.sent(data, None))
        return self._payloads.received(result.data)["data"]


class Driver:
    """The clients by their numbers."""

    def __init__(self) -> None:
        self._clients: dict[int, Client] = {}
        self._calls: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Execute the commands of standard input until it ends."""
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            call = asyncio.create_task(self._answer(json.loads(line)))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    async def _answer(self, command: Json) -> None:
        answer: Json = {"number": command["number"]}
        try:
            answer["result"] = await self._call(command["client"], command["call"], command["args"])
        except Exception as error:  # noqa: BLE001 -- the test decides
            answer["error"] = {"code": getattr(error, "code", 0), "message": str(error) or repr(error)}
        write(answer)

    async def _call(self, number: int, name: str, args: Json) -> Any:
        if name == "connect":
            del args["transport"], args["emulation_url"]  # it has WebSocket only
            self._clients[number] = client = Client(number, **args)
            return await client.sdk.connect()
        call: Callable[..., Awaitable[Any]] = getattr(self._clients[number], name)
        return await call(**args)


if __name__ == "__main__":
    asyncio.run(Driver().run())
