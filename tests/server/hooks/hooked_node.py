"""A node with hooks and without a server, and connections that its hooks admit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.server.node.fake_connection import FakeConnection
from tests.server.served_node import settings_of
from tocsin_server.app import create_app
from tocsin_server.hooks.answers import Connected, Subscribed
from tocsin_server.hooks.events import ConnectEvent
from tocsin_server.hooks.registry import Hooks
from tocsin_server.node.node import Node


@asynccontextmanager
async def running(add_hooks: Callable[[Hooks], object], **sections: Any) -> AsyncIterator[Node]:
    """Run a node with hooks, without a server."""
    app = create_app(settings_of(sections))
    add_hooks(app.hooks)
    node: Node = app.state.node
    async with node.running():
        yield node


def calls_of(node: Node) -> dict[tuple[str, ...], int]:
    """Return how many calls of hooks were counted, by kind, hook and outcome."""
    return dict(node.metrics.hook_calls.counts)


async def admitted(node: Node, *channels: str) -> FakeConnection:
    """Return a connection that hooks have admitted, if they are asked."""
    connection = FakeConnection(node)
    assert "connect" in await connection.call("connect", data={"name": "ada"})
    for channel in channels:
        assert "subscribe" in await connection.call("subscribe", channel=channel)
    return connection


class Gate:
    """A hook that answers once it may, and counts."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.asked: list[str] = []

    async def __call__(self, event: Any) -> Any:
        self.asked.append(event.client)
        await self.opened.wait()
        return Connected("ada") if isinstance(event, ConnectEvent) else Subscribed()


class FaultError(Exception):
    """What a hook of these tests raises."""
