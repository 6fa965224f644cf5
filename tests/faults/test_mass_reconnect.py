"""Many clients at once, in small numbers. Thousands, and those of a killed node: `make chaos`."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.faults.mass_reconnect import Fold, Readiness, fold, restart
from tests.support.proxies import HOST, Lead, accepting
from tests.support.timing import SOON, TICK

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fold]:
    async with fold(tmp_path_factory.mktemp("herd")) as cluster:
        yield cluster


async def test_a_redis_that_restarts_ends_no_connection(cluster: Fold) -> None:
    """WebSockets and event streams on all nodes hear everything."""
    account = await restart(cluster, 200, seconds=5 * TICK)
    assert not account.complaints, account


async def refuse(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    raise ConnectionRefusedError


async def keep_silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


def answering(status: int) -> Lead:
    """A node, as far as its health goes."""

    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(f"HTTP/1.1 {status} As said\r\nContent-Length: 4\r\n\r\nwhy?".encode())

    return lead


@pytest.mark.parametrize(
    ("lead", "seconds", "complaint"),
    [(refuse, SOON, "did not say"), (keep_silent, TICK, "did not say"), (answering(503), SOON, "why?")],
)
async def test_a_survivor_that_is_not_ready_at_every_look_is_complained_of(
    lead: Lead, seconds: float, complaint: str
) -> None:
    """Refusing and hanging are no better than saying so."""
    async with accepting(lead) as port:
        readiness = Readiness([f"http://{HOST}:{port}"], seconds)
        async with readiness.watching():
            pass
    assert len(readiness.complaints) == readiness.looks > 0
    assert all(complaint in each for each in readiness.complaints), readiness.complaints


async def test_a_survivor_that_is_ready_is_not_complained_of() -> None:
    async with accepting(answering(200)) as port:
        readiness = Readiness([f"http://{HOST}:{port}"])
        async with readiness.watching():
            async with asyncio.timeout(SOON):
                while readiness.looks < 3:  # noqa: ASYNC110 - it tells nobody
                    await asyncio.sleep(TICK / 10)
    assert readiness.found_ready == readiness.looks
    assert not readiness.complaints


async def test_looking_that_ends_too_early_is_complained_of() -> None:
    readiness = Readiness([f"http://{HOST}:no-port"])
    async with readiness.watching():
        pass
    (complaint,) = readiness.complaints
    assert "stopped looking" in complaint
