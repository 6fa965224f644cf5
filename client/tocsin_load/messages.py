"""The messages between the parent and its worker processes, one JSON line each."""

from __future__ import annotations

from msgspec import Struct, field, json

from .histogram import Histogram
from .receipts import ReceiptsSummary


class Share(Struct, tag=True):
    """The first instruction: the worker's connections, ``first`` up to ``first + connections``.

    ``tokens`` has one token for all connections, one for each, or none. ``rate`` is in connects per second; 0
    means at once.
    """

    urls: list[str]
    transport: str
    channels: list[str]
    first: int
    connections: int
    rate: float
    run: str
    tokens: list[str]
    sources: list[str]


class BeginPublishing(Struct, tag=True):
    """Publishing begins once the worker has answered ``Progress(is_publishing=True)``."""


class Finish(Struct, tag=True):
    """Publishing is over. The worker waits until all connections have caught up, at most ``seconds``.

    ``tops`` has the last acknowledged number of each channel. ``Result`` is the answer.
    """

    tops: list[int]
    seconds: float


class Progress(Struct, tag=True):
    """The counters of a worker. ``latency`` covers the time since the last progress."""

    subscribed: int
    settled: int
    delivered: int
    lost_connections: int
    is_publishing: bool
    failures: dict[str, int]
    latency: Histogram
    connect_seconds: float


class Result(Struct, tag=True):
    """The results of a worker. ``seconds`` holds latencies by the second of the receipt."""

    summaries: list[ReceiptsSummary]
    seconds: dict[int, Histogram]
    reconnects: Histogram
    failures: dict[str, int] = field(default_factory=dict)
    foreign: int = 0


Instruction = Share | BeginPublishing | Finish
WorkerReport = Progress | Result
instruction_decoder: json.Decoder[Instruction] = json.Decoder(Instruction)
report_decoder: json.Decoder[WorkerReport] = json.Decoder(WorkerReport)


def encode_line(message: Instruction | WorkerReport) -> bytes:
    """Encode one message as a line."""
    return json.encode(message) + b"\n"
