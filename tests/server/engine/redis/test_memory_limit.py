"""The memory limit: a node takes no further memory of a Redis that is nearly full."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.server.engine.contract.harness import HISTORY, NO_HISTORY, Node, publication
from tests.server.engine.recording_handler import RecordingHandler
from tests.server.engine.redis.redis_server import RedisServer
from tests.support.timing import QUIET, STARTED
from tocsin_server.engine.broker import TOP_ONLY, NewPublication
from tocsin_server.engine.redis import server_checks
from tocsin_server.engine.redis.connections.address import parse_address
from tocsin_server.engine.redis.engine import RedisEngine
from tocsin_server.errors import EngineFull
from tocsin_server.protocol.messages import ClientInfo


@pytest.fixture
async def node(volatile_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    """A node with a memory limit of one half, which it checks often."""
    monkeypatch.setattr(server_checks, "MEMORY_SECONDS", QUIET / 10)
    engine = RedisEngine(parse_address(volatile_redis.url), "test", memory_limit=0.5)
    node = Node(engine, RecordingHandler("n1"))
    await engine.start(node.handler)
    yield node
    await engine.stop()


async def until_refused(call: Callable[[], Awaitable[object]], *, is_refused: bool = True) -> None:
    """Call until the node knows the used memory."""
    async with asyncio.timeout(STARTED):
        while True:
            try:
                await call()
            except EngineFull:
                if is_refused:
                    return
            else:
                if not is_refused:
                    return
            await asyncio.sleep(QUIET / 10)


async def test_a_nearly_full_redis_gets_no_new_histories_and_presence(
    node: Node, volatile_redis: RedisServer
) -> None:
    """Histories that exist continue, and so do presence entries and channels without history."""
    number = iter(range(10_000))

    async def begin_history() -> None:
        await node.broker.publish(f"new:{next(number)}", publication(1), HISTORY)

    await node.broker.publish("old", publication(1), HISTORY)
    await node.presence.add("old", ClientInfo("42", "c1"))
    used = int(volatile_redis.client.info("memory")["used_memory"])
    volatile_redis.command("CONFIG", "SET", "maxmemory", round(used * 1.5))
    await until_refused(begin_history)
    with pytest.raises(EngineFull):
        await node.presence.add("old", ClientInfo("43", "c2"))
    assert (await node.broker.publish("old", publication(2), HISTORY)).offset == 2
    keyed = NewPublication(publication(3).data, idempotency_key="k")
    assert (await node.broker.publish("old", keyed, HISTORY)).offset == 3
    await node.broker.publish("new", publication(1), NO_HISTORY)
    assert (await node.broker.read_history("new", TOP_ONLY, HISTORY)).top.offset == 0
    assert list(await node.presence.members("old")) == ["c1"]
    assert not node.engine.unready_reason
    volatile_redis.command("CONFIG", "SET", "maxmemory", used * 100)
    await until_refused(begin_history, is_refused=False)
    await node.presence.add("old", ClientInfo("43", "c2"))
