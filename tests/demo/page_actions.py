"""Actions of a visitor on the page, and what the page shows."""

import asyncio

from playwright.async_api import Locator, Page, expect

from tests.support.timing import SOON, TICK

CONNECTIONS = ["websocket", "eventsource"]
UNKNOWN = "\N{EN DASH}"
"""Shown in place of a number that is not known yet."""


async def open_page(page: Page, url: str) -> Page:
    """Open the page and wait until both connections are live."""
    await page.goto(url)
    await live(page)
    return page


async def live(page: Page) -> None:
    """Wait until both connections are live."""
    for connection in CONNECTIONS:
        await expect(page.locator(f"#connection-{connection}")).to_have_attribute("data-state", "connected")


async def holds(page: Page, expression: str) -> None:
    """Wait until the expression is true. The page's security policy forbids evaluating texts inside it."""
    async with asyncio.timeout(SOON):
        while not await page.evaluate(expression):  # noqa: ASYNC110 - it has to be polled
            await asyncio.sleep(TICK / 2)


async def send_message(page: Page, text: str) -> Locator:
    """Send a message, and return its row."""
    await page.fill("#text", text)
    await page.press("#text", "Enter")
    row = page.locator(".message", has_text=text)
    await expect(row).to_have_count(1)
    return row


async def send_ten(page: Page) -> None:
    await page.click("#send-ten")
    await expect(page.locator("#send-ten")).to_be_enabled()


def figure(page: Page, column: str, name: str) -> Locator:
    """A figure of a column of links."""
    return page.locator(f"#column-{column} [data-figure={name}]")


def fact(page: Page, connection: str, name: str) -> Locator:
    return page.locator(f"#connection-{connection} [data-fact={name}]")


def delivery(row: Locator, connection: str) -> Locator:
    """The part of a message's row that belongs to this connection."""
    return row.locator(".delivery").nth(CONNECTIONS.index(connection))


async def toggle(page: Page, connection: str, state: str) -> None:
    await page.click(f"#connection-{connection} .button")
    await expect(page.locator(f"#connection-{connection}")).to_have_attribute("data-state", state)


async def online(page: Page) -> None:
    """Dispatch the event of a browser whose network is back."""
    await page.evaluate("() => { dispatchEvent(new Event('online')); }")


async def resume(page: Page) -> None:
    """Resume connections that a test has cut."""
    for connection in CONNECTIONS:
        if await page.get_attribute(f"#connection-{connection}", "data-state") == "cut":
            await toggle(page, connection, "connected")
    await live(page)


async def poll_links(page: Page) -> None:
    """Let the polling column poll now, as choosing an interval does."""
    await page.dispatch_event("#interval", "change")


async def contrasts(page: Page) -> dict[str, float]:
    """The contrast of every visible text with its background (WCAG 2.2, 1.4.3), by its words."""
    ratios: dict[str, float] = await page.evaluate("""() => {
        const paint = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
        const channels = colour => {
            paint.clearRect(0, 0, 1, 1);
            paint.fillStyle = colour;
            paint.fillRect(0, 0, 1, 1);
            return [...paint.getImageData(0, 0, 1, 1).data];
        };
        const linear = part => (part /= 255) <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
        const light = colour => {
            const [red, green, blue] = channels(colour).map(linear);
            return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
        };
        const behind = node => {
            const colour = getComputedStyle(node).backgroundColor;
            return channels(colour)[3] === 255 ? colour : behind(node.parentElement);
        };
        const ratios = {};
        for (const node of document.querySelectorAll("p, a, h1, h2, h3, dt, dd, button, label, code")) {
            if (!node.textContent.trim() || !node.checkVisibility()) continue;
            const colours = [getComputedStyle(node).color, behind(node)];
            const [one, two] = colours.map(light).sort((one, two) => two - one);
            const name = `${node.tagName} ${node.className} ${node.textContent.trim()}`;
            ratios[name] = (one + 0.05) / (two + 0.05);
        }
        return ratios;
    }""")
    return ratios
