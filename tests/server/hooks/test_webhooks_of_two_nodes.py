"""Two real nodes over Redis send events to a real receiver. It is killed and frozen, and a node is killed."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.server.engine.redis.redis_server import RedisServer, free_ports, redis_running
from tests.server.hooks.receiving_process import receiving
from tests.support.api import NO_TLS
from tests.support.configs import API_KEY, STANDARD
from tests.support.server import TOCSIN, Server, as_toml
from tests.support.timing import TICK, progress_timeout
from tests.support.wire_client import connect_wire

CLIENTS = 20


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_running(tmp_path_factory.mktemp("redis"), "appendonly no") as server:
        yield server


@contextmanager
def node(name: str, redis: RedisServer, receiver: str, folder: Path) -> Iterator[Server]:
    """A node that the test may kill."""
    config = {
        **STANDARD,
        "server": {**STANDARD["server"], "name": name, "drain_seconds": 0},
        "engine": {"url": redis.url, "prefix": "webhooks"},
        "events": {"types": ["connected", "disconnected"], "parts": 4},
        "webhooks": {"app": {"url": receiver, "batch_size": 5, "batch_delay": 0, "timeout": "500ms"}},
    }
    file = folder / f"{name}.toml"
    file.write_text(as_toml(config))
    command = [str(TOCSIN), "serve", "--port", "0", "--config", str(file)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    server = Server(process)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


class Stored:
    """What the receiver has stored, in the order in which it did."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def lines(self) -> list[list[str]]:
        """The id, client, sequence, type and delivery id of each event."""
        return [line.split() for line in self._file.read_text().splitlines()] if self._file.exists() else []

    def of(self, kind: str) -> set[str]:
        """The clients of which there is an event of this type."""
        return {client for _, client, _, found, _ in self.lines() if found == kind}

    async def until(self, fact: Callable[[], bool]) -> None:
        async with progress_timeout(lambda: len(self.lines()), 300 * TICK):
            while not fact():  # noqa: ASYNC110 - another process writes the file
                await asyncio.sleep(TICK / 5)

    def check(self) -> None:
        """The order of each client, without repetitions. What is repeated has the same id."""
        events: dict[str, dict[tuple[int, str], str]] = defaultdict(dict)
        for event, client, sequence, kind, _ in self.lines():
            assert events[client].setdefault((int(sequence), kind), event) == event
        for found in events.values():
            assert [kind for _, kind in found] == ["connected", "disconnected"]
            assert list(found) == sorted(found)


async def failing(server: Server, *, is_failing: bool) -> None:
    """Wait until a delivery of any node fails, or none does, as this node says."""
    async with asyncio.timeout(300 * TICK), httpx.AsyncClient(trust_env=False, verify=NO_TLS) as http:
        while True:
            headers = {"X-API-Key": API_KEY}
            answer = await http.post(f"{server.api_url}/webhooks", json={}, headers=headers)
            if bool(answer.json()["result"]["webhooks"][0]["failing_parts"]) is is_failing:
                return
            await asyncio.sleep(TICK / 5)


@asynccontextmanager
async def clients(server: Server) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for _ in range(CLIENTS):
            await stack.enter_async_context(connect_wire(server))
        yield


async def test_nothing_is_lost_while_the_receiver_and_a_node_are_killed(
    redis: RedisServer, tmp_path: Path
) -> None:
    """Each client's connected and disconnected arrive in this order, also those of the node that is killed.

    The receiver is killed while clients connect. Later it is frozen, so that requests are in flight at the
    node that is then killed. It answers them when that node is dead, and gets them again from the other.
    """
    (port,) = free_ports(1)
    stored = Stored(tmp_path / "stored")
    url = f"http://127.0.0.1:{port}/events"
    with node("first", redis, url, tmp_path) as first, node("second", redis, url, tmp_path) as second:
        async with AsyncExitStack() as stack, clients(first):
            async with clients(second):
                async with receiving(port, tmp_path / "stored"):
                    await stored.until(lambda: len(stored.of("connected")) >= CLIENTS)
                receiver = await stack.enter_async_context(receiving(port, tmp_path / "stored"))
                await stored.until(lambda: len(stored.of("connected")) == 2 * CLIENTS)
                receiver.send_signal(signal.SIGSTOP)
            await failing(second, is_failing=True)
            first.process.kill()
            first.process.wait()
            receiver.send_signal(signal.SIGCONT)
            await stored.until(lambda: len(stored.of("disconnected")) == 2 * CLIENTS)
            await failing(second, is_failing=False)
    stored.check()
    assert (await _dead_letters(redis)) == 0


async def _dead_letters(redis: RedisServer) -> int:
    return len([key for key in redis.command("KEYS", "webhooks:*") if b"dead_letters" in key])
