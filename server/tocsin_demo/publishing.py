"""Publishes to the push server over HTTP, as a back end in any language does."""

import itertools
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Self
from uuid import uuid4

import msgspec
import structlog

from tocsin import AsyncPublisher, Position, ServerUnreachable, TimedOut, TocsinError

LINKS = "links"  # every change of a link, and every step of a check
LOBBY = "chat:lobby"  # the messages of visitors
VISITS = "visits"  # every change of a visit to the lobby

TIMEOUT_SECONDS = 3.0

CONNECTION_LIMIT = 16
"""Publishers to keep, the latest used. A restarted node has a new address, so old ones become useless."""

ReadyAddresses = Callable[[], Mapping[str, str]]
"""Returns the nodes that accept publications now: name -> address."""

Publish = Callable[[str, object], Awaitable[None]]
"""Publishes an event on a channel. Never raises."""

log = structlog.get_logger()


class Publisher:
    """Publishes to the ready nodes in turn, with a tag that names the node.

    If a node does not answer, the next one is tried with the same idempotency key. The message is therefore
    published once, with the tag of the node that accepted it. The mutable state is the publisher of each URL;
    only `_publisher_for` changes it.
    """

    def __init__(self, url: str, api_key: str, ready_addresses: ReadyAddresses) -> None:
        """`url` is shared by all nodes; it is used when no node is known to be ready."""
        self._url = url
        self._api_key = api_key
        self._ready_addresses = ready_addresses
        self._turn = itertools.count()
        self._publishers: dict[str, AsyncPublisher] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for publisher in self._publishers.values():
            await publisher.close()

    async def publish(self, channel: str, data: object) -> Position | None:
        """Publish, and return the position if the channel keeps a history.

        Raises the TocsinError of the last node that was tried.
        """
        key = uuid4().hex
        failure: TocsinError | None = None
        for name, url in self._candidates():
            tags = {"node": name} if name else None
            try:
                publisher = await self._publisher_for(url)
                return await publisher.publish(channel, data, tags=tags, idempotency_key=key)
            except (ServerUnreachable, TimedOut) as error:
                failure = error
        raise failure or ServerUnreachable("there is no node")

    def _candidates(self) -> Iterator[tuple[str, str]]:
        """Yield the name and URL of every ready node, each time another one first; at last the shared URL."""
        nodes = list(self._ready_addresses().items())
        first = next(self._turn) % max(1, len(nodes))
        for name, address in nodes[first:] + nodes[:first]:
            yield name, f"http://{address}"
        yield "", self._url

    async def _publisher_for(self, url: str) -> AsyncPublisher:
        publisher = self._publishers.pop(url, None)
        if publisher is None:
            publisher = AsyncPublisher(url, api_key=self._api_key, timeout_seconds=TIMEOUT_SECONDS)
        self._publishers[url] = publisher  # the latest used is last
        if len(self._publishers) > CONNECTION_LIMIT:
            await self._publishers.pop(next(iter(self._publishers))).close()
        return publisher


def publish_or_log(publisher: Publisher, level: int = logging.WARNING) -> Publish:
    """Return a function that publishes an event and logs a failure at this level instead of raising.

    The stored change is valid without the publication. Subscribers see the gap in `version` with the next
    event, and request the changes that they missed.
    """

    async def publish(channel: str, event: object) -> None:
        try:
            await publisher.publish(channel, msgspec.to_builtins(event))
        except TocsinError:
            log.log(level, "publish_failed", channel=channel, exc_info=True)

    return publish
