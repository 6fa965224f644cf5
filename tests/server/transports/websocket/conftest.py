"""A served node for each test, and an engine whose calls a test can hold."""

from collections.abc import AsyncIterator

import pytest

from tests.server.node.faulty_engine import FaultyEngine
from tests.server.served_node import ServedNode, serve_node


@pytest.fixture
async def served_node() -> AsyncIterator[ServedNode]:
    async with serve_node() as served_node:
        yield served_node
        await served_node.until_empty()


@pytest.fixture
def engine() -> FaultyEngine:
    return FaultyEngine()
