"""The publish stream with a real Redis: what XADD publishes, in which order, how often, and what fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.server.engine.redis.redis_server import RedisServer, redis_running
from tests.server.engine.redis.test_server_checks import NEEDED, allow
from tests.server.sources.outbox_table import is_reading, published, until
from tests.server.sources.stream_nodes import SOURCE, node_of, until_empty
from tests.support.timing import SOON
from tocsin_server.config.loading import Settings
from tocsin_server.engine.redis.engine import RedisEngine
from tocsin_server.errors import INTERNAL_ERROR, EngineLimit
from tocsin_server.node.node import Node
from tocsin_server.node.operations import Operations
from tocsin_server.sources import reader
from tocsin_server.sources.publish_stream import PublishStreamSource
from tocsin_server.sources.publishing import Deadline, EntryPublisher

Running = Callable[..., AbstractAsyncContextManager[Node]]


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes that do not read try to sooner, and held channels are tried again sooner."""
    monkeypatch.setattr(reader, "STANDBY_SECONDS", 0.05)
    monkeypatch.setattr(reader, "HOLD_SECONDS", 0.05)
    monkeypatch.setattr(reader, "MAX_BACKOFF_SECONDS", 0.1)


@pytest.fixture
def running(redis_server: RedisServer, prefix: str) -> Running:
    """A function that runs a node which reads the stream."""

    @asynccontextmanager
    async def run(**sections: Any) -> AsyncIterator[Node]:
        async with node_of(redis_server.url, prefix, **sections).running() as node:
            yield node

    return run


@pytest.fixture
def volatile_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of one test."""
    with redis_running(tmp_path, "appendonly no") as server:
        yield server


@pytest.fixture
def add(redis_server: RedisServer, prefix: str) -> Callable[..., str]:
    """A function that adds an entry, as any program would."""

    def add(*words: object, **fields: object) -> str:
        words += tuple(word for item in fields.items() for word in item)
        entry: bytes = redis_server.command("XADD", f"{prefix}:publish", "*", *words)
        return entry.decode()

    return add


async def test_entries_are_published_in_order_and_deleted(
    running: Running, add: Callable[..., str], redis_server: RedisServer, prefix: str
) -> None:
    """Those that were there before the node began, and those that follow."""
    add(channel="log:a", data=1)
    add(channel="log:b", data=2)
    async with running() as node:
        for number in range(3, 300):
            add(channel="log:a", data=number)
        await until_empty(redis_server, prefix)
        assert await published(node, "log:a") == [1, *range(3, 300)]
        assert await published(node, "log:b") == [2]
        await until(lambda: node.metrics.source_publications.counts[SOURCE,] == 299)


async def test_an_entry_has_what_a_call_of_the_api_has(
    running: Running, add: Callable[..., str], redis_server: RedisServer, prefix: str
) -> None:
    """Tags, other bytes, options, and an idempotency key that the API shares."""
    add(channel="log:a", data=1, tags='{"lang": "en"}', idempotency_key="k")
    add(channel="log:a", data=2, idempotency_key="k")
    add(channel="log:a", data=3, options='{"skip_history": true}')
    add(channel="log:a", binary_data=b"\x00\xff")
    async with running() as node:
        await until_empty(redis_server, prefix)
        page = await node.operations.history("log:a", -1, None, is_reverse=False)
        assert [bytes(one.data) for one in page.publications] == [b"1", b"\x00\xff"]
        assert page.publications[0].tags == {"lang": "en"}


async def test_an_entry_that_cannot_be_published_is_kept_with_the_reason(
    running: Running, add: Callable[..., str], redis_server: RedisServer, prefix: str
) -> None:
    """It holds up no other. The newest `failure_limit` are kept."""
    for number in range(5):
        add(channel="unknown:a", data=number)
    first = add(channel="unknown:a", data=7)
    add(channel="log:a", data=1, colour="red")
    add("channel", "log:a", "data", 1, "data", 2)
    add(channel=b"\xff", data=1)
    add(channel="log:a", data="{")
    add(channel="log:a", data="1" * 2_000_000)
    add(data=1)
    add(channel="log:a", **{"a" * 20 + str(number): 1 for number in range(300)})
    add(channel="log:a", data=2)
    async with running(publish_stream={"failure_limit": 8}) as node:
        await until_empty(redis_server, prefix)
        assert await published(node, "log:a") == [2]
        failures = redis_server.command("XRANGE", f"{prefix}:{{{prefix}:publish}}:failures", "-", "+")
        kept = [{name.decode(): value for name, value in fields.items()} for _, fields in failures]
        assert len(kept) == 8
        assert kept[0] == {
            "entry": first.encode(),
            "failure": b"unknown channel",
            "channel": b"unknown:a",
            "data": b"7",
        }
        reasons = [one["failure"].decode() for one in kept[1:]]
        assert reasons[0] == "it has the unknown field 'colour'"
        assert reasons[1] == "it has a field twice"
        assert reasons[2] == "channel or idempotency_key is not UTF-8"
        assert reasons[3].startswith("data is no JSON")
        assert reasons[4].endswith("bytes, and at most api.body_limit_bytes (1048576) can be published")
        assert "data" not in kept[5]
        assert reasons[5] == "bad request: there is no channel"
        assert reasons[6].startswith("it has the unknown field")
        await until(lambda: node.metrics.source_failures.counts[SOURCE,] == 13)


async def test_an_entry_for_a_channel_that_is_not_allowed_fails(
    running: Running, add: Callable[..., str], redis_server: RedisServer, prefix: str
) -> None:
    """It is kept with the reason."""
    add(channel="log:b", data=1)
    add(channel="log:a", data=2)
    async with running(publish_stream={"channels": ["log:a", "chat:*"]}) as node:
        await until_empty(redis_server, prefix)
        assert await published(node, "log:a") == [2]
        assert await published(node, "log:b") == []
        ((_, failed),) = redis_server.command("XRANGE", f"{prefix}:{{{prefix}:publish}}:failures", "-", "+")
        assert failed[b"failure"] == b"its channel is not one of publish_stream.channels"


async def test_a_node_that_cannot_publish_lets_another_one_read(
    running: Running, add: Callable[..., str], redis_server: RedisServer, prefix: str
) -> None:
    """Because it drains or is deaf: it releases its claim, and the other one follows at once."""
    async with running() as first:
        await until(lambda: is_reading(first, SOURCE))
        async with running() as second:
            add(channel="log:a", data=1)
            await until_empty(redis_server, prefix)
            assert not is_reading(second, SOURCE)
            first.is_draining = True
            await until(lambda: is_reading(second, SOURCE))
            assert not is_reading(first, SOURCE)
            add(channel="log:a", data=2)
            await until_empty(redis_server, prefix)
            assert await published(second, "log:a") == [1, 2]


async def test_what_a_node_published_and_did_not_delete_is_not_published_again(
    running: Running, add: Callable[..., str], redis_server: RedisServer, prefix: str
) -> None:
    """As by a node that was killed between the two. The keys of what is deleted expire as soon as others."""
    for number in range(10):
        add(channel="log:a", data=number)
    async with running(publish_stream={"enabled": False}) as killed:
        assert isinstance(killed.engine, RedisEngine)
        options = Settings.model_validate(
            {"engine": {"url": redis_server.url}, "publish_stream": {"enabled": True}}
        ).publish_stream
        source = PublishStreamSource(killed.engine.publish_stream, options, 1_000_000)
        async with source.opened() as opened:
            entries = (await opened.read(()))[:6]
            publisher = EntryPublisher(source, killed.operations, killed.sampled_log)
            assert (await publisher.publish(entries, Deadline(SOON))).published == list(entries)
        keys = [name.decode() for name in redis_server.command("KEYS", f"{prefix}:{{log:a}}:idem:*")]
        assert len(keys) == 6
        assert min(redis_server.command("PTTL", name) for name in keys) > 86_400_000
    async with running() as node:
        await until_empty(redis_server, prefix)
        assert await published(node, "log:a") == list(range(10))
        await until(lambda: redis_server.command("PTTL", keys[-1]) <= 300_000)
    assert max(redis_server.command("PTTL", name) for name in keys) <= 300_000


async def test_a_channel_that_cannot_take_an_entry_now_holds_up_no_other(
    running: Running,
    add: Callable[..., str],
    redis_server: RedisServer,
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also if its entries fill many batches. They stay in order until they can be published."""
    begin_publish, is_full = Operations.begin_publish, True

    def refuse(self: Operations, channel: str, publication: Any) -> Any:
        if channel == "log:full" and is_full:
            raise EngineLimit("engine.memory_limit", INTERNAL_ERROR)
        return begin_publish(self, channel, publication)

    monkeypatch.setattr(Operations, "begin_publish", refuse)
    for number in range(50):
        add(channel="log:full", data=number)
    add(channel="log:a", data=1)
    async with running(publish_stream={"batch_size": 3}) as node:
        await until(lambda: node.metrics.source_publications.counts[SOURCE,] == 1)
        assert await published(node, "log:a") == [1]
        is_full = False
        await until_empty(redis_server, prefix)
        assert await published(node, "log:full") == list(range(50))


async def test_a_full_redis_keeps_entries_and_takes_failures(volatile_redis: RedisServer) -> None:
    """The node keeps its claim. What takes memory is published once there is some."""
    stream, claim = "full:publish", "full:{full:publish}:claim"
    async with node_of(volatile_redis.url, "full").running() as node:
        await until(lambda: is_reading(node, SOURCE))
        volatile_redis.command("XADD", stream, "*", "channel", "log:b", "data", 1)
        await until_empty(volatile_redis, "full")
        filling = volatile_redis.client.pipeline()
        for channel in ("log:a", "unknown:a"):
            filling.xadd(stream, {"channel": channel, "data": 1})
        filling.config_set("maxmemory", 1)
        filling.execute()
        await until(lambda: node.metrics.source_failures.counts[SOURCE,] == 1)
        assert volatile_redis.command("XLEN", stream) == 1
        volatile_redis.command("PEXPIRE", claim, 60_000)
        await until(lambda: volatile_redis.command("PTTL", claim) <= 3000)
        volatile_redis.command("CONFIG", "SET", "maxmemory", 0)
        await until_empty(volatile_redis, "full")
        assert await published(node, "log:a") == [1]


async def test_entries_survive_a_restart_of_redis(tmp_path: Any, prefix: str) -> None:
    """Each is published once. The node warns while it cannot read."""
    with redis_running(tmp_path, "appendonly yes", "appendfsync always") as server:

        def add(number: int) -> None:
            server.command("XADD", f"{prefix}:publish", "*", "channel", "log:a", "data", number)

        async with node_of(server.url, prefix).running() as node:
            add(1)
            await until_empty(server, prefix)
            server.stop()
            await until(lambda: not is_reading(node, SOURCE))
            server.start()
            add(2)
            await until_empty(server, prefix)
            assert await published(node, "log:a") == [1, 2]
            await until(lambda: not [one for one in node.warnings if SOURCE in one])


async def test_a_node_needs_three_more_permissions(volatile_redis: RedisServer) -> None:
    """Those that docs/operate.md names. Without them the node serves its clients, and warns."""
    url = allow(volatile_redis, NEEDED, "acl")
    volatile_redis.command("XADD", "acl:publish", "*", "channel", "log:a", "data", 1)
    async with node_of(url, "acl").running() as node:
        await until(lambda: [one for one in node.warnings if "publish_stream cannot be read" in one])
        assert not node.unready_reason
        volatile_redis.command("ACL", "SETUSER", "node", "+xread", "+xdel", "+xlen")
        volatile_redis.command("ACL", "LOG", "RESET")
        await until_empty(volatile_redis, "acl")
        await until(lambda: is_reading(node, SOURCE))
        volatile_redis.command("XADD", "acl:publish", "*", "channel", "unknown:a", "data", 2)
        await until_empty(volatile_redis, "acl")
    assert volatile_redis.command("ACL", "LOG") == []


def test_a_stream_needs_a_redis() -> None:
    """The error names both keys."""
    with pytest.raises(ValueError, match=r"publish_stream.enabled is true, but engine.url is memory://"):
        Settings.model_validate({"publish_stream": {"enabled": True}})
