"""The cost and the delay that each column of links shows, against a fake application and a fake node."""

import json
import time
from http import HTTPStatus

import pytest
import pytest_asyncio
from playwright.async_api import Page, Route, expect

from tests.demo.fake_server import Connection, Endpoint, Json, subscribe_reply
from tests.demo.page_actions import UNKNOWN, figure

pytestmark = pytest.mark.asyncio(loop_scope="session")  # one browser for all of them

SETUP = """async socketUrl => {
    const {connect} = await import("/tocsin.js");
    const names = ["polled-links", "pushed-links", "link-column", "dom"];
    const [{PolledLinks}, {PushedLinks}, {showColumn}, {element}] =
        await Promise.all(names.map(name => import(`/demo/${name}.js`)));
    const client = connect(socketUrl, {token: "t"});
    window.columns = {polled: new PolledLinks(), pushed: new PushedLinks(client)};
    for (const [name, list] of Object.entries(columns)) {
        const place = element("section", {id: `column-${name}`});
        document.body.append(place);
        showColumn(place, list, () => {});
    }
}"""
POLL = "() => columns.polled.pollEvery(3_600_000)"  # polls at once, and not again in this test
COLUMNS = ["polled", "pushed"]


class Servers:
    """The application and a node. They have one link, and count the bytes that they write for each column."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._link: Json = {"id": 1, "url": "http://a.example/", "title": "Ä", "version": 1}
        self.written = dict.fromkeys(COLUMNS, 0)

    async def respond(self, route: Route) -> None:
        """Respond with the link, or 304 if the request names its version."""
        version = self._link["version"]
        known = await route.request.header_value("if-none-match")
        status, headers, body = HTTPStatus.NOT_MODIFIED, {"etag": f'"{version}"'}, ""
        if known != headers["etag"]:
            body = json.dumps({"version": version, "links": [self._link], "deleted": []}, ensure_ascii=False)
            status, headers = HTTPStatus.OK, {**headers, "content-length": str(len(body.encode()))}
        lines = [f"HTTP/1.1 {status} {status.phrase}", *(": ".join(header) for header in headers.items())]
        self.written["polled" if known else "pushed"] += len("\r\n".join([*lines, "", body]).encode())
        await route.fulfill(status=status, headers=headers, body=body)

    async def subscribe(self) -> None:
        (subscribe,) = await self._connection.accept_connect()
        await self._send(subscribe_reply(subscribe, 1))

    async def change(self, minutes_ago: float = 0) -> None:
        """Change the link, and publish the change."""
        version = self._link["version"] + 1
        self._link |= {"version": version, "changed_at": (time.time() - 60 * minutes_ago) * 1000}
        event = {"event": "changed", "version": version, "link": self._link}
        await self._send({"push": {"channel": "links", "pub": {"data": event, "offset": version}}})

    async def _send(self, line: Json) -> None:
        size = len(json.dumps(line))
        self.written["pushed"] += size + (2 if size < 126 else 4)  # RFC 6455 §5.2
        await self._connection.send(line)


@pytest_asyncio.fixture(loop_scope="session")
async def servers(page: Page, endpoint: Endpoint) -> Servers:
    """Both columns show the link."""
    await page.goto(f"{endpoint.url}/page")
    await page.evaluate(SETUP, endpoint.websocket_url)
    servers = Servers(await endpoint.connection())
    await page.route("**/links*", servers.respond)
    await servers.subscribe()
    await page.evaluate(POLL)
    for column in COLUMNS:
        await expect(page.locator(f"#column-{column} .links li")).to_have_count(1)
    return servers


async def test_received_bytes_are_counted_exactly(page: Page, servers: Servers) -> None:
    """Headers and bodies of responses, also of a 304, and frames."""
    await servers.change()
    for requests in (2, 3):
        await page.evaluate(POLL)
        await expect(figure(page, "polled", "requests")).to_have_text(f"{requests}")
        for column in COLUMNS:
            await expect(figure(page, column, "bytes")).to_have_text(f"{servers.written[column]} B")
    await expect(figure(page, "pushed", "requests")).to_have_text("1")


@pytest.mark.parametrize("column", COLUMNS)
async def test_the_delay_of_the_last_change_and_the_average_are_shown(
    page: Page, servers: Servers, column: str
) -> None:
    """Only of changes after the page was opened. The delays are long, so that test delays do not show."""
    last, average = figure(page, column, "last"), figure(page, column, "average")
    for figures in (last, average):
        await expect(figures).to_have_text(UNKNOWN)
    for minutes, shown, mean in (
        (10, "10 min", "10 min"),
        (20, "20 min", "15 min"),
        (30, "30 min", "20 min"),
    ):
        await servers.change(minutes)
        await page.evaluate(POLL)
        await expect(last).to_have_text(shown)
        await expect(average).to_have_text(mean)
