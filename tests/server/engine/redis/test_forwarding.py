"""Forwarding over Redis: a node that is gone is told from one that is silent."""

import asyncio
import signal
from contextlib import suppress

import pytest

from tests.server.engine.contract.harness import Node
from tests.server.engine.redis.blackhole_proxy import BlackholeProxy
from tests.server.engine.redis.conftest import Running
from tests.server.engine.redis.node_process import NodeProcess
from tests.support.timing import QUIET, STARTED
from tocsin_server.engine.redis import forwarding
from tocsin_server.errors import EngineError, Unanswered

SESSION = b"s" * 16


async def test_a_silent_node_is_an_error_and_a_killed_one_is_gone(
    node: Node, node_process: NodeProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the node. That a node was killed is known without waiting for its lease."""
    forward = node.engine.forwarding.forward
    assert await forward("other", SESSION, b"x") is False, "it is alive, and has no such session"
    node_process.signal(signal.SIGSTOP)
    monkeypatch.setattr(forwarding, "RECEIPT_SECONDS", QUIET)
    with pytest.raises(Unanswered, match="no answer from node other"):
        await forward("other", SESSION, b"x")
    await node_process.end()
    is_received = True
    async with asyncio.timeout(STARTED):
        while is_received:  # until Redis has noticed that the connection is closed
            with suppress(Unanswered):
                is_received = await forward("other", SESSION, b"x")
    monkeypatch.setattr(forwarding, "RECEIPT_SECONDS", 3600)
    assert await forward("other", SESSION, b"x") is False
    assert not node.engine.forwarding._pending  # type: ignore[attr-defined]


@pytest.mark.usefixtures("short_timeouts")
async def test_without_redis_nothing_is_forwarded(
    running: Running, proxy: BlackholeProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller gets an error in time."""
    async with running(proxy.url) as node:
        proxy.drop_all()
        with pytest.raises(EngineError):
            await node.engine.forwarding.forward("n2", SESSION, b"x")
        proxy.pass_all()
