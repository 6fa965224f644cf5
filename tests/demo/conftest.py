"""The demo as anybody would start it, and a browser to look at it with."""

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

from tests.demo.stage import Stage, Theatre, playing
from tests.support.browser import chromium
from tests.support.server import TOCSIN, Server
from tests.support.timing import SOON, STARTED

DEAFENED = re.compile("redis_disconnected|Redis did not confirm the subscription in time|own_lease_expired")
"""What a node says that hears nothing, and whose clients leave meanwhile; or that stood still for seconds."""

QUIET_CHROMIUM = [
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
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running `tocsin demo` with three nodes, which tests trouble, and leave to recover."""
    yield from running_demo(tmp_path_factory.mktemp("several") / "demo.sqlite", nodes=3)


def running_demo(database: Path, nodes: int = 1) -> Iterator[Server]:
    """A `tocsin demo` on this database. SIGTERM ends it, and all it started, with 0 and without a word.

    Unless one of several nodes was deafened: it says that its link broke.
    """
    server = starting(database, nodes)
    try:
        server.wait_until_ready()
        yield server
    finally:
        children = started_by(server)
        code = server.stop()
        left = left_of(children)
    unexpected = [line for line in server.errors.splitlines() if nodes == 1 or not DEAFENED.search(line)]
    assert (code, unexpected, left) == (0, [], [])


def starting(database: Path, nodes: int = 1) -> Server:
    """A `tocsin demo` that has just been started; the caller ends it."""
    command = [str(TOCSIN), "demo", "--port", "0", "--nodes", str(nodes), "--database", str(database)]
    return Server(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))


def started_by(server: Server) -> list[psutil.Process]:
    """Its nodes and its Redis; of one that has ended, nothing."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return list(psutil.Process(server.process.pid).children(recursive=True))
    return []


def left_of(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that do not end by themselves; no later test has to meet them."""
    _, left = psutil.wait_procs(processes, STARTED)
    for process in left:
        process.kill()
    return list(left)


@pytest.fixture(scope="session", autouse=True)
def _patience() -> None:
    expect.set_options(timeout=SOON * 1000)


@pytest.fixture
async def http(demo: Server) -> AsyncIterator[httpx.AsyncClient]:
    """A plain HTTP client of the demo."""
    async with httpx.AsyncClient(base_url=demo.url, timeout=SOON, trust_env=False) as client:
        yield client


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """The system's Chromium."""
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=chromium(), args=QUIET_CHROMIUM)
        yield launched
        await launched.close()


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A page without anything on it; whatever it writes to its console as an error fails the test."""
    opened, complaints = await new_page(browser)
    yield opened
    await opened.close()
    assert complaints == []


async def new_page(browser: Browser) -> tuple[Page, list[str]]:
    """A page of somebody new, and the list of what it will complain about."""
    page = await browser.new_page(reduced_motion="reduce")  # as many frames as there are changes
    page.set_default_timeout(SOON * 1000)
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return page, complaints


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def theatre() -> AsyncIterator[Theatre]:
    """A server whose every word is written in the tests of a module."""
    async with playing() as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def stage(theatre: Theatre) -> AsyncIterator[Stage]:
    """The part of it that is this test's."""
    made = theatre.stage()
    yield made
    made.ends()
