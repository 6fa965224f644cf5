"""The fixtures of the contract tests. Each test runs once for every engine, over an empty store."""

from collections.abc import AsyncIterator

import pytest

from tests.server.engine.contract.harness import FOR_SEVERAL_NODES, HARNESSES, Harness, Node, running
from tests.server.engine.recording_handler import RecordingHandler
from tocsin_server.engine.broker import Broker
from tocsin_server.engine.presence import PresenceStore


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Use every engine. A test with two nodes uses the engines whose store several nodes can share."""
    if "harness" in metafunc.fixturenames:
        names = FOR_SEVERAL_NODES if "other_node" in metafunc.fixturenames else list(HARNESSES)
        metafunc.parametrize("harness", [HARNESSES[name] for name in names], ids=names, indirect=True)


@pytest.fixture
async def harness(request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    """An empty store."""
    async with request.param(request) as harness:
        yield harness


@pytest.fixture
async def node(harness: Harness) -> AsyncIterator[Node]:
    """A running engine."""
    async with running(harness) as node:
        yield node


@pytest.fixture
async def other_node(harness: Harness, node: Node) -> AsyncIterator[Node]:
    """A second node over the store of `node`."""
    async with running(harness, "n2") as other_node:
        yield other_node


@pytest.fixture
def broker(node: Node) -> Broker:
    return node.broker


@pytest.fixture
def presence(node: Node) -> PresenceStore:
    return node.presence


@pytest.fixture
def handler(node: Node) -> RecordingHandler:
    return node.handler
