"""Fixtures of every suite: running servers, and plain clients of them; and the check of everything logged."""

import gc
import itertools
from collections.abc import AsyncIterator, Callable, Generator, Iterator

import pytest
import structlog
from hypothesis import settings
from hypothesis.internal.conjecture import engine

from tests.support.api import Api
from tests.support.configs import INSECURE, SHORT_TIMEOUTS, STANDARD, TOKEN_ONLY
from tests.support.proxy import Proxy, run_proxy
from tests.support.recorded_logs import CheckedCapture, recorded
from tests.support.server import Server, run_server
from tests.support.timing import LONG_TESTS

_numbers = itertools.count(1001)
"""Literal channel names in tests have smaller numbers, as in `open:1`."""


engine.MAX_SHRINKING_SECONDS = 60
"""Hypothesis would shrink a failing example for five minutes, and pytest end the process after three."""

settings.register_profile("tests", deadline=None)  # a deadline in milliseconds fails on a slow machine
settings.load_profile("tests")


def pytest_configure() -> None:
    """Check also what tests capture with structlog."""
    structlog.testing.LogCapture = CheckedCapture  # type: ignore[misc]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a test fail during which a token, key, secret or marked payload was logged."""
    report = yield
    for title, text in report.sections:
        if title.startswith("Captured") and title.endswith(report.when):
            recorded.check(text)
    if report.when == "teardown" and (findings := recorded.take()):
        report.outcome = "failed"
        report.longrepr = "logged, and must not be (tests/support/recorded_logs.py):\n" + "\n".join(findings)
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long tests first: at the end, workers without tests steal short ones."""
    items.sort(key=lambda item: not any(item.nodeid.startswith(path) for path in LONG_TESTS))


def pytest_collection_finish() -> None:
    """Let the garbage collector visit no module, test or item: there are millions of objects of them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server that most tests share. Each test uses channels of its own (`channel`)."""
    with run_server(STANDARD, tmp_path_factory.mktemp("standard")) as running:
        yield running


@pytest.fixture(scope="session")
def short_timeouts_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with short timeouts."""
    with run_server(SHORT_TIMEOUTS, tmp_path_factory.mktemp("short-timeouts")) as running:
        yield running


@pytest.fixture(scope="session")
def token_only_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that accepts only clients with a token."""
    with run_server(TOKEN_ONLY, tmp_path_factory.mktemp("token-only")) as running:
        yield running


@pytest.fixture(scope="session")
def insecure_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with `client.insecure`: every client may do everything."""
    with run_server(INSECURE, tmp_path_factory.mktemp("insecure")) as running:
        yield running


@pytest.fixture
async def api(server: Server) -> AsyncIterator[Api]:
    """The HTTP API of `server`."""
    async with Api(server) as client:
        yield client


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[Proxy]:
    """A proxy in front of `server` that a test can cut."""
    async with run_proxy(server) as running:
        yield running


@pytest.fixture
def channel() -> Callable[[str], str]:
    """`channel("open")` is a new channel name in that namespace. No other test uses it."""

    def name(namespace: str) -> str:
        return f"{namespace}:{next(_numbers)}"

    return name
