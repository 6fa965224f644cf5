"""What the parent and its worker processes say to each other, one JSON line each."""

from __future__ import annotations

from msgspec import Struct, field, json

from .histogram import Histogram
from .record import Account


class Share(Struct, tag=True):
    """A worker's part: connections ``first`` up to ``first + connections``, and how to make them.

    ``tokens`` is one for all, or one for each, or none. ``rate`` is in connects per second; 0 is at once.
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


class Begin(Struct, tag=True):
    """Publishing begins once this is answered with ``Progress(has_begun=True)``."""


class Finish(Struct, tag=True):
    """Publishing is over: wait, so many seconds at most, until all are back and up to date."""

    tops: list[int]
    seconds: float


class Progress(Struct, tag=True):
    """How a worker stands; ``latency`` is of the time since the progress before."""

    subscribed: int
    settled: int
    delivered: int
    lost_connections: int
    has_begun: bool
    failures: dict[str, int]
    latency: Histogram
    connect_seconds: float


class Result(Struct, tag=True):
    """What a worker has to show at the end. ``seconds`` holds latencies by the second of the receipt."""

    accounts: list[Account]
    seconds: dict[int, Histogram]
    returns: Histogram
    failures: dict[str, int] = field(default_factory=dict)
    foreign: int = 0


Order = Share | Begin | Finish
Said = Progress | Result
read_order: json.Decoder[Order] = json.Decoder(Order)
read_said: json.Decoder[Said] = json.Decoder(Said)


def line(message: Order | Said) -> bytes:
    """Encode one message."""
    return json.encode(message) + b"\n"
