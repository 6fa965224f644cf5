"""Sentinels: a node follows the master."""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
import redis

from tests.server.engine.contract.harness import HISTORY, NO_HISTORY, publication
from tests.server.engine.redis.certificates import write_certificate
from tests.server.engine.redis.conftest import Running
from tests.server.engine.redis.readiness import until_not_ready, until_ready
from tests.server.engine.redis.redis_server import RedisServer, free_ports, redis_running
from tests.server.engine.redis.test_engine import failed_start
from tests.support.timing import SOON, TICK
from tocsin_server.engine.broker import HistoryQuery
from tocsin_server.engine.redis.connections import connector
from tocsin_server.engine.redis.connections.address import parse_address
from tocsin_server.engine.redis.connections.connection import pack_command
from tocsin_server.engine.redis.connections.connector import Backoff, Connector
from tocsin_server.engine.redis.pipeline import Pipeline
from tocsin_server.protocol.messages import Position


@pytest.fixture
def master(tmp_path: Path) -> Iterator[RedisServer]:
    """A master with a replica, which the test does not need to address."""
    with (
        redis_running(_folder(tmp_path, "master"), "repl-diskless-sync-delay 0") as server,
        redis_running(_folder(tmp_path, "replica"), f"replicaof 127.0.0.1 {server.port}") as replica,
    ):
        _until(lambda: replica.client.info("replication")["master_link_status"] == "up")
        yield server


PATIENT_MS, IMPATIENT_MS = 60_000, 300
"""For how long a master may be silent: until a test kills it, and from then on."""


@pytest.fixture
def sentinel(tmp_path: Path, master: RedisServer) -> Iterator[RedisServer]:
    """A Sentinel that decides alone."""
    lines = [
        f"sentinel monitor mymaster 127.0.0.1 {master.port} 1",
        f"sentinel down-after-milliseconds mymaster {PATIENT_MS}",
        "sentinel failover-timeout mymaster 2000",
    ]
    with redis_running(_folder(tmp_path, "sentinel"), *lines, is_sentinel=True) as server:
        _until(lambda: bool(server.command("SENTINEL", "REPLICAS", "mymaster")))
        yield server


def _folder(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir()
    return folder


def _until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + SOON
    while True:
        try:
            if condition():
                return
        except redis.RedisError:
            pass
        assert time.monotonic() < give_up_at
        time.sleep(TICK / 5)


async def test_a_node_follows_a_failover(
    running: Running, master: RedisServer, sentinel: RedisServer
) -> None:
    """The history continues at the replica, in the same epoch, because the replica had all of it."""
    async with running(f"redis+sentinel://127.0.0.1:{sentinel.port}/mymaster") as node:
        await node.broker.subscribe("news")
        top = await node.broker.publish("news", publication(1), HISTORY)
        written = master.client.info("replication")["master_repl_offset"]
        _until(lambda: master.client.info("replication")["slave0"]["offset"] >= written)
        sentinel.command("SENTINEL", "SET", "mymaster", "down-after-milliseconds", IMPATIENT_MS)
        master.stop()
        await until_not_ready(node)
        await until_ready(node)
        await node.handler.until(lambda: node.handler.resubscribed == [["news"]])
        assert (await node.broker.read_history("news", HistoryQuery(limit=-1), HISTORY)).top == top
        assert await node.broker.publish("news", publication(2), HISTORY) == Position(2, top.epoch)
        node.handler.received.clear()
        await node.broker.publish("news", publication(3), NO_HISTORY)
        await node.handler.until(lambda: b"3" in node.handler.payloads("news"))


@pytest.mark.parametrize("is_frozen", [True, False])
async def test_a_node_starts_although_one_sentinel_is_down(
    running: Running, sentinel: RedisServer, tmp_path: Path, *, is_frozen: bool
) -> None:
    """Whether that Sentinel is first or last in the address, frozen or stopped."""
    with redis_running(_folder(tmp_path, "other"), is_sentinel=True) as other:
        if is_frozen:
            other.freeze()
        else:
            other.stop()
        async with running(
            f"redis+sentinel://127.0.0.1:{other.port},127.0.0.1:{sentinel.port}/mymaster"
        ) as node:
            await node.broker.publish("news", publication(1), HISTORY)


async def test_the_sentinel_that_has_seen_the_latest_failover_decides(
    master: RedisServer, sentinel: RedisServer, redis_server: RedisServer, tmp_path: Path
) -> None:
    """Another Sentinel, which is first in the address, names an earlier master."""
    earlier = f"sentinel monitor mymaster 127.0.0.1 {redis_server.port} 1"
    _until(lambda: bool(sentinel.command("SENTINEL", "FAILOVER", "mymaster")))
    _until(lambda: _named(sentinel) != master.port)
    with redis_running(_folder(tmp_path, "behind"), earlier, is_sentinel=True) as behind:
        assert _named(behind) == redis_server.port
        hosts = f"127.0.0.1:{behind.port},127.0.0.1:{sentinel.port}"
        connector = Connector(parse_address(f"redis+sentinel://{hosts}/mymaster"), "test")
        async with connector.connected() as connection:
            (answer,) = await connection.execute(pack_command("CONFIG", "GET", "port"))
        await connector.close()
    assert int(answer[1]) == _named(sentinel)


async def test_an_unknown_master_is_an_error_with_a_reason(sentinel: RedisServer) -> None:
    """The message contains the errors of the Sentinels."""
    (nowhere,) = free_ports(1)
    said = await failed_start(f"redis+sentinel://127.0.0.1:{sentinel.port},127.0.0.1:{nowhere}/another")
    assert "no Sentinel names a master of another: Error 111 connecting to" in said


def _named(sentinel: RedisServer) -> int:
    """The port of the master that a Sentinel names."""
    return int(sentinel.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster")[1])


TURNS = 240
"""Turns of the event loop, more than finding the master takes."""


async def test_a_pipeline_can_be_cancelled_while_it_finds_the_master(sentinel: RedisServer) -> None:
    """At any turn of the event loop. redis-py may swallow the cancellation."""
    address = parse_address(f"redis+sentinel://127.0.0.1:{sentinel.port}/mymaster")
    for turns in range(TURNS):
        connector = Connector(address, "test")
        running = asyncio.create_task(Pipeline(connector, Backoff(Random(1))).run())
        for _ in range(turns):
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running], timeout=SOON)
        has_stopped = running.cancelled()
        running.cancel()
        await asyncio.wait([running], timeout=SOON)
        await connector.close()
        assert has_stopped, f"not after {turns} turns"


async def test_sentinels_and_their_master_are_reached_over_tls(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same authority. The handshakes may take as long as a slow machine needs."""
    monkeypatch.setattr(connector, "SENTINEL_SECONDS", SOON)
    monkeypatch.setattr(connector, "CONNECT_SECONDS", SOON)
    certificate, key = write_certificate(tmp_path)
    tls = [f"tls-cert-file {certificate}", f"tls-key-file {key}", f"tls-ca-cert-file {certificate}"]
    lines = [*tls, "tls-port {free_port}", "tls-auth-clients no", "tls-replication yes"]
    with redis_running(_folder(tmp_path, "master"), *lines) as master:
        monitor = [
            f"sentinel monitor mymaster 127.0.0.1 {master.second_port} 1",
            f"sentinel down-after-milliseconds mymaster {PATIENT_MS}",
        ]
        with redis_running(_folder(tmp_path, "sentinel"), *lines, *monitor, is_sentinel=True) as sentinel:
            address = f"rediss+sentinel://127.0.0.1:{sentinel.second_port}/mymaster"
            async with running(f"{address}?ssl_ca_certs={certificate}") as node:
                await node.broker.subscribe("news")
                await node.broker.publish("news", publication(1), HISTORY)
                await node.handler.until_received(1)
            assert "cannot be used" in await failed_start(address)


async def test_a_sentinel_that_considers_the_master_down_names_none(tmp_path: Path) -> None:
    """The error says so, and the node does not try to reach it."""
    with redis_running(_folder(tmp_path, "master")) as master:
        monitor = [
            f"sentinel monitor mymaster 127.0.0.1 {master.port} 2",  # alone, it never fails over
            f"sentinel down-after-milliseconds mymaster {IMPATIENT_MS}",
        ]
        with redis_running(_folder(tmp_path, "sentinel"), *monitor, is_sentinel=True) as sentinel:
            master.freeze()
            _until(lambda: "is_sdown" in _state(sentinel))
            said = await failed_start(f"redis+sentinel://127.0.0.1:{sentinel.port}/mymaster")
            assert "consider it down" in said
            master.thaw()


def _state(sentinel: RedisServer) -> list[str]:
    """What a Sentinel says of its master: the flags that are set."""
    state = sentinel.client.sentinel_master("mymaster")
    assert isinstance(state, dict)
    return [flag for flag, is_set in state.items() if is_set is True]
