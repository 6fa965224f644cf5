"""Publishing at a rate, through the HTTP API of one or several nodes; it knows what was acknowledged.

Channels are dealt to lanes. A lane has one request under way at a time: so the numbers of a channel's
publications are acknowledged in order, whichever node takes them. What comes due meanwhile goes together in
the next request. A request is never repeated: what got no answer is not acknowledged, and nobody is owed it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

import httpx

from tocsin import api
from tocsin.address import http_url
from tocsin.errors import BadProtocol, CallError, TocsinError, Unauthorized
from tocsin.http import HttpClient
from tocsin.protocol import to_json
from tocsin.values import Position

from .verdict import Acknowledged

LANES = 32
BATCH = 100  # publications in one request
BATCH_BYTES = 1_000_000
TIMEOUT_SECONDS = 10.0
IDLE_SECONDS = 2.0  # shorter than servers keep an idle connection: one that they just closed is not used
LONGEST_PAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Load:
    """What to publish: ``rate`` a second over all channels, each of ``size`` bytes, ``total`` at most."""

    channels: Sequence[str]
    rate: float
    size: int
    seconds: float
    total: int
    run: str


class Publishing:
    """One run. ``tops`` and ``acknowledged`` count by channel; ``failures`` by reason."""

    def __init__(self, load: Load, urls: Sequence[str], api_key: str) -> None:
        self.acknowledged = [Acknowledged() for _ in load.channels]
        self.failures: Counter[str] = Counter()
        self.sent = 0
        self.seconds = 0.0
        self._load = load
        self._urls = [http_url(url, "/api") + "/batch" for url in urls]
        self._headers = {"Content-Type": "application/json"} | ({"X-API-Key": api_key} if api_key else {})
        self._numbers = [0] * len(load.channels)
        self._stopped = asyncio.Event()
        self._started = 0.0

    @property
    def tops(self) -> list[int]:
        """The last acknowledged number of each channel."""
        return [one.numbers.top for one in self.acknowledged]

    @property
    def total(self) -> int:
        """How many publications were acknowledged."""
        return sum(len(one.numbers) for one in self.acknowledged)

    def stop(self) -> None:
        """Send nothing more; what is under way is waited for."""
        self._stopped.set()

    async def run(self) -> None:
        """Publish until the time or the number is reached, or ``stop`` is called."""
        limits = httpx.Limits(max_connections=2 * LANES, keepalive_expiry=IDLE_SECONDS)
        async with HttpClient(timeout=TIMEOUT_SECONDS, limits=limits, headers=self._headers) as http:
            self._started = time.monotonic()
            end = asyncio.get_running_loop().call_later(self._load.seconds, self.stop)
            try:
                async with asyncio.TaskGroup() as lanes:
                    for lane in range(min(LANES, len(self._load.channels))):
                        lanes.create_task(self._run_lane(http, lane))
            finally:
                end.cancel()
        self.seconds = time.monotonic() - self._started

    async def _run_lane(self, http: httpx.AsyncClient, lane: int) -> None:
        turns = _turns(lane, len(self._load.channels), self._load.total)
        turn, node, failed = next(turns, None), lane, 0
        while turn is not None and not await self._wait(self._due(turn)):
            batch: list[int] = []
            while turn is not None and self._due(turn) <= time.monotonic() and len(batch) < self._most:
                batch.append(turn % len(self._load.channels))
                turn = next(turns, None)
            is_answered = await self._publish(http, self._urls[node % len(self._urls)], batch)
            node += 1
            failed = 0 if is_answered else failed + 1
            if failed and await self._wait(time.monotonic() + min(LONGEST_PAUSE_SECONDS, 0.1 * 2**failed)):
                return

    @property
    def _most(self) -> int:
        return max(1, min(BATCH, BATCH_BYTES // max(1, self._load.size)))

    def _due(self, turn: int) -> float:
        return self._started + turn / self._load.rate

    async def _wait(self, until: float) -> bool:
        """Wait; says whether the run was stopped meanwhile."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), max(0.0, until - time.monotonic()))
        return self._stopped.is_set()

    async def _publish(self, http: httpx.AsyncClient, url: str, channels: list[int]) -> bool:
        numbered = [(channel, self._number(channel)) for channel in channels]
        now = time.monotonic()
        call = api.batch(
            api.publish(self._load.channels[channel], self._data(number, now)) for channel, number in numbered
        )
        try:
            outcomes = await _post(http, url, call)
        except (httpx.TransportError, TocsinError) as error:
            self.failures[_describe(error)] += len(channels)
            return False
        for (channel, number), outcome in zip(numbered, outcomes, strict=True):
            if isinstance(outcome, CallError):
                self.failures[str(outcome)] += 1
            else:
                self.acknowledged[channel].add(number, outcome)
        return True

    def _number(self, channel: int) -> int:
        self._numbers[channel] += 1
        self.sent += 1
        return self._numbers[channel]

    def _data(self, number: int, now: float) -> dict[str, Any]:
        data = {"run": self._load.run, "n": number, "at": round(now, 6)}
        padding = self._load.size - len(to_json(data)) - len(',"pad":""')
        return data | ({"pad": "x" * padding} if padding >= 0 else {})


async def _post(
    http: httpx.AsyncClient, url: str, call: api.Call[list[api.Outcome]]
) -> list[Position | CallError | None]:
    response = await http.post(url, content=to_json(call.body))
    if response.status_code == 401:
        raise Unauthorized("the API key is missing or wrong")
    if response.status_code != 200:
        raise BadProtocol(f"publish: HTTP {response.status_code}")
    return api.read_answer(call, response.text)


def _turns(lane: int, channels: int, total: int) -> Iterator[int]:
    """Give a lane's turns: turn t is of channel t modulo their number, that of lane … modulo theirs."""
    lanes = min(LANES, channels)
    for first in count(0, channels):
        for channel in range(lane, channels, lanes):
            if first + channel >= total:
                return
            yield first + channel


def _describe(error: Exception) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "publish: no answer in time"
    if isinstance(error, httpx.TransportError):
        return f"publish: {type(error).__name__}"
    return str(error)
