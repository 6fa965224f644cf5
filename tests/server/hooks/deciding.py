"""Nodes whose hooks do what a client names: the case is in a header, in a channel's name or in a method."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from tests.server.served_node import ServedNode, serve_node, settings_of
from tests.server.transports.hosts import under_uvicorn
from tocsin_server.app import create_app
from tocsin_server.engine.engine import Engine
from tocsin_server.errors import Disconnect, Refusal
from tocsin_server.hooks.answers import Answer, Connected, Published, Refreshed, RpcAnswer, Subscribed
from tocsin_server.hooks.events import (
    ConnectEvent,
    Event,
    PublishEvent,
    RefreshEvent,
    RpcEvent,
)
from tocsin_server.hooks.registry import Hooks
from tocsin_server.node.node import Node

if TYPE_CHECKING:
    from fastapi import FastAPI

    from tocsin_server.serving.server import Server

REFUSAL = Refusal(1000, "not today")
DISCONNECT = Disconnect(4500, "go away")

NAMED_ORIGIN = "https://named.example"
"""An origin that the nodes name; they allow every other one besides."""


class Decisions:
    """The hooks of a node, and what they were asked."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.released = asyncio.Event()
        """Set once hooks that wait may answer."""

    def add_to(self, hooks: Hooks) -> None:
        """Answer every kind of event."""
        hooks.connect(self.answer)
        hooks.refresh(self.answer)
        hooks.subscribe(self.answer)
        hooks.sub_refresh(self.answer)
        hooks.publish(self.answer)
        hooks.rpc(self.answer)

    def asked_about(self, case: str) -> list[Event]:
        """The events of a case so far."""
        return [event for event in self.events if case_of(event) == case]

    async def answer(self, event: Any) -> Any:
        """Answer as the case of the event says."""
        self.events.append(event)
        match case_of(event).split(".")[0]:
            case "refuse":
                return REFUSAL
            case "disconnect":
                return DISCONNECT
            case "error":
                raise RuntimeError("a fault of the application")
            case "timeout":
                await asyncio.Future()
            case "gone" | "draining":
                await self.released.wait()
            case "late":
                while not self.released.is_set():
                    try:
                        await self.released.wait()
                    except asyncio.CancelledError:
                        continue
        return admission_of(event)


def case_of(event: Event) -> str:
    """The case that the client names."""
    if isinstance(event, ConnectEvent):
        return event.request.headers.get("x-case", "admit")
    if isinstance(event, RefreshEvent):
        return "admit"
    return event.method if isinstance(event, RpcEvent) else event.channel


def admission_of(event: Event) -> Answer:
    """The answer that admits."""
    match event:
        case ConnectEvent():
            return Connected("ada", data={"transport": event.request.transport})
        case PublishEvent():
            return Published({"changed": event.json()})
        case RpcEvent():
            return RpcAnswer(event.json())
        case RefreshEvent():
            return Refreshed()
    return Refreshed() if type(event).__name__ == "SubRefreshEvent" else Subscribed()


@asynccontextmanager
async def deciding_node(
    engine: Engine, *, hook_timeout: float, is_asgi: bool
) -> AsyncIterator[tuple[ServedNode, Decisions]]:
    """Serve a node, by Tocsin's own server or by uvicorn alone."""
    decisions = Decisions()
    client = {"hook_timeout": hook_timeout, "unidirectional": True, "stale_timeout": 3600}
    server = {"allowed_origins": ["*", NAMED_ORIGIN]}
    if not is_asgi:
        async with serve_node(
            engine=engine, client=client, server=server, add_hooks=decisions.add_to
        ) as served:
            yield served, decisions
        return
    app = create_app(settings_of({"client": client, "server": server}), engine=engine)
    decisions.add_to(app.hooks)
    node: Node = app.state.node
    async with under_uvicorn(cast("FastAPI", app)) as host:
        yield ServedNode(node, cast("Server", Address(f"http://{host.authority}"))), decisions


class Address:
    """What a `ServedNode` needs of its server."""

    def __init__(self, url: str) -> None:
        self.url = url
