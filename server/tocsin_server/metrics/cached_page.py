"""A page that is made once a second at most, however many callers request it.

The mutable state is the last page and its time. Only `get` changes it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

PAGE_SECONDS = 1.0
"""How old a page may be. Scrapers come every few seconds; a shorter time would let them cost more."""


class CachedPage:
    """What `make` returns, made again when it is older than PAGE_SECONDS and a caller requests it."""

    def __init__(
        self, make: Callable[[], Awaitable[bytes]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._make = make
        self._clock = clock
        self._page = b""
        self._made_at: float | None = None
        self._making = asyncio.Lock()

    async def get(self) -> bytes:
        """The page. Callers that come while it is made wait for the same one."""
        if not self._is_fresh:
            async with self._making:
                if not self._is_fresh:
                    self._page = await self._make()
                    self._made_at = self._clock()
        return self._page

    @property
    def _is_fresh(self) -> bool:
        return self._made_at is not None and self._clock() - self._made_at < PAGE_SECONDS
