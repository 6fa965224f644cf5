"""The two connections as the page shows them, against a fake server."""

from collections.abc import Awaitable, Callable

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from tests.demo.fake_server import Endpoint, publication, subscribe_reply
from tests.demo.page_actions import CONNECTIONS, UNKNOWN, fact

pytestmark = pytest.mark.asyncio(loop_scope="session")  # one browser for all of them

Publish = Callable[[int], Awaitable[None]]

SETUP = """async ([socketUrl, eventsUrl]) => {
    const names = ["connection", "connection-view", "delivery-counter", "dom"];
    const [{Connection}, {showConnection}, {History}, {element}] =
        await Promise.all(names.map(name => import(`/demo/${name}.js`)));
    const {connect, EventStream} = await import("/tocsin.js");
    const show = connection => {
        const place = element("article", {id: `connection-${connection.name.toLowerCase()}`});
        document.body.append(place);
        showConnection(place, connection);
    };
    const client = connect(socketUrl, {token: "t"});
    show(new Connection("WebSocket", client, client.subscribe("news"), new History()));
    const stream = new EventStream(eventsUrl, {channels: ["news"]});
    const connection = new Connection("EventSource", stream, stream, new History());
    stream.addEventListener("connected", () => connection.startAt(stream.position("news")));
    show(connection);
}"""


@pytest_asyncio.fixture(loop_scope="session")
async def publish(page: Page, endpoint: Endpoint) -> dict[str, Publish]:
    """Functions that push the publication of an offset, by connection. Both connections begin at 7."""
    await page.goto(f"{endpoint.url}/page")
    await page.evaluate(SETUP, [endpoint.websocket_url, endpoint.events_url])
    for name in CONNECTIONS:
        await expect(fact(page, name, "position")).to_have_text(UNKNOWN)
    connection, stream = await endpoint.connection(), await endpoint.stream()
    (subscribe,) = await connection.accept_connect()
    await connection.send(subscribe_reply(subscribe, 7))
    stream.send({"client": "c"}, "7@e", event="connect")

    async def over_websocket(offset: int) -> None:
        await connection.send(publication(offset))

    async def over_stream(offset: int) -> None:
        stream.send({"channel": "news", "pub": {"data": {}, "offset": offset}}, f"{offset}@e")

    return dict(zip(CONNECTIONS, (over_websocket, over_stream), strict=True))


@pytest.mark.parametrize("connection", CONNECTIONS)
async def test_duplicates_are_counted(page: Page, publish: dict[str, Publish], connection: str) -> None:
    """A publication that arrives twice counts as received once."""
    duplicated = fact(page, connection, "duplicated")
    await expect(duplicated).to_have_text("0")
    for offset in (8, 9, 8, 9, 10):
        await publish[connection](offset)
    await expect(fact(page, connection, "position")).to_have_text("10@e")
    await expect(duplicated).to_have_text("2")
    await expect(page.locator(f"#connection-{connection} .is-bad")).to_have_text("duplicated2")
    await expect(fact(page, connection, "missed")).to_have_text("0")


@pytest.mark.parametrize("connection", CONNECTIONS)
async def test_the_position_follows_publications_and_gaps(
    page: Page, publish: dict[str, Publish], connection: str
) -> None:
    """It begins at the position of the subscribe reply."""
    position = fact(page, connection, "position")
    await expect(position).to_have_text("7@e")
    await publish[connection](8)
    await expect(position).to_have_text("8@e")
    await publish[connection](11)
    await expect(position).to_have_text("11@e")
