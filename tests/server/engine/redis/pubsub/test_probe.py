"""The probe: it detects a deaf connection, and one that leads to another server than the commands."""

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
"""Seconds within which a node must detect that it is deaf."""


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


def connector(server: RedisServer) -> Connector:
    return Connector(parse_address(server.url), "probe")


class CountingProbe(Probe):
    """Counts the probes that are received."""

    received = 0

    def __init__(self, name: str, pipeline: Pipeline, pubsub: PubSubConnection) -> None:
        super().__init__(name, pipeline, pubsub)
        self.has_received_enough = asyncio.Event()
        """Set once a probe was received after so many that a deaf connection would have been replaced."""

    def _on_message(self, message: bytes) -> None:
        super()._on_message(message)
        self.received += 1
        if self.received > DEAF_AFTER_PROBES:
            self.has_received_enough.set()


@pytest.mark.usefixtures("short_timeouts")
@pytest.mark.parametrize("is_at_replica", [False, True], ids=["at the master", "at a replica"])
async def test_a_connection_to_another_server_is_replaced(
    servers: tuple[RedisServer, RedisServer], is_at_replica: bool
) -> None:
    """A replica forwards its master's messages, until it is disconnected from it and promoted."""
    pipeline = Pipeline(connector(servers[0]), Backoff(Random(1)))
    pubsub = PubSubConnection(connector(servers[is_at_replica]), Backoff(Random(1)), lambda names: None)
    tasks = [asyncio.create_task(part) for part in (pipeline.run(), pubsub.run())]
    await asyncio.sleep(0)  # both begin to accept commands and subscriptions
    probe = CountingProbe("probe", pipeline, pubsub)
    tasks.append(asyncio.create_task(probe.run()))
    try:
        async with asyncio.timeout(SOON):
            await pubsub.proven.wait()
            if is_at_replica:
                while pubsub.connection_count < 2:  # noqa: ASYNC110 - there is no event to await
                    await asyncio.sleep(TICK)
            else:
                await probe.has_received_enough.wait()
                assert pubsub.connection_count == 1
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class UnpausedProbe(Probe):
    """Counts its waits, which take no time."""

    waits = 0

    async def _wait(self) -> None:
        self.waits += 1
        await asyncio.sleep(0)


async def test_a_silent_connection_is_detected_within_three_seconds() -> None:
    """Counted in waits, so the result does not depend on the machine."""

    async def execute(_command: str, _name: str, message: bytes) -> int:
        if message.startswith(b"1 "):
            probe._on_message(message)
        return 1

    async def subscribe(*_: object) -> None:
        pass

    def replace(why: str) -> None:
        raise DeafConnection(why)

    pubsub: Any = SimpleNamespace(
        is_subscribed=True, connection_count=1, subscribe=subscribe, mark_proven=lambda: None, replace=replace
    )
    pipeline: Any = SimpleNamespace(publish_command="PUBLISH", execute=execute)
    probe = UnpausedProbe("probe", pipeline, pubsub)
    with pytest.raises(DeafConnection):
        await asyncio.wait_for(probe.run(), SOON)
    assert probe.waits == DEAF_AFTER_PROBES + 1
    assert probe.waits * PROBE_SECONDS < NOTICED


async def test_a_forged_probe_proves_nothing() -> None:
    """Not even with the number that is expected next."""
    messages: list[bytes] = []

    async def execute(_command: str, _name: str, message: bytes) -> int:
        messages.append(message)
        for forged in (b"%d" % len(messages), b"%d " % len(messages), message[:-1] + b"x", b"99999"):
            probe._on_message(forged)
        return 1

    async def subscribe(*_: object) -> None:
        pass

    def replace(why: str) -> None:
        raise DeafConnection(why)

    def mark_proven() -> None:
        raise AssertionError

    pubsub: Any = SimpleNamespace(
        is_subscribed=True, connection_count=1, subscribe=subscribe, mark_proven=mark_proven, replace=replace
    )
    pipeline: Any = SimpleNamespace(publish_command="PUBLISH", execute=execute)
    probe = UnpausedProbe("probe", pipeline, pubsub)
    with pytest.raises(DeafConnection):
        await asyncio.wait_for(probe.run(), SOON)
    assert len(messages) == DEAF_AFTER_PROBES
