"""A node drains: its peers are told to come back elsewhere, one after the other and in no order."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from tests.server.node.fake_connection import FakeConnection, joined, running
from tests.server.served_node import new_channel, publish, serve_node, until
from tests.support.wire_client import Close
from tocsin_server import errors
from tocsin_server.node.drain import PAUSE_SECONDS
from tocsin_server.node.node import Node

MANY = 20
"""Peers. That their order is the same by chance happens once in 10^18."""


class Pauses:
    """The clock of a node, which moves only while the node pauses; `meanwhile` happens in every pause."""

    def __init__(self) -> None:
        self.now = time.monotonic()
        self.seconds: list[float] = []
        self.meanwhile: Callable[[], Awaitable[None]] | None = None

    async def sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self.now += seconds
        if self.meanwhile is not None:
            await self.meanwhile()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Pauses:
    """Of every node: no machine is too slow for them, and nobody waits."""
    pauses = Pauses()
    clock = SimpleNamespace(monotonic=lambda: pauses.now, time=time.time)
    monkeypatch.setattr("tocsin_server.node.drain.time", clock)
    monkeypatch.setattr(
        "tocsin_server.node.drain.asyncio", SimpleNamespace(**vars(asyncio) | {"sleep": pauses.sleep})
    )
    return pauses


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    async with running() as node:
        yield node


async def many(node: Node, *channels: str) -> list[FakeConnection]:
    return [await joined(node, *channels) for _ in range(MANY)]


def never() -> bool:
    return False


async def test_peers_are_told_one_after_the_other_over_the_time_there_is(node: Node, pauses: Pauses) -> None:
    """Who is still there hears everything meanwhile; the order is not that in which the node has them."""
    news = new_channel("open")
    peers = await many(node, news)
    had = list(node.state.connections)
    told: list[FakeConnection] = []

    def is_hurried() -> bool:
        before = len(told)
        told.extend(peer for peer in peers if peer.why and peer not in told)
        assert len(told) == before + 1
        return False

    async def hear() -> None:
        assert node.unready_reason.startswith("The node is draining")
        staying = [peer for peer in peers if not peer.why]
        assert staying or len(pauses.seconds) == MANY - 1
        await publish(node, news, b"%d" % len(pauses.seconds))
        await until(lambda: all(peer.data == [*range(1, len(pauses.seconds) + 1)] for peer in staying))

    pauses.meanwhile = hear
    seconds = MANY * PAUSE_SECONDS / 2
    with capture_logs() as logs:
        assert await node.drain(seconds, is_hurried) == MANY
    assert {peer.why for peer in peers} == {errors.SHUTDOWN}
    assert pauses.seconds == pytest.approx([seconds / MANY] * (MANY - 1))
    assert set(told) == set(peers)
    assert told != had
    (line,) = (line for line in logs if line["event"] == "drained")
    assert (line["connections"], line["seconds"]) == (MANY, round(seconds * (MANY - 1) / MANY, 3))


async def test_a_handful_is_gone_in_a_moment(node: Node, pauses: Pauses) -> None:
    """However long the node may take."""
    for _ in range(3):
        await joined(node)
    assert await node.drain(3600, never) == 3
    assert pauses.seconds == pytest.approx([PAUSE_SECONDS] * 2)


async def test_without_time_nobody_waits(node: Node, pauses: Pauses) -> None:
    peers = await many(node)
    assert await node.drain(0, never) == MANY
    assert {peer.why for peer in peers} == {errors.SHUTDOWN}
    assert not pauses.seconds


async def test_who_is_hurried_sends_the_rest_at_once(node: Node, pauses: Pauses) -> None:
    """From the moment on at which it is hurried."""
    peers = await many(node)
    assert await node.drain(3600, lambda: len(pauses.seconds) == 5) == MANY
    assert {peer.why for peer in peers} == {errors.SHUTDOWN}
    assert len(pauses.seconds) == 5


async def test_a_pause_that_took_longer_is_made_up_for(node: Node, pauses: Pauses) -> None:
    """A busy node is gone in its time, not later by what each pause took too long."""
    await many(node)
    began = pauses.now

    async def stall() -> None:
        pauses.now += 9.5 * PAUSE_SECONDS if len(pauses.seconds) == 1 else 0

    pauses.meanwhile = stall
    await node.drain(3600, never)
    assert pauses.now - began == pytest.approx((MANY - 1) * PAUSE_SECONDS)


async def test_who_leaves_or_comes_meanwhile_is_no_trouble(node: Node, pauses: Pauses) -> None:
    """The one is told nothing any more, the other at once."""
    peers = await many(node)
    leaving: list[FakeConnection] = []
    coming: list[FakeConnection] = []

    async def visit() -> None:
        if staying := [peer for peer in peers if not peer.why and peer not in leaving]:
            staying[0].lose()
            leaving.append(staying[0])
        coming.append(FakeConnection(node))
        assert coming[-1].why == errors.SHUTDOWN

    pauses.meanwhile = visit
    await node.drain(3600, never)
    assert leaving
    assert {peer.why for peer in leaving} == {None}
    assert {peer.why for peer in peers if peer not in leaving} == {errors.SHUTDOWN}
    assert not node.state.connections


async def test_a_second_signal_hurries_who_drains(pauses: Pauses) -> None:
    """The first has begun it, over the server's `drain_seconds`."""
    async with AsyncExitStack() as stack, serve_node() as served_node:
        wires = [await stack.enter_async_context(served_node.connected()) for _ in range(5)]

        async def insist() -> None:
            served_node.server.handle_exit(signal.SIGTERM, None)

        pauses.meanwhile = insist
        served_node.server.handle_exit(signal.SIGTERM, None)
        for wire in wires:
            assert await wire.closed() == Close(3001, "shutdown")
    assert len(pauses.seconds) == 1
