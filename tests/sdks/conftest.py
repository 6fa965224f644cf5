"""Two nodes over a real Redis, clients of the SDK under test, and the page of outcomes."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.sdks.combinations import Combination
from tests.sdks.driven_client import DrivenClient, Driver, Endpoint, run_driver
from tests.sdks.nodes import CONFIG
from tests.sdks.page import complete, item_of, rendered
from tests.server.engine.redis.redis_server import redis_running
from tests.support.api import Api
from tests.support.proxy import Proxy, run_proxy
from tests.support.server import Server, run_server
from tests.support.tokens import connection_token


class Page:
    """Writes the page at the end of a run of all tests. The mutable state is the outcomes until now."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._outcomes: dict[tuple[str, str], bool] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called for each of a test's phases, and each must pass. With xdist, the main process gets all."""
        if test := item_of(report.nodeid):
            self._outcomes[test] = self._outcomes.get(test, True) and report.passed

    def pytest_sessionfinish(self) -> None:
        """Write the page, unless tests were left out."""
        if self._outcomes.keys() == complete():
            self._file.write_text(rendered(self._outcomes))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--page", type=Path, help="the file to write the outcomes to")


def pytest_configure(config: pytest.Config) -> None:
    file = config.getoption("--page", default=None)
    if file is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Page(file))


@dataclass(frozen=True)
class Nodes:
    """Two nodes of one cluster."""

    one: Server
    other: Server


@pytest.fixture(scope="session")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with contextlib.ExitStack() as running:
        redis = running.enter_context(redis_running(tmp_path_factory.mktemp("redis")))
        config = {**CONFIG, "engine": {"url": redis.url, "prefix": "sdks"}}
        one, other = (
            running.enter_context(run_server(config, tmp_path_factory.mktemp(name)))
            for name in ("one", "other")
        )
        yield Nodes(one, other)


@pytest.fixture
async def api(nodes: Nodes) -> AsyncIterator[Api]:
    """The HTTP API of the first node."""
    async with Api(nodes.one) as client:
        yield client


@pytest.fixture
async def other_api(nodes: Nodes) -> AsyncIterator[Api]:
    """The HTTP API of the other node."""
    async with Api(nodes.other) as client:
        yield client


@pytest.fixture
async def proxy(nodes: Nodes) -> AsyncIterator[Proxy]:
    """A proxy in front of the first node. Later it forwards to the other one."""
    async with run_proxy(nodes.one) as running:
        yield running


class Clients:
    """Makes clients of the SDK under test, all in one process."""

    def __init__(self, driver: Driver, combination: Combination, nodes: Nodes) -> None:
        self.nodes = nodes
        self._driver = driver
        self._combination = combination

    async def start(
        self, node: Server | Proxy | None = None, *, token: str = "", tokens: list[str] | None = None
    ) -> DrivenClient:
        """A client that connects to this node, by default to the first."""
        stream = node or self.nodes.one
        commands = self.nodes.one if stream is self.nodes.other else self.nodes.other
        endpoint = Endpoint(stream.url, commands.url, self._combination.transport, self._combination.format)
        client = self._driver.client()
        await client.connect(endpoint, token=token, tokens=tokens)
        return client

    async def connected(self, user: str, node: Server | Proxy | None = None) -> tuple[DrivenClient, str]:
        """A client that is connected, and its id."""
        client = await self.start(node, token=connection_token(user))
        return client, (await client.events.next("connected"))["client"]


@pytest.fixture
async def clients(combination: Combination, nodes: Nodes) -> AsyncIterator[Clients]:
    async with run_driver(*combination.sdk.command) as driver:
        yield Clients(driver, combination, nodes)
