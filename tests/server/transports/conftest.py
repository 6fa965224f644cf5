"""The node that most tests of a file share, and names that no other test uses."""

import itertools
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from tests.server.transports.sse.streams import Served, served

_numbers = itertools.count(1)


@pytest_asyncio.fixture(loop_scope="function")
async def tocsin() -> AsyncIterator[Served]:
    """A node with the usual settings, served."""
    async with served() as running:
        yield running


@pytest.fixture
def channel() -> Callable[[str], str]:
    """`channel("log")` is the name of a channel of that namespace that no other test uses."""
    return lambda namespace: f"{namespace}:{next(_numbers)}"
