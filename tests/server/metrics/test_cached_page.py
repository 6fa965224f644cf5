"""A page is made once a second at most."""

import asyncio

import pytest

from tocsin_server.metrics.cached_page import PAGE_SECONDS, CachedPage


class Maker:
    """Makes numbered pages, each after `may_finish` is set."""

    def __init__(self) -> None:
        self.now = 0.0
        self.count = 0
        self.may_finish = asyncio.Event()
        self.may_finish.set()

    async def make(self) -> bytes:
        self.count += 1
        await self.may_finish.wait()
        return str(self.count).encode()


async def test_a_page_is_made_again_only_once_it_is_old() -> None:
    maker = Maker()
    page = CachedPage(maker.make, lambda: maker.now)
    assert [await page.get() for _ in range(3)] == [b"1", b"1", b"1"]
    maker.now = PAGE_SECONDS * 0.99
    assert await page.get() == b"1"
    maker.now = PAGE_SECONDS
    assert await page.get() == b"2"


async def test_callers_that_come_together_share_one_page() -> None:
    """Also if the first of them leaves before it is made."""
    maker = Maker()
    maker.may_finish.clear()
    page = CachedPage(maker.make, lambda: maker.now)
    first, *others = [asyncio.create_task(page.get()) for _ in range(5)]
    await asyncio.sleep(0)
    first.cancel()
    maker.may_finish.set()
    assert len(set(await asyncio.gather(*others))) == 1
    assert maker.count == 2
    with pytest.raises(asyncio.CancelledError):
        await first
