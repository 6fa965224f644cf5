"""Many clients reconnect at once, in small numbers. `make chaos` has thousands, and kills their node."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.faults.mass_reconnect import FixedPortCluster, ReadinessChecks, fixed_port_cluster, restart_redis
from tests.support.tcp import HOST, ConnectionHandler, tcp_server
from tests.support.timing import SOON, TICK

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FixedPortCluster]:
    async with fixed_port_cluster(tmp_path_factory.mktemp("mass-reconnect")) as cluster:
        yield cluster


async def test_a_redis_that_restarts_ends_no_connection(cluster: FixedPortCluster) -> None:
    """WebSockets and event streams on all nodes receive everything."""
    result = await restart_redis(cluster, 200, seconds=5 * TICK)
    assert not result.violations, result


async def refuse(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    raise ConnectionRefusedError


async def keep_silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


def respond(status: int) -> ConnectionHandler:
    """A server that answers every request with this status."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(f"HTTP/1.1 {status} Status\r\nContent-Length: 4\r\n\r\nwhy?".encode())

    return handle


@pytest.mark.parametrize(
    ("handler", "seconds", "violation"),
    [
        (refuse, SOON, "did not answer"),
        (keep_silent, TICK, "did not answer"),
        (respond(503), SOON, "why?"),
    ],
)
async def test_a_node_that_fails_a_readiness_check_is_a_violation(
    handler: ConnectionHandler, seconds: float, violation: str
) -> None:
    """A refused connection and a missing response count like a 503."""
    async with tcp_server(handler) as port:
        readiness = ReadinessChecks([f"http://{HOST}:{port}"], seconds)
        async with readiness.running():
            pass
    assert len(readiness.violations) == readiness.count > 0
    assert all(violation in each for each in readiness.violations), readiness.violations


async def test_a_node_that_is_always_ready_is_no_violation() -> None:
    async with tcp_server(respond(200)) as port:
        readiness = ReadinessChecks([f"http://{HOST}:{port}"])
        async with readiness.running():
            async with asyncio.timeout(SOON):
                while readiness.count < 3:  # noqa: ASYNC110 - it has no event
                    await asyncio.sleep(TICK / 10)
    assert readiness.ready_count == readiness.count
    assert not readiness.violations


async def test_readiness_checks_that_stop_early_are_a_violation() -> None:
    readiness = ReadinessChecks([f"http://{HOST}:no-port"])
    async with readiness.running():
        pass
    (violation,) = readiness.violations
    assert "checks stopped" in violation
