"""The delivery store: dead letters and failing deliveries, which every node sees."""

from __future__ import annotations

import pytest
from msgspec import Raw

from tests.server.engine.contract.harness import Harness, Node
from tocsin_server.core.delivery import FailingDelivery
from tocsin_server.engine.deliveries import DeadLetter, DeadLetterLimits

START = 1_700_000_000.25
LIMITS = DeadLetterLimits(number=100, ttl=3600)
FAILING = FailingDelivery("d1", 7, 3, START, START + 8, START - 0.75, 500, 'status 500 "ü"')


def letter(number: int) -> DeadLetter:
    event = Raw(f'{{"id":"e{number}","user":"ü \\"quoted\\""}}'.encode())
    return DeadLetter(event, f"d{number}", "status 422", 1, 422, 1_700_000_000.5)


LETTERS = [letter(number) for number in range(5)]


async def test_dead_letters_are_read_oldest_first_and_page_by_page(node: Node) -> None:
    """They are unchanged, and each has an id of its own."""
    store = node.engine.deliveries
    assert await store.add_dead_letters("webhooks.app", LETTERS, LIMITS) == 0
    first = await store.read_dead_letters("webhooks.app", 2)
    rest = await store.read_dead_letters("webhooks.app", 10, first[-1].id)
    assert [stored.letter for stored in (*first, *rest)] == LETTERS
    assert len({stored.id for stored in (*first, *rest)}) == 5
    assert await store.read_dead_letters("webhooks.app", 10, rest[-1].id) == []
    assert await store.count_dead_letters("webhooks.app") == 5


async def test_dead_letters_belong_to_one_subscriber(node: Node) -> None:
    store = node.engine.deliveries
    await store.add_dead_letters("webhooks.app", LETTERS, LIMITS)
    assert await store.count_dead_letters("webhooks.other") == 0
    assert await store.read_dead_letters("webhooks.other", 10) == []


async def test_removed_dead_letters_are_gone(node: Node) -> None:
    """Removing one again removes nothing."""
    store = node.engine.deliveries
    await store.add_dead_letters("webhooks.app", LETTERS, LIMITS)
    ids = [stored.id for stored in await store.read_dead_letters("webhooks.app", 10)]
    assert await store.remove_dead_letters("webhooks.app", ids[1:3]) == 2
    assert await store.remove_dead_letters("webhooks.app", ids[1:3]) == 0
    assert await store.remove_dead_letters("webhooks.app", []) == 0
    left = await store.read_dead_letters("webhooks.app", 10)
    assert [stored.letter for stored in left] == [LETTERS[0], *LETTERS[3:]]


async def test_the_oldest_dead_letters_are_dropped_above_the_limit_and_counted(node: Node) -> None:
    store = node.engine.deliveries
    assert await store.add_dead_letters("webhooks.app", LETTERS, DeadLetterLimits(3, 3600)) == 2
    assert await store.add_dead_letters("webhooks.app", [letter(5)], DeadLetterLimits(3, 3600)) == 1
    left = await store.read_dead_letters("webhooks.app", 10)
    assert [stored.letter for stored in left] == [LETTERS[3], LETTERS[4], letter(5)]


async def test_dead_letters_expire(harness: Harness, node: Node) -> None:
    store, unit = node.engine.deliveries, harness.unit
    await store.add_dead_letters("webhooks.app", LETTERS, DeadLetterLimits(100, 10 * unit))
    await harness.advance(9 * unit)
    assert await store.count_dead_letters("webhooks.app") == 5
    await harness.advance(unit)
    assert await store.count_dead_letters("webhooks.app") == 0


@pytest.mark.parametrize("letter_id", ["x", "-", "1 2", "9" * 50, "(1"])
async def test_what_is_not_an_id_is_refused(node: Node, letter_id: str) -> None:
    with pytest.raises(ValueError, match="is not the id of a dead letter"):
        await node.engine.deliveries.read_dead_letters("webhooks.app", 10, letter_id)
    with pytest.raises(ValueError, match="is not the id of a dead letter"):
        await node.engine.deliveries.remove_dead_letters("webhooks.app", [letter_id])


async def test_a_failing_delivery_is_kept_until_it_is_forgotten(node: Node) -> None:
    store = node.engine.deliveries
    await store.set_failing("webhooks.app", 3, FAILING)
    await store.set_failing("webhooks.app", 4, FAILING)
    await store.set_failing("webhooks.app", 4, None)
    assert await store.failing("webhooks.app") == {3: FAILING}
    assert await store.failing("webhooks.other") == {}


async def test_another_node_sees_dead_letters_and_failing_deliveries(node: Node, other_node: Node) -> None:
    await node.engine.deliveries.add_dead_letters("webhooks.app", LETTERS, LIMITS)
    await node.engine.deliveries.set_failing("webhooks.app", 3, FAILING)
    store = other_node.engine.deliveries
    assert [stored.letter for stored in await store.read_dead_letters("webhooks.app", 10)] == LETTERS
    assert await store.failing("webhooks.app") == {3: FAILING}
