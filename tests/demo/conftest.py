"""A running demo, and a browser."""

import contextlib
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.demo.fake_server import Endpoint, FakeServer, running_fake_server
from tests.support.api import NO_TLS
from tests.support.browser import chromium
from tests.support.server import TOCSIN, Server
from tests.support.timing import SOON, STARTED

DEAFENED = re.compile("redis_disconnected|Redis did not confirm the subscription in time|own_lease_expired")
"""Log lines of a node that is deafened, or that the operating system stopped for seconds."""

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running `tocsin demo`."""
    database = tmp_path_factory.mktemp("demo") / "demo.sqlite"
    yield from running_demo(database)


@pytest.fixture(scope="session")
def three_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running `tocsin demo` with three nodes. Tests disturb them and leave them to recover."""
    yield from running_demo(tmp_path_factory.mktemp("three_nodes") / "demo.sqlite", nodes=3)


def running_demo(database: Path, nodes: int = 1) -> Iterator[Server]:
    """A `tocsin demo` on this database. SIGTERM ends it and all its processes, with code 0.

    It logs nothing, except that a deafened node reports its lost connection.
    """
    server = start_demo(database, nodes)
    try:
        server.wait_until_ready()
        yield server
    finally:
        children = children_of(server)
        code = server.stop()
        left = survivors(children)
    unexpected = [line for line in server.stderr.splitlines() if nodes == 1 or not DEAFENED.search(line)]
    assert (code, unexpected, left) == (0, [], [])


def start_demo(database: Path, nodes: int = 1) -> Server:
    """A `tocsin demo` that has just been started. The caller stops it."""
    command = [str(TOCSIN), "demo", "--port", "0", "--nodes", str(nodes), "--database", str(database)]
    return Server(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))


def children_of(server: Server) -> list[psutil.Process]:
    """The node processes and Redis; an empty list if the demo has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return list(psutil.Process(server.process.pid).children(recursive=True))
    return []


def survivors(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Wait for the processes to end. Kill and return those that do not."""
    _, left = psutil.wait_procs(processes, STARTED)
    for process in left:
        process.kill()
    return list(left)


@pytest.fixture(scope="session", autouse=True)
def _playwright_timeout() -> None:
    expect.set_options(timeout=SOON * 1000)


@pytest.fixture
async def http(demo: Server) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client of the demo."""
    async with httpx.AsyncClient(base_url=demo.url, timeout=SOON, trust_env=False, verify=NO_TLS) as client:
        yield client


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """The system's Chromium."""
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=chromium(), args=CHROMIUM_FLAGS)
        yield launched
        await launched.close()


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser) -> AsyncIterator[Page]:
    """An empty page. An error on its console fails the test."""
    new, console_errors = await new_page(browser)
    yield new
    await new.close()
    assert console_errors == []


async def new_page(browser: Browser) -> tuple[Page, list[str]]:
    """The page of a new visitor, and the list of errors on its console."""
    page = await browser.new_page(reduced_motion="reduce")  # animations would slow the tests
    page.set_default_timeout(SOON * 1000)
    console_errors: list[str] = []
    page.on("console", lambda line: console_errors.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: console_errors.append(str(error)))
    return page, console_errors


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def fake_server() -> AsyncIterator[FakeServer]:
    """The fake server of the tests of one module."""
    async with running_fake_server() as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def endpoint(fake_server: FakeServer) -> AsyncIterator[Endpoint]:
    """The endpoint of one test."""
    new = fake_server.endpoint()
    yield new
    new.close()
