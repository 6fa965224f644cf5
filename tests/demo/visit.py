"""Using the page, as a visitor does."""

from playwright.async_api import Locator, Page, expect

LANES = ["websocket", "eventsource"]


async def opened(page: Page, url: str) -> Page:
    """The page, once both connections are live."""
    await page.goto(url)
    await live(page)
    return page


async def live(page: Page) -> None:
    """Until both connections are."""
    for lane in LANES:
        await expect(page.locator(f"#lane-{lane}")).to_have_attribute("data-state", "connected")


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
