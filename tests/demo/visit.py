"""Using the page, as a visitor does."""

import asyncio

from playwright.async_api import Locator, Page, expect

from tests.support.timing import SOON, TICK

LANES = ["websocket", "eventsource"]
UNKNOWN = "\N{EN DASH}"
"""What the page shows in the place of a number that it has not got."""


async def opened(page: Page, url: str) -> Page:
    """The page, once both connections are live."""
    await page.goto(url)
    await live(page)
    return page


async def live(page: Page) -> None:
    """Until both connections are."""
    for lane in LANES:
        await expect(page.locator(f"#lane-{lane}")).to_have_attribute("data-state", "connected")


async def holds(page: Page, expression: str) -> None:
    """Wait until it does. Asked from outside: the page's own policy lets nobody evaluate texts."""
    async with asyncio.timeout(SOON):
        while not await page.evaluate(expression):  # noqa: ASYNC110 - known by looking
            await asyncio.sleep(TICK / 2)


async def say(page: Page, text: str) -> Locator:
    """Send it; the row it gets."""
    await page.fill("#text", text)
    await page.press("#text", "Enter")
    row = page.locator(".message", has_text=text)
    await expect(row).to_have_count(1)
    return row


async def send_ten(page: Page) -> None:
    await page.click("#send-ten")
    await expect(page.locator("#send-ten")).to_be_enabled()


def figure(page: Page, column: str, name: str) -> Locator:
    """What a column says of itself."""
    return page.locator(f"#column-{column} [data-figure={name}]")


def fact(page: Page, lane: str, name: str) -> Locator:
    return page.locator(f"#lane-{lane} [data-fact={name}]")


def way(row: Locator, lane: str) -> Locator:
    """How this connection came by a message."""
    return row.locator(".way").nth(LANES.index(lane))


async def toggle(page: Page, lane: str, state: str) -> None:
    await page.click(f"#lane-{lane} .button")
    await expect(page.locator(f"#lane-{lane}")).to_have_attribute("data-state", state)


async def online(page: Page) -> None:
    """What the browser tells every page when the network is back."""
    await page.evaluate("() => { dispatchEvent(new Event('online')); }")


async def resume(page: Page) -> None:
    """Put right what a visitor may have cut."""
    for lane in LANES:
        if await page.get_attribute(f"#lane-{lane}", "data-state") == "cut":
            await toggle(page, lane, "connected")
    await live(page)


async def contrasts(page: Page) -> dict[str, float]:
    """How every text that is shown stands out from what is behind it (WCAG 2.2, 1.4.3), by its words."""
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
