"""The two connections as the page shows them, while every word of their server is written in the test."""

from collections.abc import Awaitable, Callable

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from tests.demo.stage import Stage, granted, publication
from tests.demo.visit import LANES, UNKNOWN, fact

pytestmark = pytest.mark.asyncio(loop_scope="session")  # one browser for all of them

Say = Callable[[int], Awaitable[None]]

SETTING = """async ([socketUrl, eventsUrl]) => {
    const modules = ["/tocsin.js", "/demo/lane.js", "/demo/lane-view.js", "/demo/tally.js", "/demo/dom.js"];
    const [{connect, EventStream}, {Lane}, {showLane}, {Log}, {element}] =
        await Promise.all(modules.map(module => import(module)));
    const show = lane => {
        const place = element("article", {id: `lane-${lane.name.toLowerCase()}`});
        document.body.append(place);
        showLane(place, lane);
    };
    const client = connect(socketUrl, {token: "t"});
    show(new Lane("WebSocket", client, client.subscribe("news"), new Log()));
    const stream = new EventStream(eventsUrl, {channels: ["news"]});
    const lane = new Lane("EventSource", stream, stream, new Log());
    stream.addEventListener("connected", () => lane.stand(stream.position("news")));
    show(lane);
}"""


@pytest_asyncio.fixture(loop_scope="session")
async def says(page: Page, stage: Stage) -> dict[str, Say]:
    """Sends the publication of an offset, by connection; both stand at 7."""
    await page.goto(f"{stage.url}/page")
    await page.evaluate(SETTING, [stage.websocket_url, stage.events_url])
    for lane in LANES:
        await expect(fact(page, lane, "position")).to_have_text(UNKNOWN)
    connection, stream = await stage.connection(), await stage.stream()
    (subscribe,) = await connection.welcomes()
    await connection.says(granted(subscribe, 7))
    stream.says({"client": "c"}, "7@e", event="connect")

    async def over_websocket(offset: int) -> None:
        await connection.says(publication(offset))

    async def over_stream(offset: int) -> None:
        stream.says({"channel": "news", "pub": {"data": {}, "offset": offset}}, f"{offset}@e")

    return dict(zip(LANES, (over_websocket, over_stream), strict=True))


@pytest.mark.parametrize("lane", LANES)
async def test_what_is_heard_twice_is_counted_as_duplicated(
    page: Page, says: dict[str, Say], lane: str
) -> None:
    """The counter can count, and what came twice is heard once."""
    duplicated = fact(page, lane, "duplicated")
    await expect(duplicated).to_have_text("0")
    for offset in (8, 9, 8, 9, 10):
        await says[lane](offset)
    await expect(fact(page, lane, "position")).to_have_text("10@e")
    await expect(duplicated).to_have_text("2")
    await expect(page.locator(f"#lane-{lane} .is-bad")).to_have_text("duplicated2")
    await expect(fact(page, lane, "missed")).to_have_text("0")


@pytest.mark.parametrize("lane", LANES)
async def test_the_position_is_where_the_connection_stands(
    page: Page, says: dict[str, Say], lane: str
) -> None:
    """From the first on, and past what it is told that it cannot have."""
    position = fact(page, lane, "position")
    await expect(position).to_have_text("7@e")
    await says[lane](8)
    await expect(position).to_have_text("8@e")
    await says[lane](11)
    await expect(position).to_have_text("11@e")
