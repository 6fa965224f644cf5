"""Half-open connections: which one is dropped when there are too many."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tocsin_server.core.half_open import HalfOpen


class Waiting:
    """A connection that notes why it was dropped."""

    def __init__(self) -> None:
        self.dropped = ""

    def drop_half_open(self, limit: str) -> None:
        assert not self.dropped
        self.dropped = limit


def waiting(half_open: HalfOpen, *keys: str) -> list[Waiting]:
    connections = [Waiting() for _ in keys]
    for connection, key in zip(connections, keys, strict=True):
        half_open.add(connection, key)
    return connections


def test_the_oldest_connection_of_the_node_is_dropped_above_the_limit() -> None:
    half_open = HalfOpen(3, 0)
    connections = waiting(half_open, "a", "b", "")
    assert not any(connection.dropped for connection in connections)
    waiting(half_open, "")
    assert [connection.dropped for connection in connections] == ["limits.half_open_limit", "", ""]


def test_the_oldest_connection_of_an_address_is_dropped_above_its_limit() -> None:
    half_open = HalfOpen(0, 2)
    connections = waiting(half_open, "b", "a", "", "a")
    assert not any(connection.dropped for connection in connections)
    waiting(half_open, "a", "", "")
    assert [bool(connection.dropped) for connection in connections] == [False, True, False, False]
    assert connections[1].dropped == "limits.address_half_open_limit"


def test_a_connection_that_waits_again_is_the_newest() -> None:
    half_open = HalfOpen(2, 0)
    first, second = waiting(half_open, "a", "a")
    half_open.add(first, "a")
    waiting(half_open, "a")
    assert (first.dropped, second.dropped) == ("", "limits.half_open_limit")


def test_a_limit_of_0_is_none() -> None:
    half_open = HalfOpen(0, 0)
    assert not any(connection.dropped for connection in waiting(half_open, *"a" * 100))
    assert not HalfOpen(0, 0).drop_oldest("any")


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "remove"]), st.integers(0, 5), st.sampled_from(["", "a", "b"]))
    )
)
def test_everything_is_counted_back(steps: list[tuple[str, int, str]]) -> None:
    half_open = HalfOpen(4, 2)
    connections = [Waiting() for _ in range(6)]
    for step, number, key in steps:
        connections[number].dropped = ""
        if step == "add":
            half_open.add(connections[number], key)
        else:
            half_open.remove(connections[number])
        assert len(half_open) <= 4
    for connection in connections:
        half_open.remove(connection)
    assert (len(half_open), half_open.addresses) == (0, 0)
