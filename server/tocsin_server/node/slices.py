"""Work on many items that lets other code run in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

SLICE_ITEMS = 500
"""Items per slice: below a millisecond, at one or two microseconds each."""

T = TypeVar("T")


async def in_slices(items: Iterable[T]) -> AsyncIterator[T]:
    """Yield every item, and let the event loop run after each slice. `items` must not change meanwhile."""
    for number, item in enumerate(items, 1):
        yield item
        if number % SLICE_ITEMS == 0:
            await asyncio.sleep(0)
