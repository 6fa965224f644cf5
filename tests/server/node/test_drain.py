"""A node drains: its clients are closed to reconnect, one after the other and in random order."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from tests.server.node.fake_connection import FakeConnection, connected, running
from tests.server.served_node import new_channel, publish, serve_node, until
from tests.support.wire_client import Close
from tocsin_server import errors
from tocsin_server.node.drain import HURRIED_PER_TURN, PAUSE_SECONDS, drain
from tocsin_server.node.node import Node

MANY = 20
"""Connections. A random order equals the original one once in 10^18."""


class PauseClock:
    """The clock of a node. It advances only while the node pauses; `on_pause` is called in each pause."""

    def __init__(self) -> None:
        self.now = time.monotonic()
        self.pauses: list[float] = []
        self.on_pause: Callable[[], Awaitable[None]] | None = None

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        if self.on_pause is not None:
            await self.on_pause()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> PauseClock:
    """Replace the clock of every node, so that no test waits in real time."""
    clock = PauseClock()
    time_module = SimpleNamespace(monotonic=lambda: clock.now, time=time.time)
    monkeypatch.setattr("tocsin_server.node.drain.time", time_module)
    monkeypatch.setattr(
        "tocsin_server.node.drain.asyncio", SimpleNamespace(**vars(asyncio) | {"sleep": clock.sleep})
    )
    return clock


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    async with running() as node:
        yield node


async def many(node: Node, *channels: str) -> list[FakeConnection]:
    return [await connected(node, *channels) for _ in range(MANY)]


def never() -> bool:
    return False


async def test_connections_are_closed_one_after_the_other_over_the_drain_time(
    node: Node, clock: PauseClock
) -> None:
    """The remaining ones are delivered every publication. The order is not the node's own."""
    news = new_channel("open")
    connections = await many(node, news)
    order = list(node.state.connections)
    closed: list[FakeConnection] = []

    def is_hurried() -> bool:
        before = len(closed)
        closed.extend(
            connection for connection in connections if connection.closed_with and connection not in closed
        )
        assert len(closed) == before + 1
        return False

    async def publish_one() -> None:
        assert node.unready_reason.startswith("The node is draining")
        remaining = [connection for connection in connections if not connection.closed_with]
        assert remaining or len(clock.pauses) == MANY - 1
        await publish(node, news, b"%d" % len(clock.pauses))
        await until(
            lambda: all(connection.data == [*range(1, len(clock.pauses) + 1)] for connection in remaining)
        )

    clock.on_pause = publish_one
    seconds = MANY * PAUSE_SECONDS / 2
    with capture_logs() as log_lines:
        assert await node.drain(seconds, is_hurried) == MANY
    assert {connection.closed_with for connection in connections} == {errors.SHUTDOWN}
    assert clock.pauses == pytest.approx([seconds / MANY] * (MANY - 1))
    assert set(closed) == set(connections)
    assert closed != order
    (log_line,) = (log_line for log_line in log_lines if log_line["event"] == "drained")
    assert (log_line["connections"], log_line["seconds"]) == (MANY, round(seconds * (MANY - 1) / MANY, 3))


async def test_a_few_connections_are_closed_at_the_shortest_pause(node: Node, clock: PauseClock) -> None:
    """However long the drain time is."""
    for _ in range(3):
        await connected(node)
    assert await node.drain(3600, never) == 3
    assert clock.pauses == pytest.approx([PAUSE_SECONDS] * 2)


async def test_a_drain_time_of_zero_needs_no_pauses(node: Node, clock: PauseClock) -> None:
    connections = await many(node)
    assert await node.drain(0, never) == MANY
    assert {connection.closed_with for connection in connections} == {errors.SHUTDOWN}
    assert not clock.pauses


async def test_a_hurried_drain_closes_the_remaining_connections_at_once(
    node: Node, clock: PauseClock
) -> None:
    """Without further pauses."""
    connections = await many(node)
    assert await node.drain(3600, lambda: len(clock.pauses) == 5) == MANY
    assert {connection.closed_with for connection in connections} == {errors.SHUTDOWN}
    assert len(clock.pauses) == 5


async def test_a_hurried_drain_of_many_lets_other_work_run(clock: PauseClock) -> None:
    """The loop goes on after each HURRIED_PER_TURN connections, without a pause."""
    closed: list[int] = []
    assert await drain(list(range(3 * HURRIED_PER_TURN)), closed.append, 0, lambda: True) == len(closed)
    assert clock.pauses == [0, 0, 0]


async def test_a_drain_catches_up_after_a_long_pause(node: Node, clock: PauseClock) -> None:
    """A busy node drains in its time; delays do not add up."""
    await many(node)
    began = clock.now

    async def stall() -> None:
        clock.now += 9.5 * PAUSE_SECONDS if len(clock.pauses) == 1 else 0

    clock.on_pause = stall
    await node.drain(3600, never)
    assert clock.now - began == pytest.approx((MANY - 1) * PAUSE_SECONDS)


async def test_connections_may_be_lost_and_made_during_a_drain(node: Node, clock: PauseClock) -> None:
    """A lost connection is not closed again; a new one is closed at once."""
    connections = await many(node)
    dropped: list[FakeConnection] = []
    late: list[FakeConnection] = []

    async def drop_and_connect() -> None:
        if remaining := [
            connection
            for connection in connections
            if not connection.closed_with and connection not in dropped
        ]:
            remaining[0].drop()
            dropped.append(remaining[0])
        late.append(FakeConnection(node))
        assert late[-1].closed_with == errors.SHUTDOWN

    clock.on_pause = drop_and_connect
    await node.drain(3600, never)
    assert dropped
    assert {connection.closed_with for connection in dropped} == {None}
    assert {connection.closed_with for connection in connections if connection not in dropped} == {
        errors.SHUTDOWN
    }
    assert not node.state.connections


async def test_a_second_signal_hurries_the_drain(clock: PauseClock) -> None:
    """The first one begins it, over the server's `drain_seconds`."""
    async with AsyncExitStack() as stack, serve_node() as served_node:
        websockets = [await stack.enter_async_context(served_node.connected()) for _ in range(5)]

        async def send_second_signal() -> None:
            served_node.server.handle_exit(signal.SIGTERM, None)

        clock.on_pause = send_second_signal
        served_node.server.handle_exit(signal.SIGTERM, None)
        for websocket in websockets:
            assert await websocket.closed() == Close(3001, "shutdown")
    assert len(clock.pauses) == 1


async def test_the_log_of_a_drain_is_as_long_for_1000_clients_as_for_one() -> None:
    """At level info: clients that connect, subscribe and are told to reconnect have no line of their own."""
    lines = {}
    for count in (1, 1000):
        with capture_logs() as log_lines:
            async with running() as node:
                clients = [FakeConnection(node) for _ in range(count)]
                for client in clients:
                    client.send_commands(
                        {"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "plain:a"}}
                    )
                await until(lambda: all(client.reply(2) for client in clients))  # noqa: B023 - awaited here
                assert await node.drain(0.0, lambda: True) == count
        lines[count] = [line["event"] for line in log_lines if line["log_level"] != "debug"]
    assert lines[1000] == lines[1] == ["drained", "connections_closed"]
