"""A subscriber and a transport that records, for tests of the load tool's connections."""

import asyncio
from typing import Any

from tocsin_load.counters import WorkerCounters
from tocsin_load.receipts import Receipts
from tocsin_load.subscriber import Subscriber


class RecordingTransport(asyncio.Transport):
    """`written` holds the bytes of each write."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.abort_count = 0
        self.unread_bytes = 0

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return self.unread_bytes

    def abort(self) -> None:
        self.abort_count += 1


def new_subscriber() -> Subscriber:
    """A subscriber of channel 0, within an attempt to connect. Its counters are `counters_of`."""
    subscriber = Subscriber(0, Receipts(0), WorkerCounters("run", 1), 2, lambda _: None)
    subscriber.on_opening()
    return subscriber


def counters_of(subscriber: Subscriber) -> WorkerCounters:
    return subscriber._counters
