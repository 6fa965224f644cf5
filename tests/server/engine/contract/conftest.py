"""The fixtures of the contract: each test runs once for every engine, over an empty store."""

from collections.abc import AsyncIterator

import pytest

from tests.server.engine.contract.harness import FOR_SEVERAL_NODES, HARNESSES, Harness, Node, running
from tests.server.engine.recording_handler import RecordingHandler
from tocsin_server.engine.broker import Broker
from tocsin_server.engine.presence import PresenceStore


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every engine, or every engine for several nodes where the test has a neighbour."""
    if "harness" in metafunc.fixturenames:
        names = FOR_SEVERAL_NODES if "neighbour" in metafunc.fixturenames else list(HARNESSES)
        metafunc.parametrize("harness", [HARNESSES[name] for name in names], ids=names, indirect=True)


@pytest.fixture
async def harness(request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    """An empty store."""
    async with request.param(request) as harness:
        yield harness


@pytest.fixture
async def node(harness: Harness) -> AsyncIterator[Node]:
    """A running engine with its witness."""
    async with running(harness) as node:
        yield node


@pytest.fixture
async def neighbour(harness: Harness, node: Node) -> AsyncIterator[Node]:
    """A second node over the store of `node`."""
    async with running(harness, "n2") as neighbour:
        yield neighbour


@pytest.fixture
def broker(node: Node) -> Broker:
    return node.broker


@pytest.fixture
def presence(node: Node) -> PresenceStore:
    return node.presence


@pytest.fixture
def witness(node: Node) -> RecordingHandler:
    return node.handler
