"""The page of `tocsin serve --ui`: a node without the application that the page was made for."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.demo.conftest import new_page
from tests.demo.visit import LANES, fact, live, opened, resume, say, send_ten, toggle, way
from tests.support.configs import PERMIT_ALL, PRESENCE, Table
from tests.support.server import Server, run_server
from tests.support.timing import SOON
from tocsin_server.app import create_app
from tocsin_server.config.loading import Settings
from tocsin_server.serving.server import serving as serving_here

pytestmark = pytest.mark.asyncio(loop_scope="session")  # one browser for all of them

LOBBY: Table = {**PERMIT_ALL, **PRESENCE, "force_push_join_leave": True}
LOG: Table = {"history_size": 100, "history_ttl": "300s", "force_recovery": True}
ANONYMOUS: Table = {"client": {"allow_anonymous": True}, "server": {"drain_seconds": 0}}

NO_APPLICATION = "404 (Not Found)"  # what a browser says of the one question that finds it out


@dataclass
class Visit:
    """A page on one server, and what it has asked for since it was opened."""

    page: Page
    url: str
    complaints: list[str]
    asked: list[str]


@pytest.fixture(scope="module")
def insecure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """As somebody starts it who tries it for the first time: no channel is configured."""
    config = {"server": {"drain_seconds": 0}}
    with run_server(config, tmp_path_factory.mktemp("insecure"), "--ui", "--insecure") as server:
        yield server


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The demo's channel exists, for anybody, and keeps a log."""
    config = {**ANONYMOUS, "namespaces": {"chat": {**LOBBY, **LOG}}}
    with run_server(config, tmp_path_factory.mktemp("configured"), "--ui") as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def plain(insecure: Server, browser: Browser) -> AsyncIterator[Visit]:
    """A visit to the server without a log."""
    async with visiting(browser, insecure.url) as visit:
        await live(visit.page)
        yield visit


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def logged(configured: Server, browser: Browser) -> AsyncIterator[Page]:
    """A page on the server with a log."""
    async with visiting(browser, configured.url) as visit:
        await live(visit.page)
        yield visit.page


@asynccontextmanager
async def visiting(browser: Browser, url: str) -> AsyncIterator[Visit]:
    """A page that complains about nothing but that there is no application."""
    page, complaints = await new_page(browser)
    visit = Visit(page, url, complaints, [])
    page.on("request", lambda request: visit.asked.append(request.url.removeprefix(url)))
    page.on("websocket", lambda socket: visit.asked.append(socket.url))
    await page.goto(url)
    yield visit
    await page.close()
    assert [complaint for complaint in complaints if NO_APPLICATION not in complaint] == []
    assert len(complaints) <= 1


@asynccontextmanager
async def visiting_a_server_with(browser: Browser, config: Table) -> AsyncIterator[Visit]:
    """A page of a server in this process, which has no more to be told than what it permits."""
    settings = Settings.model_validate(config)
    allowed = settings.server.model_copy(update={"allowed_origins": ("self",), "port": 0})
    app = create_app(settings.model_copy(update={"server": allowed}), has_page=True)
    async with serving_here(app, allowed) as server, visiting(browser, server.url) as visit:
        yield visit


async def heard(page: Page) -> list[int]:
    """How many messages each connection has heard."""
    return [int(await fact(page, lane, "heard").inner_text()) for lane in LANES]


# --- without a log ---


async def test_a_channel_without_a_namespace_does_where_the_demos_is_unknown(
    plain: Visit,
) -> None:
    page = plain.page
    row = await say(page, "Nobody else is here")
    for lane in LANES:
        await expect(way(row, lane)).to_have_attribute("data-mark", "live")
    await expect(page.locator(".no-log")).to_contain_text("Both follow lobby. This channel keeps no log")
    await expect(page.locator("#whoami")).to_contain_text("anonymous ")


async def test_where_nothing_is_counted_no_counter_is_shown(plain: Visit) -> None:
    """Nor is anything promised that only a log can keep."""
    page = plain.page
    await expect(page.locator(".no-log")).to_be_visible()
    for lane in LANES:
        for name in ("position", "recovered", "missed", "duplicated"):
            await expect(fact(page, lane, name)).to_be_hidden()
    await expect(page.locator(".tape").first).to_be_hidden()
    await expect(page.get_by_text("Nothing is lost")).to_be_hidden()
    await toggle(page, "eventsource", "cut")
    await expect(page.locator("#story")).to_have_text("EventSource is cut. What is sent now is lost to it.")
    row = await say(page, "Lost to the stream")
    await expect(way(row, "websocket")).to_have_attribute("data-mark", "live")
    await expect(way(row, "eventsource")).to_have_attribute("data-mark", "unheard")
    await toggle(page, "eventsource", "connected")
    await expect(page.locator("#story")).to_contain_text("without what was said meanwhile")


async def test_the_section_about_links_is_left_out(plain: Visit) -> None:
    """One question finds out that there is no application; nothing is asked of it afterwards."""
    page, asked = plain.page, plain.asked
    await expect(page.locator(".knowing")).to_be_hidden()
    await expect(page.get_by_text("tocsin demo has the application")).to_be_visible()
    await say(page, "Still nobody asks")
    assert asked.count("/demo/token") == 1
    assert [path for path in asked if path.startswith(("/links", "/messages"))] == []


async def test_whatever_is_published_is_shown(plain: Visit) -> None:
    """By other programs too, which know nothing of how this page writes its messages; each counts once."""
    everything: list[object] = ["just a text", 7, None, ["a", {"b": 1}], {"text": 5, "sent": "today"}]
    page, count = plain.page, 2 * len(everything)
    before = await heard(page)
    shown = await page.locator(".message").count()
    live_ways = await page.locator(".way[data-mark=live]").count()
    async with httpx.AsyncClient(base_url=plain.url, timeout=SOON, trust_env=False) as publisher:
        for data in everything * 2:
            response = await publisher.post("/api/publish", json={"channel": "lobby", "data": data})
            assert "error" not in response.json(), response.text
    for lane, number in zip(LANES, before, strict=True):
        await expect(fact(page, lane, "heard")).to_have_text(str(number + count))
    await expect(page.locator(".message")).to_have_count(shown + count)
    await expect(page.locator(".way[data-mark=live]")).to_have_count(live_ways + 2 * count)
    await expect(page.locator(".said", has_text="just a text")).to_have_count(2)
    await expect(page.locator(".said", has_text='{"text":5,"sent":"today"}')).to_have_count(2)


# --- with a log ---


async def test_the_demos_channel_is_followed_where_it_exists(logged: Page) -> None:
    """With a log everything is as in the demo, except that the page publishes for itself."""
    page = logged
    await expect(page.locator(".is-log .channel-name")).to_have_text("chat:lobby")
    await toggle(page, "eventsource", "cut")
    await send_ten(page)
    await expect(page.locator("#lane-eventsource .lane-state")).to_have_text("cut · 10 waiting")
    await toggle(page, "eventsource", "connected")
    await expect(fact(page, "eventsource", "recovered")).to_have_text("10")
    for lane in LANES:
        await expect(fact(page, lane, "missed")).to_have_text("0")
        await expect(fact(page, lane, "duplicated")).to_have_text("0")


async def test_without_its_socket_the_page_says_that_it_cannot_send(logged: Page) -> None:
    page = logged
    await toggle(page, "websocket", "cut")
    await page.fill("#text", "Into the dark")
    await page.press("#text", "Enter")
    await expect(page.locator("#composer-note")).to_contain_text("Not sent: the WebSocket is away")
    await resume(page)
    await say(page, "Said again")


async def test_whoever_is_here_is_seen(configured: Server, logged: Page, browser: Browser) -> None:
    """Without users, our own connections are known to be ours, and every other is somebody."""
    people = logged.locator("#people li")
    await expect(people).to_have_count(1)
    await expect(people).to_contain_text("you · 2 connections")
    other, _ = await new_page(browser)
    await opened(other, configured.url)
    await expect(people).to_have_count(3)
    await other.close()
    await expect(people).to_have_count(1)


# --- refusals ---


async def test_a_server_that_wants_tokens_is_believed(browser: Browser) -> None:
    """One sentence says what to set; nothing is tried again and again."""
    async with visiting_a_server_with(browser, {}) as visit:
        await expect(visit.page.locator("#story")).to_have_text(
            "This server lets nobody in without a token: "
            "set client.allow_anonymous = true, or use --insecure."
        )
        for place in ("#composer", "#lane-websocket", "#feed", "#whoami"):
            await expect(visit.page.locator(place)).to_be_hidden()
        assert sum("/connection/websocket" in asked for asked in visit.asked) == 1


async def test_a_channel_that_lets_nobody_in_is_named_with_the_option_that_would(browser: Browser) -> None:
    async with visiting_a_server_with(browser, ANONYMOUS) as visit:
        page = visit.page
        await expect(page.locator("#story")).to_have_text(
            "The server does not let us into lobby: permission denied, "
            "unless allow_subscribe_for_anonymous = true is set in [channels]."
        )
        await expect(page.locator("#composer")).to_be_hidden()


async def test_a_channel_that_may_only_be_heard_is_heard(browser: Browser) -> None:
    listening = {"allow_subscribe_for_anonymous": True}
    async with visiting_a_server_with(browser, {**ANONYMOUS, "namespaces": {"chat": listening}}) as visit:
        page = visit.page
        await live(page)
        await page.fill("#text", "May I?")
        await page.press("#text", "Enter")
        await expect(page.locator("#composer-note")).to_have_text(
            "Not sent: permission denied, "
            "unless allow_publish_for_anonymous = true is set in [namespaces.chat]."
        )
