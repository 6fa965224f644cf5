"""Clients that are behind: which are slow, and which are dropped when too much is queued in the process."""

import asyncio
from dataclasses import dataclass, field

from tocsin_server.node.connection import BEHIND_BYTES
from tocsin_server.node.slow_clients import LEAST_BYTES, LEAST_RATE, UNSEEN_BYTES, SlowClients

TIMEOUT = 10.0
LIMIT = 1_000_000


@dataclass(eq=False)
class Client:
    """What is known of a client's queue."""

    queued_bytes: int = 500_000
    taken_bytes: int = 0
    sending_bytes: int = 0
    is_behind: bool = True

    def take(self, size: int) -> None:
        self.queued_bytes -= size
        self.taken_bytes += size


@dataclass
class Node:
    """Slow clients with a clock that a test sets."""

    now: float = 100.0
    slow: list[Client] = field(default_factory=list)
    dropped: list[Client] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clients: SlowClients[Client] = SlowClients(
            send_timeout=TIMEOUT,
            limit_bytes=LIMIT,
            clock=lambda: self.now,
            on_slow=self.slow.append,
            on_excess=self.dropped.append,
        )

    def behind(self, queued_bytes: int = 500_000, sending_bytes: int = 0) -> Client:
        client = Client(queued_bytes, sending_bytes=sending_bytes)
        self.clients.add(client)
        return client

    def sweep(self, seconds: float) -> list[Client]:
        """Sweep after so many seconds; the clients that were slow."""
        self.now += seconds
        self.slow.clear()
        self.clients.sweep()
        return list(self.slow)


async def test_a_client_that_takes_nothing_is_slow_after_the_timeout() -> None:
    """At the timeout exactly, and once."""
    node = Node()
    client = node.behind()
    assert node.sweep(TIMEOUT - 0.001) == []
    assert node.sweep(0.001) == [client]
    assert node.sweep(TIMEOUT) == []
    node.clients.stop()


async def test_a_client_that_takes_a_byte_a_second_is_slow() -> None:
    """It must take `LEAST_BYTES` in the time; one byte less is too little."""
    node = Node()
    quick, trickling = node.behind(), node.behind()
    for _ in range(9):
        trickling.take(1)
        assert node.sweep(1) == []
    quick.take(LEAST_BYTES)
    trickling.take(LEAST_BYTES - 10)
    assert node.sweep(1) == [trickling]
    assert node.sweep(TIMEOUT) == [quick], "the time begins again when it has taken enough"
    node.clients.stop()


async def test_a_client_that_takes_all_that_was_queued_is_not_slow() -> None:
    """However little that was, and however much is queued since."""
    node = Node()
    client = node.behind(queued_bytes=100)
    client.queued_bytes += 400_000
    client.take(100)
    assert node.sweep(TIMEOUT) == []
    node.clients.stop()


async def test_a_message_whose_progress_is_not_seen_has_longer() -> None:
    """On an ASGI server a message counts as taken once all of it is."""
    node = Node()
    client = node.behind(sending_bytes=2 * LEAST_RATE)
    assert node.sweep(TIMEOUT + UNSEEN_BYTES / LEAST_RATE + 1.999) == []
    assert node.sweep(0.001) == [client]
    node.clients.stop()


async def test_the_largest_queues_are_dropped_above_the_limit_of_the_process() -> None:
    """At the limit none is; above it the largest, until the rest fits."""
    node = Node()
    small, large, larger = (node.behind(queued_bytes=size) for size in (200_000, 300_000, 500_000))
    node.sweep(0)
    assert node.dropped == []
    small.queued_bytes += 1
    node.sweep(0)
    assert node.dropped == [larger]
    for client in node.dropped:
        node.clients.remove(client)
    large.queued_bytes = small.queued_bytes = LIMIT
    node.dropped.clear()
    node.sweep(0)
    assert len(node.dropped) == 1
    node.clients.stop()


async def test_room_is_there_once_a_client_is_no_longer_behind_or_closed() -> None:
    node, is_closed = Node(), False
    client = node.behind()
    waiting = [asyncio.create_task(node.clients.wait_for_room(client, lambda: is_closed)) for _ in range(2)]
    await asyncio.sleep(0)
    node.clients.wake(client)
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    client.is_behind, client.queued_bytes = False, BEHIND_BYTES
    node.clients.remove(client)
    await asyncio.gather(*waiting)
    client.is_behind = is_closed = True
    await node.clients.wait_for_room(client, lambda: is_closed)
    node.clients.stop()


async def test_there_is_a_timer_only_while_a_client_is_behind() -> None:
    node = Node()
    client = node.behind()
    assert node.clients._timer is not None
    node.clients.remove(client)
    node.clients._on_timer()
    assert node.clients._timer is None
