"""Slots: parsing a topology, and finding hash tags."""

import pytest

from tocsin_server.engine.redis.cluster.slots import (
    NO_HOST,
    SLOTS,
    Host,
    hash_tag_within,
    parse_topology,
    slot_of,
)


def test_a_topology_has_an_owner_for_every_slot() -> None:
    """NO_HOST owns unserved slots. A server that does not know its address has the one that was used."""
    answer = [[0, 99, [b"a", 1, b"id", []], [b"b", 2, b"id", []]], [200, SLOTS - 1, [None, 3, b"id", []]]]
    topology = parse_topology(answer, Host("source", 9))
    assert [topology.owners[slot] for slot in (0, 99, 100, 200)] == [
        Host("a", 1),
        Host("a", 1),
        NO_HOST,
        Host("source", 3),
    ]
    assert topology.masters == {Host("a", 1), Host("source", 3)}
    assert topology.unserved_slots == 100
    assert topology.hosts == {Host("a", 1), Host("b", 2), Host("source", 3), Host("source", 9)}


@pytest.mark.parametrize("slots", [{0}, {5, 16383}, set(range(8000))])
def test_a_hash_tag_is_found_for_any_slots(slots: set[int]) -> None:
    """However few slots a master serves, its probe has a name."""
    assert slot_of(f"t:node:n1:canary:{{{hash_tag_within(slots)}}}") in slots
