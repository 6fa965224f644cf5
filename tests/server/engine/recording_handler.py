"""A recording handler: takes the place of a node, and records the calls of its engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from tests.support.timing import SOON
from tocsin_server.core.revocations import Revocation
from tocsin_server.engine.nodes import ControlCommand, NodeInfo, SurveyRequest
from tocsin_server.protocol.messages import Publication, Push


class ReceivedPublication(NamedTuple):
    """A publication as the engine delivered it."""

    channel: str
    publication: Publication
    epoch: str


def node_info(uid: str) -> NodeInfo:
    """The answer of every recording handler to a survey."""
    return NodeInfo(uid, f"host_{uid}", "0.1", 3, 2, 1, 4, 5, {"news": 4})


class RecordingHandler:
    """Implements EngineHandler. Each list is in the order of the calls."""

    def __init__(self, uid: str = "n1") -> None:
        self.uid = uid
        self.received: list[ReceivedPublication] = []
        self.published_at: list[float] = []
        self.may_be_delta: list[bool] = []
        self.pushes: list[tuple[str, Push]] = []
        self.resubscribed: list[list[str]] = []
        self.commands: list[ControlCommand] = []
        self.applied: list[asyncio.Future[None]] = []
        """What must be done before a control command counts as applied."""
        self.requests: list[SurveyRequest] = []
        self.revocations: list[Revocation] = []
        self.known_revocations: list[Revocation] = []
        self.forwarded: list[tuple[bytes, bytes]] = []
        self.sessions: set[bytes] = set()
        self._called = asyncio.Event()

    def on_publication(
        self,
        channel: str,
        publication: Publication,
        epoch: str,
        published_at: float,
        *,
        may_be_delta: bool,
    ) -> None:
        self.received.append(ReceivedPublication(channel, publication, epoch))
        self.may_be_delta.append(may_be_delta)
        self.published_at.append(published_at)
        self._called.set()

    def on_join_leave(self, channel: str, push: Push) -> None:
        self.pushes.append((channel, push))
        self._called.set()

    def on_resubscribed(self, channels: Collection[str]) -> None:
        self.resubscribed.append(sorted(channels))
        self._called.set()

    def on_control(self, command: ControlCommand) -> Collection[asyncio.Future[None]]:
        self.commands.append(command)
        self._called.set()
        return self.applied

    def on_revocations(self, revocations: Sequence[Revocation]) -> None:
        self.revocations += revocations
        self._called.set()

    def on_commands(self, session: bytes, data: bytes) -> bool:
        self.forwarded.append((session, data))
        self._called.set()
        return session in self.sessions

    async def node_info(self, request: SurveyRequest) -> NodeInfo:
        self.requests.append(request)
        return node_info(self.uid)

    def offsets(self, channel: str) -> list[int]:
        """The offsets received in a channel."""
        return [received.publication.offset for received in self.received if received.channel == channel]

    def payloads(self, channel: str) -> list[bytes]:
        """The data received in a channel."""
        return [bytes(received.publication.data) for received in self.received if received.channel == channel]

    async def until_received(self, count: int) -> None:
        """Wait until so many publications were received."""
        await self.until(lambda: len(self.received) >= count)

    async def until_pushed(self, count: int) -> None:
        """Wait until so many joins and leaves were received."""
        await self.until(lambda: len(self.pushes) >= count)

    async def until_commanded(self, count: int) -> None:
        """Wait until so many control commands were received."""
        await self.until(lambda: len(self.commands) >= count)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on the recorded calls holds. The test fails if that takes too long."""
        async with asyncio.timeout(SOON):
            while not condition():
                self._called.clear()
                await self._called.wait()
