"""The canary tells whether the link leads to where calls go, although it comes back."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from tests.server.engine.redis.redis_server import RedisServer, redis_running
from tests.support.timing import SOON, TICK
from tocsin_server.engine.redis.connections.address import parse_address
from tocsin_server.engine.redis.connections.connector import Backoff, Connector
from tocsin_server.engine.redis.pipeline import Pipeline
from tocsin_server.engine.redis.pubsub.connection import DeafConnection, PubSubConnection
from tocsin_server.engine.redis.pubsub.probe import DEAF_AFTER_PROBES, PROBE_SECONDS, Probe

NOTICED = 3.0
"""Seconds after which a deaf node must know it."""


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[RedisServer, RedisServer]]:
    """A master and its replica."""
    one, two = tmp_path / "master", tmp_path / "replica"
    one.mkdir()
    two.mkdir()
    with (
        redis_running(one, "repl-diskless-sync-delay 0") as master,
        redis_running(two, f"replicaof 127.0.0.1 {master.port}") as replica,
    ):
        yield master, replica


def dialler(server: RedisServer) -> Connector:
    return Connector(parse_address(server.url), "canary")


@pytest.mark.parametrize("is_astray", [False, True], ids=["at the master", "at a replica"])
async def test_a_link_to_another_server_is_replaced(
    servers: tuple[RedisServer, RedisServer], is_astray: bool
) -> None:
    """A replica announces what its master does, until it is cut off from it and promoted."""
    pipeline = Pipeline(dialler(servers[0]), Backoff(Random(1)))
    link = PubSubConnection(dialler(servers[is_astray]), Backoff(Random(1)), lambda names: None)
    tasks = [asyncio.create_task(part) for part in (pipeline.run(), link.run())]
    await asyncio.sleep(0)  # both take calls
    tasks.append(asyncio.create_task(Probe("canary", pipeline, link).run()))
    try:
        async with asyncio.timeout(SOON):
            await link.proven.wait()
            while is_astray and link.connection_count < 2:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(TICK)
        await asyncio.sleep(2 * PROBE_SECONDS)
        assert (link.connection_count > 1) == is_astray
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Sleepless(Probe):
    """Counts its rests, which take no time."""

    waits = 0

    async def _wait(self) -> None:
        self.waits += 1
        await asyncio.sleep(0)


async def test_a_silent_link_is_noticed_in_as_many_rests_as_fit_into_three_seconds() -> None:
    """Even if it falls silent right after it was heard. No machine is too slow for this count."""

    async def execute(_command: str, _name: str, number: int) -> int:
        if number == 1:
            probe._on_message(b"1")
        return 1

    async def subscribe(*_: object) -> None:
        pass

    def replace(why: str) -> None:
        raise DeafConnection(why)

    link: Any = SimpleNamespace(
        is_subscribed=True, connection_count=1, subscribe=subscribe, mark_proven=lambda: None, replace=replace
    )
    pipeline: Any = SimpleNamespace(publish_command="PUBLISH", execute=execute)
    probe = Sleepless("canary", pipeline, link)
    with pytest.raises(DeafConnection):
        await asyncio.wait_for(probe.run(), SOON)
    assert probe.waits == DEAF_AFTER_PROBES + 1
    assert probe.waits * PROBE_SECONDS < NOTICED
