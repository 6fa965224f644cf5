"""A worker process: a share of the connections in one event loop; JSON lines in and out."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from urllib.parse import urlsplit

import msgspec

from tocsin.transports.address import http_url, websocket_url
from tocsin.transports.sse import EVENTS_PATH

from .counters import WorkerCounters
from .messages import (
    BeginPublishing,
    Finish,
    Progress,
    Result,
    Share,
    WorkerReport,
    encode_line,
    instruction_decoder,
)
from .raw_connection import RawConnection
from .receipts import Receipts
from .sse_connection import SseConnection
from .subscriber import OPEN_SECONDS, Subscriber, describe
from .websocket_connection import WebSocketConnection

REPORT_SECONDS = 0.5
MOST_OPENING = 200  # a listening socket's queue is short, and a connection beyond it waits for seconds


class Worker:
    """All connections of one process.

    The mutable state is the subscribers, their opening tasks and the counters.
    """

    def __init__(self, share: Share) -> None:
        self._share = share
        self._counters = WorkerCounters(share.run, share.connections)
        self._opening_slots = asyncio.Semaphore(MOST_OPENING)
        self._tasks = asyncio.TaskGroup()
        self._ended = asyncio.Event()
        self._started = time.monotonic()
        self._subscribers: list[Subscriber] = []
        self._openings: set[asyncio.Task[None]] = set()

    async def run(self, instructions: asyncio.StreamReader) -> None:
        """Connect, receive and report, until the instructions end or the parent has exited."""
        async with self._tasks as tasks:
            work = (
                self._connect_all(),
                self._follow(instructions),
                self._report(),
                self._report_settled(),
            )
            running = [tasks.create_task(one) for one in work]
            await self._ended.wait()
            for task in (*running, *self._openings):
                task.cancel()
            for subscriber in self._subscribers:
                subscriber.end()
                if subscriber.transport is not None:
                    subscriber.transport.abort()

    # --- connections

    async def _connect_all(self) -> None:
        """Open the connections at this worker's rate."""
        share = self._share
        for index in range(share.connections):
            if share.rate:
                await asyncio.sleep(self._started + index / share.rate - time.monotonic())
            elif index % MOST_OPENING == 0:
                await asyncio.sleep(0)
            self._subscribers.append(self._new_subscriber(share.first + index))
            self._connect(self._subscribers[-1])

    def _new_subscriber(self, number: int) -> Subscriber:
        """Spread connections evenly over channels, over addresses in each channel, then over transports."""
        share = self._share
        channel, turn = number % len(share.channels), number + number // len(share.channels)
        subscriber = Subscriber(number, Receipts(channel), self._counters, len(share.urls), self._connect)
        subscriber.url_index = turn % len(share.urls)
        is_odd = turn // len(share.urls) % 2 == 1
        subscriber.is_sse = share.transport == "sse" or (share.transport == "mix" and is_odd)
        return subscriber

    def _connect(self, subscriber: Subscriber) -> None:
        opening = self._tasks.create_task(self._open(subscriber))
        self._openings.add(opening)
        opening.add_done_callback(self._openings.discard)

    async def _open(self, subscriber: Subscriber) -> None:
        async with self._opening_slots:
            subscriber.on_opening()
            try:
                async with asyncio.timeout(OPEN_SECONDS):
                    await self._create_connection(subscriber)
            except OSError as error:
                subscriber.on_lost(0, describe(error))

    async def _create_connection(self, subscriber: Subscriber) -> None:
        share = self._share
        base, channel = share.urls[subscriber.url_index], share.channels[subscriber.receipts.channel]
        index = subscriber.number - share.first
        token = share.tokens[index % len(share.tokens)] if share.tokens else ""
        source = share.sources[subscriber.number % len(share.sources)] if share.sources else ""
        kind: type[RawConnection] = SseConnection if subscriber.is_sse else WebSocketConnection
        url = http_url(base, EVENTS_PATH) if subscriber.is_sse else websocket_url(base)
        parts = urlsplit(url)
        is_secure = parts.scheme in ("https", "wss")
        await asyncio.get_running_loop().create_connection(
            lambda: kind(subscriber, channel, url, token),
            parts.hostname or "",
            parts.port or (443 if is_secure else 80),
            ssl=is_secure or None,
            local_addr=(source, 0) if source else None,
        )

    # --- the parent

    async def _follow(self, instructions: asyncio.StreamReader) -> None:
        while line := await instructions.readline():
            match instruction_decoder.decode(line):
                case BeginPublishing():
                    self._counters.is_publishing = True
                    self._write(self._progress())
                case Finish(tops, seconds):
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(seconds):
                            await self._wait_caught_up(tops)
                    self._write(self._result())
        self._ended.set()

    async def _wait_caught_up(self, tops: list[int]) -> None:
        behind = self._subscribers
        # polled, since a notification for each publication would slow down the receiving
        while behind := [one for one in behind if _is_behind(one, tops)]:  # noqa: ASYNC110
            await asyncio.sleep(REPORT_SECONDS / 5)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            now = asyncio.get_running_loop().time()
            for subscriber in self._subscribers:
                subscriber.check_deadline(now)
            self._write(self._progress())

    async def _report_settled(self) -> None:
        """Report once without delay, since publishing waits for it."""
        await self._counters.all_settled.wait()
        self._write(self._progress())

    def _progress(self) -> Progress:
        counters = self._counters
        return Progress(
            subscribed=counters.subscribed,
            settled=counters.settled,
            delivered=counters.delivered,
            lost_connections=counters.lost_connections,
            is_publishing=counters.is_publishing,
            failures=dict(counters.failures),
            latency=counters.take_latency(),
            connect_seconds=max(0.0, counters.last_settled - self._started),
        )

    def _result(self) -> Result:
        summaries = [
            one.receipts.summary(is_connected=one.is_subscribed)
            for one in self._subscribers
            if one.receipts.has_begun
        ]
        counters = self._counters
        return Result(
            summaries, counters.seconds, counters.reconnects, dict(counters.failures), counters.foreign
        )

    def _write(self, report: WorkerReport) -> None:
        try:
            sys.stdout.buffer.write(encode_line(report))
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            self._ended.set()


def _is_behind(subscriber: Subscriber, tops: list[int]) -> bool:
    receipts = subscriber.receipts
    is_behind = not subscriber.is_subscribed or receipts.received.top < tops[receipts.channel]
    return is_behind and receipts.has_begun and not subscriber.is_ended


async def main() -> None:
    """Read the share from standard input, and run it."""
    loop = asyncio.get_running_loop()
    instructions = asyncio.StreamReader(limit=2**26)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(instructions), sys.stdin)
    first = await instructions.readline()
    if first:
        await Worker(msgspec.json.decode(first, type=Share)).run(instructions)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
