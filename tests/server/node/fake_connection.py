"""Connections without a socket, which record what they receive, and a node that is not served."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tests.server.served_node import assert_nothing_is_left, is_settled, settings_of, until
from tocsin_server.core.channel import ChannelMessage
from tocsin_server.core.events import ConnectionLost
from tocsin_server.engine.engine import Engine
from tocsin_server.engine.memory.engine import MemoryEngine
from tocsin_server.errors import Disconnect
from tocsin_server.node.authorizer import Authorizer
from tocsin_server.node.client_request import ClientRequest
from tocsin_server.node.node import Node
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import ServerMessage

Json = dict[str, Any]


class LineFraming:
    """Packs shared messages as lines, once for all connections."""

    codec = JSON

    def pack(self, _channel: str, messages: Sequence[ChannelMessage]) -> bytes:
        """Return one payload."""
        return b"\n".join(JSON.wrap_push(message.encoded(JSON)) for message in messages)


LINE_FRAMING = LineFraming()


class FakeConnection:
    """A connection whose transport is a list: `received` holds every message, in order."""

    transport_name = "fake"
    address = "192.0.2.1"
    request: ClientRequest | None = None
    codec = JSON
    framing = LINE_FRAMING

    def __init__(self, node: Node) -> None:
        self.session = node.new_session()
        self.received: list[Json] = []
        self.closed_with: Disconnect | None = None
        self.pauses: list[bool] = []
        self._node = node
        self._ids = itertools.count(1)
        node.attach(self)

    # ---------------------------------------------------------------------------------------- the node's side

    @property
    def queued_bytes(self) -> int:
        """Return 0: a list is never slow."""
        return 0

    is_behind = False
    taken_bytes = 0
    sending_bytes = 0

    def write(self, payload: bytes) -> None:
        """Record the messages of a channel."""
        assert self.closed_with is None, "a message after the close"
        self.received += [json.loads(line) for line in payload.split(b"\n")]

    def send(self, messages: Sequence[ServerMessage]) -> None:
        """Record messages for this connection alone."""
        assert self.closed_with is None, "a message after the close"
        self.received += [json.loads(JSON.encode(message)) for message in messages]

    def close(self, why: Disconnect) -> None:
        """Record the code and reason."""
        assert self.closed_with is None, "a connection is closed once"
        self.closed_with = why

    def pause_reading(self, is_busy: bool) -> None:
        """Record the call."""
        self.pauses.append(is_busy)

    # ---------------------------------------------------------------------------------------- the test's side

    def send_command(self, method: str, /, **params: Any) -> int:
        """Send a command, and return its id."""
        number = next(self._ids)
        self.send_commands({"id": number, method: params})
        return number

    def send_commands(self, *commands: Json) -> None:
        """Send commands in one message."""
        message = "\n".join(json.dumps(command) for command in commands).encode()
        self._node.receive(self, message)

    async def call(self, method: str, /, **params: Any) -> Json:
        """Send a command, and return its whole reply."""
        number = self.send_command(method, **params)
        await until(lambda: self.reply(number) or self.closed_with)
        reply = self.reply(number)
        assert reply is not None, self.closed_with
        return reply

    def reply(self, number: int) -> Json | None:
        """Return the reply with this id, or None before it has come."""
        return next((message for message in self.received if message.get("id") == number), None)

    def drop(self) -> None:
        """Lose the connection, without a close or after one."""
        self._node.handle_event(self, ConnectionLost())

    def pushes(self, kind: str) -> list[Json]:
        """Return the bodies of all pushes of this kind so far."""
        return [message["push"][kind] for message in self.received if kind in message.get("push", {})]

    @property
    def data(self) -> list[Any]:
        """Return the data of every publication pushed so far."""
        return [publication["data"] for publication in self.pushes("pub")]


async def connected(node: Node, *channels: str, **connect: Any) -> FakeConnection:
    """Return a connection that has connected and subscribed."""
    connection = FakeConnection(node)
    assert "connect" in await connection.call("connect", **connect)
    for channel in channels:
        assert "subscribe" in await connection.call("subscribe", channel=channel)
    return connection


@asynccontextmanager
async def running(
    engine: Engine | None = None, rpc: Any = None, authorizer: Authorizer | None = None, **sections: Any
) -> AsyncIterator[Node]:
    """Run a node with the usual settings, changed by `sections`."""
    node = Node(settings_of(sections), engine or MemoryEngine(), rpc_methods=rpc, authorizer=authorizer)
    async with node.running():
        yield node


async def until_settled(node: Node) -> None:
    """Wait until the node has no task and no fan-out left."""
    await until(lambda: is_settled(node))


async def drop_and_check(node: Node, *connections: FakeConnection) -> None:
    """Drop the connections, and check that no state is left."""
    for connection in connections:
        connection.drop()
    await until_settled(node)
    assert_nothing_is_left(node)
