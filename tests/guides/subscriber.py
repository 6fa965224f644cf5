"""A client of the Python SDK with the identity of a visitor, subscribed to one channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from centrifuge import (
    Client,
    ClientEventHandler,
    DisconnectedContext,
    ErrorContext,
    JoinContext,
    LeaveContext,
    PublicationContext,
    SubscribedContext,
    SubscriptionEventHandler,
    UnsubscribedContext,
)

from tests.guides.applications import Application, Visitor
from tests.support.timing import SOON

Arrived = asyncio.Queue[tuple[str, Any]]


class _ClientEvents(ClientEventHandler):
    def __init__(self, arrived: Arrived) -> None:
        self._arrived = arrived

    async def on_disconnected(self, ctx: DisconnectedContext) -> None:
        self._arrived.put_nowait(("refused", ctx.code))

    async def on_error(self, ctx: ErrorContext) -> None:
        self._arrived.put_nowait(("refused", ctx.code))


class _SubscriptionEvents(SubscriptionEventHandler):
    def __init__(self, arrived: Arrived) -> None:
        self._arrived = arrived

    async def on_subscribed(self, _ctx: SubscribedContext) -> None:
        self._arrived.put_nowait(("subscribed", None))

    async def on_unsubscribed(self, ctx: UnsubscribedContext) -> None:
        self._arrived.put_nowait(("refused", ctx.code))

    async def on_publication(self, ctx: PublicationContext) -> None:
        self._arrived.put_nowait(("publication", ctx.pub.data))

    async def on_join(self, ctx: JoinContext) -> None:
        self._arrived.put_nowait(("join", ctx.info.user))

    async def on_leave(self, ctx: LeaveContext) -> None:
        self._arrived.put_nowait(("leave", ctx.info.user))


class Subscriber:
    """What happens to the client and to its subscription, in order."""

    def __init__(self) -> None:
        self.arrived: Arrived = asyncio.Queue()

    async def first_of(self, *kinds: str) -> tuple[str, Any]:
        """Wait for the next event of one of these kinds, and return its kind and its value."""
        async with asyncio.timeout(SOON):
            while (event := await self.arrived.get())[0] not in kinds:
                pass
        return event

    async def next(self, kind: str) -> Any:
        """Wait for the next event of this kind, and return its value."""
        return (await self.first_of(kind))[1]


@asynccontextmanager
async def subscribing(
    application: Application, channel: str, visitor: Visitor | None = None
) -> AsyncIterator[Subscriber]:
    """Connect, and subscribe to the channel: as a visitor, or without any identity."""
    subscriber = Subscriber()
    headers = {"Origin": application.url}
    get_token = get_subscription_token = None
    if visitor is not None:
        headers["Cookie"] = visitor.cookie
        given = await visitor.get("/me")
        get_token = visitor.token if "token" in given else None
        get_subscription_token = visitor.subscription_token if "subscription_token" in given else None
    client = Client(
        application.websocket_url,
        _ClientEvents(subscriber.arrived),
        get_token=get_token,
        headers=headers,
        proxy=None,
    )
    subscription = client.new_subscription(
        channel, _SubscriptionEvents(subscriber.arrived), get_token=get_subscription_token
    )
    try:
        await client.connect()
        await subscription.subscribe()
        yield subscriber
    finally:
        await client.disconnect()
