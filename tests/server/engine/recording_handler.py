"""A witness: a node's place taken by something that only writes down what its engine tells it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import NamedTuple

from tests.support.timing import SOON
from tocsin_server.engine.nodes import ControlCommand, NodeInfo, SurveyRequest
from tocsin_server.protocol.messages import Publication, Push


class ReceivedPublication(NamedTuple):
    """What an engine told about a publication."""

    channel: str
    publication: Publication
    epoch: str


class RecordingHandler:
    """Hears, obeys and reports, in the order in which it was asked to."""

    def __init__(self, uid: str = "n1") -> None:
        self.uid = uid
        self.received: list[ReceivedPublication] = []
        self.published_at: list[float] = []
        self.pushes: list[tuple[str, Push]] = []
        self.resubscribed: list[list[str]] = []
        self.commands: list[ControlCommand] = []
        self.requests: list[SurveyRequest] = []
        self._news = asyncio.Event()

    def on_publication(self, channel: str, publication: Publication, epoch: str, published_at: float) -> None:
        self.received.append(ReceivedPublication(channel, publication, epoch))
        self.published_at.append(published_at)
        self._news.set()

    def on_join_leave(self, channel: str, push: Push) -> None:
        self.pushes.append((channel, push))
        self._news.set()

    def on_resubscribed(self, channels: Collection[str]) -> None:
        self.resubscribed.append(sorted(channels))
        self._news.set()

    def on_control(self, order: ControlCommand) -> None:
        self.commands.append(order)
        self._news.set()

    def node_info(self, question: SurveyRequest) -> NodeInfo:
        self.requests.append(question)
        return NodeInfo(self.uid, f"host_{self.uid}", "0.1", 3, 2, 1, 4, 5, {"news": 4})

    def offsets(self, channel: str) -> list[int]:
        """The offsets heard in a channel."""
        return [heard.publication.offset for heard in self.received if heard.channel == channel]

    def payloads(self, channel: str) -> list[bytes]:
        """The data heard in a channel."""
        return [bytes(heard.publication.data) for heard in self.received if heard.channel == channel]

    async def until_received(self, count: int) -> None:
        """Wait until so many publications were heard."""
        await self.until(lambda: len(self.received) >= count)

    async def until_pushed(self, count: int) -> None:
        """Wait until so many joins and leaves were heard."""
        await self.until(lambda: len(self.pushes) >= count)

    async def until_commanded(self, count: int) -> None:
        """Wait until so many orders were given."""
        await self.until(lambda: len(self.commands) >= count)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until what was heard so far fulfils a condition; soon, or the test fails."""
        async with asyncio.timeout(SOON):
            while not condition():
                self._news.clear()
                await self._news.wait()
