"""The fixtures of the contract: each test runs once for every engine, over an empty store."""

from collections.abc import AsyncIterator

import pytest

from tests.server.cluster.contract.harness import HARNESSES, Harness, Node, running
from tests.server.cluster.witness import Witness
from tocsin_server.cluster.broker import Broker
from tocsin_server.cluster.presence import Presence


@pytest.fixture(params=HARNESSES.values(), ids=list(HARNESSES))
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
    if not harness.has_room:
        pytest.skip("this engine is for one node")
    async with running(harness, "n2") as neighbour:
        yield neighbour


@pytest.fixture
def broker(node: Node) -> Broker:
    return node.broker


@pytest.fixture
def presence(node: Node) -> Presence:
    return node.presence


@pytest.fixture
def witness(node: Node) -> Witness:
    return node.witness
