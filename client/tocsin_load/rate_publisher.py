"""A publisher with a rate. It records which publications the HTTP API of one or several nodes acknowledged.

Each channel belongs to one sender, and a sender has one request in flight. So the numbers of a channel's
publications are acknowledged in order, from all nodes. Publications that become due in the meantime go
together in the next request. A request is never repeated: without a response, its publications count as not
acknowledged.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any, Self

import httpx

from tocsin import api
from tocsin.errors import BadProtocol, CallError, TocsinError, Unauthorized
from tocsin.models import Position
from tocsin.protocol.codec import encode_json
from tocsin.transports.address import http_url
from tocsin.transports.http import HttpClient, HttpTarget, api_key_header, post_async

from .deliveries import AcknowledgedPublications

SENDERS = 32
BATCH_SIZE = 100  # publications in one request
BATCH_BYTES = 1_000_000
TIMEOUT_SECONDS = 10.0
IDLE_SECONDS = 2.0  # shorter than a server's, so that a connection that it just closed is not used
LONGEST_PAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class PublishingPlan:
    """``rate`` publications a second over all channels, each of ``size`` bytes, ``total`` at most."""

    channels: Sequence[str]
    rate: float
    size: int
    seconds: float
    total: int
    run: str


class RatePublisher:
    """The publisher of one run. ``acknowledged`` is by channel, ``failures`` by reason.

    The mutable state is these two, ``sent``, ``seconds`` and the last number of each channel; the senders
    change it.
    """

    def __init__(self, plan: PublishingPlan, urls: Sequence[str], api_key: str) -> None:
        self.acknowledged = [AcknowledgedPublications() for _ in plan.channels]
        self.failures: Counter[str] = Counter()
        self.sent = 0
        self.seconds = 0.0
        self._plan = plan
        self._urls = [http_url(http_url(url, "/api"), "/batch") for url in urls]
        self._headers = {"Content-Type": "application/json"} | api_key_header(api_key)
        self._numbers = [0] * len(plan.channels)
        self._stopped = asyncio.Event()
        self._started = 0.0

    @property
    def tops(self) -> list[int]:
        """The last acknowledged number of each channel."""
        return [one.numbers.top for one in self.acknowledged]

    @property
    def acknowledged_count(self) -> int:
        """The number of acknowledged publications."""
        return sum(len(one.numbers) for one in self.acknowledged)

    def stop(self) -> None:
        """Send no further request. ``run`` ends once those in flight are answered."""
        self._stopped.set()

    async def run(self) -> None:
        """Publish until the time or the number is reached, or ``stop`` is called."""
        async with AsyncExitStack() as stack:
            nodes = [await stack.enter_async_context(_Node(url, self._headers)) for url in self._urls]
            self._started = time.monotonic()
            end = asyncio.get_running_loop().call_later(self._plan.seconds, self.stop)
            try:
                async with asyncio.TaskGroup() as tasks:
                    for sender in range(min(SENDERS, len(self._plan.channels))):
                        tasks.create_task(self._run_sender(nodes, sender))
            finally:
                end.cancel()
        self.seconds = time.monotonic() - self._started

    async def _run_sender(self, nodes: Sequence[_Node], sender: int) -> None:
        turns = _turns(sender, len(self._plan.channels), self._plan.total)
        turn, node, failures = next(turns, None), sender, 0
        while turn is not None and not await self._wait_until(self._due_at(turn)):
            batch: list[int] = []
            while turn is not None and self._due_at(turn) <= time.monotonic() and len(batch) < self._most:
                batch.append(turn % len(self._plan.channels))
                turn = next(turns, None)
            is_answered = await self._publish(nodes[node % len(nodes)], batch)
            node += 1
            failures = 0 if is_answered else failures + 1
            pause = min(LONGEST_PAUSE_SECONDS, 0.1 * 2**failures)
            if failures and await self._wait_until(time.monotonic() + pause):
                return

    @property
    def _most(self) -> int:
        return max(1, min(BATCH_SIZE, BATCH_BYTES // max(1, self._plan.size)))

    def _due_at(self, turn: int) -> float:
        return self._started + turn / self._plan.rate

    async def _wait_until(self, time_due: float) -> bool:
        """Wait until a time. Returns whether the run was stopped in the meantime."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), max(0.0, time_due - time.monotonic()))
        return self._stopped.is_set()

    async def _publish(self, node: _Node, channels: list[int]) -> bool:
        numbered = [(channel, self._next_number(channel)) for channel in channels]
        now = time.monotonic()
        call = api.batch(
            api.publish(self._plan.channels[channel], self._data(number, now)) for channel, number in numbered
        )
        try:
            outcomes = await node.post(call)
        except (httpx.RequestError, TocsinError) as error:
            self.failures[_describe(error)] += len(channels)
            return False
        for (channel, number), outcome in zip(numbered, outcomes, strict=True):
            if isinstance(outcome, CallError):
                self.failures[str(outcome)] += 1
            else:
                self.acknowledged[channel].add(number, outcome)
        return True

    def _next_number(self, channel: int) -> int:
        self._numbers[channel] += 1
        self.sent += 1
        return self._numbers[channel]

    def _data(self, number: int, now: float) -> dict[str, Any]:
        data = {"run": self._plan.run, "n": number, "at": round(now, 6)}
        padding = self._plan.size - len(encode_json(data)) - len(',"pad":""')
        return data | ({"pad": "x" * padding} if padding >= 0 else {})


class _Node:
    """The HTTP API of one node, for as long as it is entered."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        limits = httpx.Limits(max_connections=2 * SENDERS, keepalive_expiry=IDLE_SECONDS)
        target = HttpTarget(url, timeout=TIMEOUT_SECONDS, limits=limits, headers=headers)
        self._url = url
        self._http = target.new_client(HttpClient)

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def post(self, call: api.Call[list[api.Outcome]]) -> list[Position | CallError | None]:
        """Send a batch. Raises ``TocsinError`` unless it is answered with an outcome for each call."""
        response = await post_async(
            self._http, TIMEOUT_SECONDS, url=self._url, content=encode_json(call.body)
        )
        if response.status_code == 401:
            raise Unauthorized("the API key is missing or wrong")
        if response.status_code != 200:
            raise BadProtocol(f"publish: HTTP {response.status_code}")
        return api.read_response(call, response.text)


def _turns(sender: int, channels: int, total: int) -> Iterator[int]:
    """Yield a sender's turns: turn t publishes into channel t mod ``channels``, which one sender serves."""
    senders = min(SENDERS, channels)
    for first in count(0, channels):
        for channel in range(sender, channels, senders):
            if first + channel >= total:
                return
            yield first + channel


def _describe(error: Exception) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "publish: no response in time"
    if isinstance(error, httpx.RequestError):
        return f"publish: {type(error).__name__}"
    return str(error)
