"""A node over an engine that can be made to fail."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.server.node.fake_connection import running
from tests.server.node.faulty_engine import FaultyEngine
from tocsin_server.node.node import Node


@pytest.fixture
def engine() -> FaultyEngine:
    return FaultyEngine()


@pytest.fixture
async def node(engine: FaultyEngine) -> AsyncIterator[Node]:
    async with running(engine) as node:
        yield node
        for gate in engine.blocked.values():
            gate.set()  # a failed test may have left calls blocked
