"""Fixtures for every suite: running servers, and plain clients of them."""

import itertools
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from tests.support.api import Api
from tests.support.configs import INSECURE, SHORT_TIMEOUTS, STANDARD, TOKEN_ONLY
from tests.support.proxy import Proxy, run_proxy
from tests.support.server import Server, run_server
from tests.support.timing import LONG_TESTS

_numbers = itertools.count(1001)
"""Tests that need no channel of their own write smaller numbers, as in `open:1`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long tests first: workers that have no more tests steal the short ones at the end."""
    items.sort(key=lambda item: not any(item.nodeid.startswith(path) for path in LONG_TESTS))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server that most tests share, so each test takes channels of its own (`channel`)."""
    with run_server(STANDARD, tmp_path_factory.mktemp("usual")) as running:
        yield running


@pytest.fixture(scope="session")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with short times and small limits."""
    with run_server(SHORT_TIMEOUTS, tmp_path_factory.mktemp("impatient")) as running:
        yield running


@pytest.fixture(scope="session")
def cautious(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that serves only who has a token."""
    with run_server(TOKEN_ONLY, tmp_path_factory.mktemp("cautious")) as running:
        yield running


@pytest.fixture(scope="session")
def insecure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that lets everybody do everything."""
    with run_server(INSECURE, tmp_path_factory.mktemp("insecure")) as running:
        yield running


@pytest.fixture
async def api(server: Server) -> AsyncIterator[Api]:
    """The HTTP API of `server`."""
    async with Api(server) as client:
        yield client


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[Proxy]:
    """A link to `server` that can be cut."""
    async with run_proxy(server) as link:
        yield link


@pytest.fixture
def channel() -> Callable[[str], str]:
    """`channel("open")` is the name of a channel of that namespace that no other test uses."""

    def name(namespace: str) -> str:
        return f"{namespace}:{next(_numbers)}"

    return name
