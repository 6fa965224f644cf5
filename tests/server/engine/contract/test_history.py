"""History: which part of it a query reads, and that its top exists from the first access."""

import asyncio

import pytest
from msgspec import Raw

from tests.server.engine.contract.harness import HISTORY, publication
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core.positions import History
from tocsin_server.engine.broker import TOP_ONLY, Broker, HistoryQuery, NewPublication
from tocsin_server.protocol.messages import Position

THREE = ChannelOptions(history_size=3, history_ttl=3600)
"""After five publications it keeps 3, 4 and 5."""


def offsets(history: History) -> list[int]:
    return [publication.offset for publication in history.publications]


async def test_a_page_is_bounded_in_bytes(broker: Broker) -> None:
    """It ends before the publication with which it would be larger, and has at least one."""
    for _ in range(20):
        position = await broker.publish("news", NewPublication(Raw(b'"' + b"x" * 998 + b'"')), HISTORY)
    size, top = 1000 + 64, position.offset
    for since, limit, limit_bytes, is_reverse, expected in [
        (None, -1, 1, False, [1]),
        (None, -1, 3 * size, False, [1, 2, 3]),
        (None, 2, 3 * size, False, [1, 2]),
        (5, -1, 2 * size, False, [6, 7]),
        (None, -1, 15 * size, False, list(range(1, 16))),
        (None, -1, 100 * size, False, list(range(1, top + 1))),
        (None, 17, 100 * size, False, list(range(1, 18))),
        (None, -1, 2 * size, True, [top, top - 1]),
        (10, -1, 12 * size, True, list(range(9, 0, -1))),
    ]:
        at = None if since is None else Position(since, "")
        query = HistoryQuery(at, limit, is_reverse, limit_bytes)
        history = await broker.read_history("news", query, HISTORY)
        assert history.top.offset == top
        assert offsets(history) == expected, query


async def test_a_page_may_be_empty_if_its_first_publication_is_too_large(broker: Broker) -> None:
    """Then its reader asks again with more room. Otherwise the page is the same."""
    sizes = (10, 10, 5000, 10)
    for size in sizes:
        await broker.publish("news", NewPublication(Raw(b'"' + b"x" * size + b'"')), HISTORY)
    for since, limit_bytes, expected in [
        (0, 1000, [1, 2]),
        (2, 1000, []),
        (2, 10_000, [3, 4]),
        (3, 1000, [4]),
    ]:
        query = HistoryQuery(Position(since, ""), 10, limit_bytes=limit_bytes, may_be_empty=True)
        history = await broker.read_history("news", query, HISTORY)
        assert history.top.offset == len(sizes)
        assert offsets(history) == expected, query


async def publish_five(broker: Broker) -> str:
    """Publish five times. Returns the epoch."""
    for number in range(1, 6):
        position = await broker.publish("news", publication(number), THREE)
    return position.epoch


async def test_a_history_has_an_epoch_from_its_first_access(broker: Broker) -> None:
    """Clients return with the position that they read before the first publication."""
    history = await broker.read_history("news", TOP_ONLY, HISTORY)
    top = history.top
    assert top.offset == 0
    assert top.epoch
    assert not history.publications
    assert (await broker.read_history("news", TOP_ONLY, HISTORY)).top == top
    assert await broker.publish("news", publication(1), HISTORY) == Position(1, top.epoch)


async def test_concurrent_first_accesses_return_one_epoch(broker: Broker) -> None:
    """Only one of them creates the history."""
    histories = await asyncio.gather(*(broker.read_history("news", TOP_ONLY, HISTORY) for _ in range(10)))
    assert len({history.top for history in histories}) == 1


@pytest.mark.parametrize(
    ("limit", "since", "is_reverse", "expected"),
    [
        (0, None, False, []),
        (0, 3, False, []),
        (0, None, True, []),
        (-1, None, False, [3, 4, 5]),
        (-1, None, True, [5, 4, 3]),
        (2, None, False, [3, 4]),
        (2, None, True, [5, 4]),
        (3, None, False, [3, 4, 5]),
        (10, None, False, [3, 4, 5]),
        (10, None, True, [5, 4, 3]),
        (-1, 0, False, [3, 4, 5]),
        (-1, 1, False, [3, 4, 5]),
        (-1, 3, False, [4, 5]),
        (1, 3, False, [4]),
        (-1, 4, False, [5]),
        (-1, 5, False, []),
        (-1, 6, False, []),
        (-1, 2**63 - 1, False, []),
        (-1, 5, True, [4, 3]),
        (1, 5, True, [4]),
        (-1, 4, True, [3]),
        (-1, 3, True, []),
        (-1, 1, True, []),
        (-1, 6, True, [5, 4, 3]),
        (-1, 2**63 - 1, True, [5, 4, 3]),
        (-(2**31), None, False, [3, 4, 5]),
        (2**31 - 1, None, True, [5, 4, 3]),
    ],
)
async def test_a_query_reads_its_part_and_the_top(
    broker: Broker, limit: int, since: int | None, is_reverse: bool, expected: list[int]
) -> None:
    """A removed publication is no error: reading begins at the oldest that is kept."""
    epoch = await publish_five(broker)
    query = HistoryQuery(None if since is None else Position(since, epoch), limit, is_reverse)
    history = await broker.read_history("news", query, THREE)
    assert history.top == Position(5, epoch)
    assert offsets(history) == expected
    assert [bytes(publication.data) for publication in history.publications] == [b"%d" % n for n in expected]


@pytest.mark.parametrize("epoch", ["", "another"])
async def test_the_epoch_of_a_query_is_not_compared(broker: Broker, epoch: str) -> None:
    """The caller gets the history's epoch, and decides."""
    await publish_five(broker)
    assert offsets(await broker.read_history("news", HistoryQuery(Position(4, epoch), -1), THREE)) == [5]


@pytest.mark.parametrize("is_reverse", [False, True])
async def test_an_empty_history_reads_as_empty(broker: Broker, is_reverse: bool) -> None:
    """From any position, in both directions."""
    for since in (None, Position(0, ""), Position(7, "")):
        history = await broker.read_history("news", HistoryQuery(since, -1, is_reverse), HISTORY)
        assert history.top.offset == 0
        assert not history.publications


async def test_removing_history_keeps_the_top(broker: Broker) -> None:
    """Offsets continue in the same epoch, and removed publications do not return."""
    epoch = await publish_five(broker)
    await broker.remove_history("news")
    assert await broker.read_history("news", HistoryQuery(limit=-1), THREE) == History(Position(5, epoch), [])
    assert await broker.publish("news", publication(6), THREE) == Position(6, epoch)
    assert offsets(await broker.read_history("news", HistoryQuery(limit=-1), THREE)) == [6]
    assert offsets(await broker.read_history("news", HistoryQuery(Position(2, epoch), -1), THREE)) == [6]


async def test_removing_a_missing_history_does_nothing(broker: Broker) -> None:
    """Other channels keep their history."""
    await publish_five(broker)
    await broker.remove_history("weather")
    assert len((await broker.read_history("news", HistoryQuery(limit=-1), THREE)).publications) == 3


async def test_a_history_that_was_read_does_not_change(broker: Broker) -> None:
    """Later publications and removals do not affect it."""
    await publish_five(broker)
    history = await broker.read_history("news", HistoryQuery(limit=-1), THREE)
    await broker.publish("news", publication(6), THREE)
    await broker.remove_history("news")
    assert history.top.offset == 5
    assert offsets(history) == [3, 4, 5]
