"""Peers without a socket, which remember what they are told, and a node that runs without being served."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from msgspec import Raw

from tests.server.served_node import Sections, settings_of, until
from tocsin_server.core.channel import ChannelMessage
from tocsin_server.core.events import ConnectionLost
from tocsin_server.engine.engine import Engine
from tocsin_server.engine.memory.engine import MemoryEngine
from tocsin_server.errors import Disconnect
from tocsin_server.node.authorizer import Authorizer
from tocsin_server.node.node import Node
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import ServerMessage

Json = dict[str, Any]


class LineFraming:
    """Packs items as lines, one payload for everybody."""

    def pack(self, _channel: str, items: Sequence[ChannelMessage]) -> bytes:
        """Return the lines."""
        return b"\n".join(JSON.wrap_push(item.encoded(JSON)) for item in items)


LINE_FRAMING = LineFraming()


class FakeConnection:
    """A peer whose transport is a list: `told` holds every message, in order."""

    transport_name = "quiet"
    codec = JSON
    framing = LINE_FRAMING

    def __init__(self, node: Node) -> None:
        self.session = node.new_session()
        self.told: list[Json] = []
        self.why: Disconnect | None = None
        self.held_back: list[bool] = []
        self._node = node
        self._ids = itertools.count(1)
        node.attach(self)

    # ---------------------------------------------------------------------------------------- the node's side

    @property
    def queued_bytes(self) -> int:
        """Nothing: a list is never slow."""
        return 0

    def write(self, payload: bytes) -> None:
        """Take what the channel tells everybody."""
        assert self.why is None, "nothing follows a close"
        self.told += [json.loads(line) for line in payload.split(b"\n")]

    def send(self, messages: Sequence[ServerMessage]) -> None:
        """Take what only this peer is told."""
        assert self.why is None, "nothing follows a close"
        self.told += [json.loads(JSON.encode(message)) for message in messages]

    def close(self, why: Disconnect) -> None:
        """Remember why."""
        assert self.why is None, "nobody is closed twice"
        self.why = why

    def pause_reading(self, is_busy: bool) -> None:
        """Remember it."""
        self.held_back.append(is_busy)

    # ---------------------------------------------------------------------------------------- the test's side

    def say(self, method: str, /, **params: Any) -> int:
        """Send a command; its id."""
        number = next(self._ids)
        self.say_all({"id": number, method: params})
        return number

    def say_all(self, *commands: Json) -> None:
        """Send commands in one message."""
        message = "\n".join(json.dumps(command) for command in commands).encode()
        self._node.receive(self, message)

    async def call(self, method: str, /, **params: Any) -> Json:
        """Send a command; its reply, whole."""
        number = self.say(method, **params)
        await until(lambda: self.reply(number) or self.why)
        reply = self.reply(number)
        assert reply is not None, self.why
        return reply

    def reply(self, number: int) -> Json | None:
        """The reply with this id, if it has come."""
        return next((message for message in self.told if message.get("id") == number), None)

    def lose(self) -> None:
        """Be gone without a word."""
        self._node.handle_event(self, ConnectionLost())

    def pushes(self, kind: str) -> list[Json]:
        """The bodies of all pushes of this kind so far."""
        return [message["push"][kind] for message in self.told if kind in message.get("push", {})]

    @property
    def data(self) -> list[Any]:
        """The data of every publication pushed so far."""
        return [publication["data"] for publication in self.pushes("pub")]


async def joined(node: Node, *channels: str, **connect: Any) -> FakeConnection:
    """A peer that has connected and subscribed."""
    peer = FakeConnection(node)
    assert "connect" in await peer.call("connect", **connect)
    for channel in channels:
        assert "subscribe" in await peer.call("subscribe", channel=channel)
    return peer


@asynccontextmanager
async def running(
    engine: Engine | None = None, rpc: Any = None, authorizer: Authorizer | None = None, **sections: Any
) -> AsyncIterator[Node]:
    """A running node with the usual settings, changed by `sections`."""
    node = Node(_settings(sections), engine or MemoryEngine(), rpc_methods=rpc, authorizer=authorizer)
    async with node.running():
        yield node


def _settings(sections: Sections) -> Any:
    return settings_of(sections)


def raw(value: Any) -> Raw:
    """A JSON value as the engine takes it."""
    return Raw(json.dumps(value).encode())
