"""The page of `tocsin serve --ui`: a node without the demo's application."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.demo.conftest import new_page
from tests.demo.page_actions import (
    CONNECTIONS,
    delivery,
    fact,
    live,
    open_page,
    resume,
    send_message,
    send_ten,
    toggle,
)
from tests.support.api import NO_TLS
from tests.support.configs import PERMIT_ALL, PRESENCE, Table
from tests.support.server import Server, run_server
from tests.support.timing import SOON
from tocsin_server.app import create_app
from tocsin_server.config.loading import Settings
from tocsin_server.serving.server import serving as serving_here

pytestmark = pytest.mark.asyncio(loop_scope="session")  # one browser for all of them

LOBBY: Table = {**PERMIT_ALL, **PRESENCE, "force_push_join_leave": True}
HISTORY: Table = {"history_size": 100, "history_ttl": "300s", "force_recovery": True}
ANONYMOUS: Table = {"client": {"allow_anonymous": True}, "server": {"drain_seconds": 0}}

NO_APPLICATION = "404 (Not Found)"  # what a browser logs of the request for a token


@dataclass
class OpenPage:
    """A page of one server, the errors on its console, and the URLs that it has requested."""

    page: Page
    url: str
    console_errors: list[str]
    requests: list[str]


@pytest.fixture(scope="module")
def insecure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server as a first-time user starts it: without a configured channel."""
    config = {"server": {"drain_seconds": 0}}
    with run_server(config, tmp_path_factory.mktemp("insecure"), "--ui", "--insecure") as server:
        yield server


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on which the demo's channel exists, permits everything, and keeps a history."""
    config = {**ANONYMOUS, "namespaces": {"chat": {**LOBBY, **HISTORY}}}
    with run_server(config, tmp_path_factory.mktemp("configured"), "--ui") as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def plain(insecure: Server, browser: Browser) -> AsyncIterator[OpenPage]:
    """A page of the server whose channel keeps no history."""
    async with opening(browser, insecure.url) as opened:
        await live(opened.page)
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def with_history(configured: Server, browser: Browser) -> AsyncIterator[Page]:
    """A page of the server whose channel keeps a history."""
    async with opening(browser, configured.url) as opened:
        await live(opened.page)
        yield opened.page


@asynccontextmanager
async def opening(browser: Browser, url: str) -> AsyncIterator[OpenPage]:
    """Open a page. The only error on its console may be that there is no application."""
    page, console_errors = await new_page(browser)
    opened = OpenPage(page, url, console_errors, [])
    page.on("request", lambda request: opened.requests.append(request.url.removeprefix(url)))
    page.on("websocket", lambda socket: opened.requests.append(socket.url))
    await page.goto(url)
    yield opened
    await page.close()
    assert [error for error in console_errors if NO_APPLICATION not in error] == []
    assert len(console_errors) <= 1


@asynccontextmanager
async def opening_with(browser: Browser, config: Table) -> AsyncIterator[OpenPage]:
    """Open a page of a server in this process with this configuration."""
    settings = Settings.model_validate(config)
    options = settings.server.model_copy(update={"allowed_origins": ("self",), "port": 0})
    app = create_app(settings.model_copy(update={"server": options}), has_page=True)
    async with serving_here(app, options) as server, opening(browser, server.url) as opened:
        yield opened


async def received_counts(page: Page) -> list[int]:
    """The number of messages that each connection has received."""
    return [int(await fact(page, connection, "received").inner_text()) for connection in CONNECTIONS]


# --- without a history ---


async def test_the_page_uses_a_channel_without_namespace_if_the_demos_is_unknown(plain: OpenPage) -> None:
    page = plain.page
    row = await send_message(page, "To one visitor")
    for connection in CONNECTIONS:
        await expect(delivery(row, connection)).to_have_attribute("data-mark", "live")
    await expect(page.locator(".no-history")).to_contain_text(
        "Both connections subscribe to lobby. This channel keeps no history"
    )
    await expect(page.locator("#visitor-name")).to_contain_text("anonymous ")


async def test_a_page_without_history_shows_no_counters(plain: OpenPage) -> None:
    """It promises no recovery either."""
    page = plain.page
    await expect(page.locator(".no-history")).to_be_visible()
    for connection in CONNECTIONS:
        for name in ("position", "recovered", "missed", "duplicated"):
            await expect(fact(page, connection, name)).to_be_hidden()
    await expect(page.locator(".strip").first).to_be_hidden()
    await expect(page.get_by_text("Nothing is lost")).to_be_hidden()
    await toggle(page, "eventsource", "cut")
    await expect(page.locator("#status")).to_have_text(
        "EventSource is cut. Messages sent now are lost to it."
    )
    row = await send_message(page, "Lost to the stream")
    await expect(delivery(row, "websocket")).to_have_attribute("data-mark", "live")
    await expect(delivery(row, "eventsource")).to_have_attribute("data-mark", "not-received")
    await toggle(page, "eventsource", "connected")
    await expect(page.locator("#status")).to_contain_text("without the messages sent meanwhile")


async def test_a_page_without_application_has_no_section_about_links(plain: OpenPage) -> None:
    """One request finds out that there is no application. No request to the application follows."""
    page, requests = plain.page, plain.requests
    await expect(page.locator(".polling-vs-push")).to_be_hidden()
    await expect(page.get_by_text("tocsin demo runs both")).to_be_visible()
    await send_message(page, "Without the application")
    assert requests.count("/demo/token") == 1
    assert [path for path in requests if path.startswith(("/links", "/messages"))] == []


async def test_data_of_any_shape_is_shown(plain: OpenPage) -> None:
    """Other programs publish data in other shapes. Each publication counts once."""
    shapes: list[object] = ["just a text", 7, None, ["a", {"b": 1}], {"text": 5, "sent": "today"}]
    page, count = plain.page, 2 * len(shapes)
    before = await received_counts(page)
    shown = await page.locator(".message").count()
    live_deliveries = await page.locator(".delivery[data-mark=live]").count()
    async with httpx.AsyncClient(
        base_url=plain.url, timeout=SOON, trust_env=False, verify=NO_TLS
    ) as publisher:
        for data in shapes * 2:
            response = await publisher.post("/api/publish", json={"channel": "lobby", "data": data})
            assert "error" not in response.json(), response.text
    for connection, number in zip(CONNECTIONS, before, strict=True):
        await expect(fact(page, connection, "received")).to_have_text(str(number + count))
    await expect(page.locator(".message")).to_have_count(shown + count)
    await expect(page.locator(".delivery[data-mark=live]")).to_have_count(live_deliveries + 2 * count)
    await expect(page.locator(".message-text", has_text="just a text")).to_have_count(2)
    await expect(page.locator(".message-text", has_text='{"text":5,"sent":"today"}')).to_have_count(2)


# --- with a history ---


async def test_the_page_uses_the_demos_channel_if_it_exists(with_history: Page) -> None:
    """With a history, the page works as in the demo, except that it publishes over its WebSocket."""
    page = with_history
    await expect(page.locator(".is-history .channel-name")).to_have_text("chat:lobby")
    await toggle(page, "eventsource", "cut")
    await send_ten(page)
    await expect(page.locator("#connection-eventsource .connection-state")).to_have_text("cut · 10 waiting")
    await toggle(page, "eventsource", "connected")
    await expect(fact(page, "eventsource", "recovered")).to_have_text("10")
    for connection in CONNECTIONS:
        await expect(fact(page, connection, "missed")).to_have_text("0")
        await expect(fact(page, connection, "duplicated")).to_have_text("0")


async def test_the_page_cannot_send_without_its_websocket_and_says_so(with_history: Page) -> None:
    page = with_history
    await toggle(page, "websocket", "cut")
    await page.fill("#text", "Not connected")
    await page.press("#text", "Enter")
    await expect(page.locator("#composer-note")).to_contain_text("Not sent: the WebSocket is not connected")
    await resume(page)
    await send_message(page, "Connected again")


async def test_visitors_without_tokens_are_present(
    configured: Server, with_history: Page, browser: Browser
) -> None:
    """The connections of a page belong to one visitor; any other connection is a visitor of its own."""
    people = with_history.locator("#presence-list li")
    await expect(people).to_have_count(1)
    await expect(people).to_contain_text("you · 2 connections")
    other, _ = await new_page(browser)
    await open_page(other, configured.url)
    await expect(people).to_have_count(3)
    await other.close()
    await expect(people).to_have_count(1)


# --- refusals ---


async def test_the_page_of_a_server_that_requires_tokens_names_the_setting(browser: Browser) -> None:
    """It does not try again."""
    async with opening_with(browser, {}) as opened:
        await expect(opened.page.locator("#status")).to_have_text(
            "This server accepts no client without a token: "
            "set client.allow_anonymous = true, or use --insecure."
        )
        for place in ("#composer", "#connection-websocket", "#feed", "#visitor-name"):
            await expect(opened.page.locator(place)).to_be_hidden()
        assert sum("/connection/websocket" in url for url in opened.requests) == 1


async def test_a_refused_subscription_is_shown_with_the_option_that_permits_it(browser: Browser) -> None:
    async with opening_with(browser, ANONYMOUS) as opened:
        page = opened.page
        await expect(page.locator("#status")).to_have_text(
            "The server refuses to subscribe to lobby: permission denied, "
            "unless allow_subscribe_for_anonymous = true is set in [channels]."
        )
        await expect(page.locator("#composer")).to_be_hidden()


async def test_a_refused_publication_is_shown_with_the_option_that_permits_it(browser: Browser) -> None:
    """The page receives messages all the same."""
    subscribing = {"allow_subscribe_for_anonymous": True}
    async with opening_with(browser, {**ANONYMOUS, "namespaces": {"chat": subscribing}}) as opened:
        page = opened.page
        await live(page)
        await page.fill("#text", "May I?")
        await page.press("#text", "Enter")
        await expect(page.locator("#composer-note")).to_have_text(
            "Not sent: permission denied, "
            "unless allow_publish_for_anonymous = true is set in [namespaces.chat]."
        )
