"""Sentinels: the node follows the master."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from tests.server.cluster.contract.harness import LOG, NO_LOG, draft
from tests.server.cluster.redis.conftest import Running
from tests.server.cluster.redis.redis_server import RedisServer, redis_running
from tests.server.cluster.redis.troubles import until_troubled, until_whole
from tests.support.timing import SOON, TICK
from tocsin_server.cluster.broker import HistoryQuery


@pytest.fixture
def master(tmp_path: Path) -> Iterator[RedisServer]:
    """It has a replica, which nobody need know."""
    with (
        redis_running(_folder(tmp_path, "master"), "repl-diskless-sync-delay 0") as server,
        redis_running(_folder(tmp_path, "replica"), f"replicaof 127.0.0.1 {server.port}") as replica,
    ):
        _until(lambda: replica.client.info("replication")["master_link_status"] == "up")
        yield server


@pytest.fixture
def sentinel(tmp_path: Path, master: RedisServer) -> Iterator[RedisServer]:
    """One that notices fast and decides alone."""
    lines = [
        f"sentinel monitor mymaster 127.0.0.1 {master.port} 1",
        "sentinel down-after-milliseconds mymaster 300",
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


async def test_a_failover_is_followed(running: Running, master: RedisServer, sentinel: RedisServer) -> None:
    """The log goes on at the replica, in the same epoch, since the replica had all of it."""
    async with running(f"redis+sentinel://127.0.0.1:{sentinel.port}/mymaster") as node:
        await node.broker.listen("news")
        top = await node.broker.publish("news", draft(1), LOG)
        master.command("WAIT", 1, 1000)
        master.stop()
        await until_troubled(node)
        await until_whole(node)
        await node.witness.until(lambda: node.witness.resumed == [["news"]])
        assert (await node.broker.read("news", HistoryQuery(limit=-1), LOG)).top == top
        assert await node.broker.publish("news", draft(2), LOG) == (2, top.epoch)
        node.witness.heard.clear()
        await node.broker.publish("news", draft(3), NO_LOG)
        await node.witness.until(lambda: b"3" in node.witness.payloads("news"))
