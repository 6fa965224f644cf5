"""What each column says that knowing cost it, and how late it was, while all it is told is written here."""

import json
import time
from http import HTTPStatus

import pytest
import pytest_asyncio
from playwright.async_api import Page, Route, expect

from tests.demo.stage import Connection, Json, Stage, granted
from tests.demo.visit import UNKNOWN, figure

pytestmark = pytest.mark.asyncio(loop_scope="session")  # one browser for all of them

SETTING = """async socketUrl => {
    const {connect} = await import("/tocsin.js");
    const modules = ["polled", "told", "link-column", "dom"].map(name => import(`/demo/${name}.js`));
    const [{PolledLinks}, {ToldLinks}, {showColumn}, {element}] = await Promise.all(modules);
    const client = connect(socketUrl, {token: "t"});
    window.columns = {polled: new PolledLinks(), told: new ToldLinks(client)};
    for (const [name, list] of Object.entries(columns)) {
        const place = element("section", {id: `column-${name}`});
        document.body.append(place);
        showColumn(place, list, () => {});
    }
}"""
ASK = "() => columns.polled.every(3_600_000)"  # at once, and then not in this test
COLUMNS = ["polled", "told"]


class Servers:
    """The application and a node. They know one link, and count the bytes that they write for each column."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._link: Json = {"id": 1, "url": "http://a.example/", "title": "Ä", "version": 1}
        self.written = dict.fromkeys(COLUMNS, 0)

    async def answer(self, route: Route) -> None:
        """200 with the link, or 304 to whoever knows it as it is."""
        version = self._link["version"]
        known = await route.request.header_value("if-none-match")
        status, headers, body = HTTPStatus.NOT_MODIFIED, {"etag": f'"{version}"'}, ""
        if known != headers["etag"]:
            body = json.dumps({"version": version, "links": [self._link], "deleted": []}, ensure_ascii=False)
            status, headers = HTTPStatus.OK, {**headers, "content-length": str(len(body.encode()))}
        lines = [f"HTTP/1.1 {status} {status.phrase}", *(": ".join(header) for header in headers.items())]
        self.written["polled" if known else "told"] += len("\r\n".join([*lines, "", body]).encode())
        await route.fulfill(status=status, headers=headers, body=body)

    async def grant(self) -> None:
        (subscribe,) = await self._connection.welcomes()
        await self._tell(granted(subscribe, 1))

    async def change(self, minutes_ago: float = 0) -> None:
        """Change the link, and tell whoever is told."""
        version = self._link["version"] + 1
        self._link |= {"version": version, "changed_at": (time.time() - 60 * minutes_ago) * 1000}
        news = {"event": "changed", "version": version, "link": self._link}
        await self._tell({"push": {"channel": "links", "pub": {"data": news, "offset": version}}})

    async def _tell(self, line: Json) -> None:
        size = len(json.dumps(line))
        self.written["told"] += size + (2 if size < 126 else 4)  # RFC 6455 §5.2
        await self._connection.says(line)


@pytest_asyncio.fixture(loop_scope="session")
async def servers(page: Page, stage: Stage) -> Servers:
    """Both columns know the link."""
    await page.goto(f"{stage.url}/page")
    await page.evaluate(SETTING, stage.websocket_url)
    servers = Servers(await stage.connection())
    await page.route("**/links*", servers.answer)
    await servers.grant()
    await page.evaluate(ASK)
    for column in COLUMNS:
        await expect(page.locator(f"#column-{column} .links li")).to_have_count(1)
    return servers


async def test_what_was_received_is_counted_to_the_byte(page: Page, servers: Servers) -> None:
    """Bodies and headers of answers, of a 304 too, and frames."""
    await servers.change()
    for requests in (2, 3):
        await page.evaluate(ASK)
        await expect(figure(page, "polled", "requests")).to_have_text(f"{requests}")
        for column in COLUMNS:
            await expect(figure(page, column, "bytes")).to_have_text(f"{servers.written[column]} B")
    await expect(figure(page, "told", "requests")).to_have_text("1")


@pytest.mark.parametrize("column", COLUMNS)
async def test_how_late_it_knew_is_told_of_the_last_change_and_on_average(
    page: Page, servers: Servers, column: str
) -> None:
    """Only of what changed since it came. The times are long, so that a slow machine's are not seen."""
    last, average = figure(page, column, "last"), figure(page, column, "average")
    for figures in (last, average):
        await expect(figures).to_have_text(UNKNOWN)
    for minutes, shown, mean in (
        (10, "10 min", "10 min"),
        (20, "20 min", "15 min"),
        (30, "30 min", "20 min"),
    ):
        await servers.change(minutes)
        await page.evaluate(ASK)
        await expect(last).to_have_text(shown)
        await expect(average).to_have_text(mean)
