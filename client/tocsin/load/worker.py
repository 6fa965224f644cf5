"""A worker process: its share of the connections in one loop, orders on standard input, answers on output."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from urllib.parse import urlsplit

import msgspec

from tocsin.address import http_url, websocket_url
from tocsin.sse import EVENTS_PATH

from .listener import OPEN_SECONDS, Listener, describe
from .messages import Begin, Finish, Progress, Result, Said, Share, line, read_order
from .meter import Meter
from .over_events import EventWire
from .over_websocket import WebSocketWire
from .record import Record
from .wire import Wire

REPORT_SECONDS = 0.5
MOST_DIALLING = 200  # a listening socket's queue is short, and what overflows it waits for seconds


class Worker:
    """All connections of one process."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._meter = Meter(share.run)
        self._dialling = asyncio.Semaphore(MOST_DIALLING)
        self._tasks = asyncio.TaskGroup()
        self._ended = asyncio.Event()
        self._tops: list[int] | None = None
        self._started = time.monotonic()
        self._listeners: list[Listener] = []
        self._openings: set[asyncio.Task[None]] = set()

    async def run(self, orders: asyncio.StreamReader) -> None:
        """Connect, hear and report, until told to finish or the parent has gone."""
        async with self._tasks as tasks:
            chores = [tasks.create_task(one) for one in (self._connect(), self._obey(orders), self._report())]
            await self._ended.wait()
            for task in (*chores, *self._openings):
                task.cancel()
            for listener in self._listeners:
                listener.end()
                if listener.transport is not None:
                    listener.transport.abort()

    # --- connections

    async def _connect(self) -> None:
        """Open the connections at the rate that is this worker's."""
        share = self._share
        for index in range(share.connections):
            if share.rate:
                await asyncio.sleep(self._started + index / share.rate - time.monotonic())
            elif index % MOST_DIALLING == 0:
                await asyncio.sleep(0)
            self._listeners.append(self._listener(share.first + index))
            self._dial(self._listeners[-1])

    def _listener(self, number: int) -> Listener:
        """Spread over channels first, then over addresses and transports, each evenly within the other."""
        share = self._share
        channel, turn = number % len(share.channels), number + number // len(share.channels)
        listener = Listener(number, Record(channel), self._meter, len(share.urls), self._dial)
        listener.home = turn % len(share.urls)
        is_odd = turn // len(share.urls) % 2 == 1
        listener.is_sse = share.transport == "sse" or (share.transport == "mix" and is_odd)
        return listener

    def _dial(self, listener: Listener) -> None:
        opening = self._tasks.create_task(self._open(listener))
        self._openings.add(opening)
        opening.add_done_callback(self._openings.discard)

    async def _open(self, listener: Listener) -> None:
        async with self._dialling:
            listener.opening()
            try:
                async with asyncio.timeout(OPEN_SECONDS):
                    await self._create(listener)
            except OSError as error:
                listener.lost(0, describe(error))

    async def _create(self, listener: Listener) -> None:
        share = self._share
        base, channel = share.urls[listener.home], share.channels[listener.record.channel]
        token = share.tokens[(listener.number - share.first) % len(share.tokens)] if share.tokens else ""
        source = share.sources[listener.number % len(share.sources)] if share.sources else ""
        kind: type[Wire] = EventWire if listener.is_sse else WebSocketWire
        url = http_url(base, EVENTS_PATH) if listener.is_sse else websocket_url(base)
        parts = urlsplit(url)
        is_secure = parts.scheme in ("https", "wss")
        await asyncio.get_running_loop().create_connection(
            lambda: kind(listener, channel, url, token),
            parts.hostname or "",
            parts.port or (443 if is_secure else 80),
            ssl=is_secure or None,
            local_addr=(source, 0) if source else None,
        )

    # --- the parent

    async def _obey(self, orders: asyncio.StreamReader) -> None:
        while order := await orders.readline():
            match read_order.decode(order):
                case Begin():
                    self._meter.has_begun = True
                    self._say(self._progress())
                case Finish(tops, seconds):
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(seconds):
                            await self._all_heard(tops)
                    self._say(self._result())
        self._ended.set()

    async def _all_heard(self, tops: list[int]) -> None:
        waiting = self._listeners
        while waiting := [one for one in waiting if _still_waits(one, tops)]:  # noqa: ASYNC110 # hearing is hot
            await asyncio.sleep(REPORT_SECONDS / 5)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            now = asyncio.get_running_loop().time()
            for listener in self._listeners:
                listener.check(now)
            self._say(self._progress())

    def _progress(self) -> Progress:
        meter = self._meter
        return Progress(
            subscribed=meter.subscribed,
            settled=meter.settled,
            delivered=meter.delivered,
            lost_connections=meter.lost_connections,
            has_begun=meter.has_begun,
            failures=dict(meter.failures),
            latency=meter.take_latency(),
            connect_seconds=max(0.0, meter.last_settled - self._started),
        )

    def _result(self) -> Result:
        accounts = [
            one.record.account(is_connected=one.is_subscribed)
            for one in self._listeners
            if one.record.has_begun
        ]
        meter = self._meter
        return Result(accounts, meter.seconds, meter.returns, dict(meter.failures), meter.foreign)

    def _say(self, message: Said) -> None:
        try:
            sys.stdout.buffer.write(line(message))
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            self._ended.set()


def _still_waits(listener: Listener, tops: list[int]) -> bool:
    record = listener.record
    is_behind = not listener.is_subscribed or record.heard.top < tops[record.channel]
    return is_behind and record.has_begun and not listener.is_over


async def main() -> None:
    """Take the share from standard input and work on it."""
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader(limit=2**26)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    first = await orders.readline()
    if first:
        await Worker(msgspec.json.decode(first, type=Share)).run(orders)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
