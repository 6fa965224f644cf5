"""A served node for each test, and channel names that no other test uses."""

import itertools
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import pytest_asyncio
from structlog.testing import capture_logs
from structlog.typing import EventDict

from tests.server.transports.sse.stream_server import StreamServer, stream_server

_numbers = itertools.count(1)


@pytest_asyncio.fixture(loop_scope="function")
async def server() -> AsyncIterator[StreamServer]:
    """A served node with the usual settings."""
    async with stream_server() as server:
        yield server


@pytest.fixture
def log_lines() -> Iterator[list[EventDict]]:
    """The log lines of a test."""
    with capture_logs() as lines:
        yield lines


@pytest.fixture
def channel() -> Callable[[str], str]:
    """`channel("history")` is a channel name in that namespace that no other test uses."""
    return lambda namespace: f"{namespace}:{next(_numbers)}"
