"""The nodes, as a back end publishes to them: any of them will do, so each has its turn."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Self
from uuid import uuid4

from tocsin import AsyncPublisher, Position, ServerUnreachable, TimedOut, TocsinError

TIMEOUT_SECONDS = 3.0

KEPT = 16
"""Connections to nodes, the latest used; each process that takes a place has an address of its own."""

Takers = Callable[[], Mapping[str, str]]
"""The nodes that take publications just now: name -> address of its own."""


class Publishers:
    """Publishes with a tag that says which node was asked.

    The next one is asked where one does not answer, with the same idempotency key: whatever became of the
    first attempt, it is published once, and has the tag of the node that took it.
    """

    def __init__(self, url: str, api_key: str, takers: Takers) -> None:
        """`url` leads to any node, for when none is known by name."""
        self._url = url
        self._api_key = api_key
        self._takers = takers
        self._turn = itertools.count()
        self._by_url: dict[str, AsyncPublisher] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for publisher in self._by_url.values():
            await publisher.close()

    async def publish(self, channel: str, data: object) -> Position | None:
        """Its position, if the channel keeps a log. Raises TocsinError, what the last node asked said."""
        key = uuid4().hex
        failure: TocsinError | None = None
        for name, url in self._in_turn():
            tags = {"node": name} if name else None
            try:
                publisher = await self._at(url)
                return await publisher.publish(channel, data, tags=tags, idempotency_key=key)
            except (ServerUnreachable, TimedOut) as error:
                failure = error
        raise failure or ServerUnreachable("there is no node")

    def _in_turn(self) -> Iterator[tuple[str, str]]:
        """Every taker, another one first each time; at last whoever is behind the common address."""
        takers = list(self._takers().items())
        first = next(self._turn) % max(1, len(takers))
        for name, address in takers[first:] + takers[:first]:
            yield name, f"http://{address}"
        yield "", self._url

    async def _at(self, url: str) -> AsyncPublisher:
        found = self._by_url.pop(url, None)
        if found is None:
            found = AsyncPublisher(url, api_key=self._api_key, timeout_seconds=TIMEOUT_SECONDS)
        self._by_url[url] = found  # the newest last
        if len(self._by_url) > KEPT:
            await self._by_url.pop(next(iter(self._by_url))).close()
        return found
