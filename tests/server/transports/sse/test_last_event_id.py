"""Positions as an `id:` says them, there and back."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_server.protocol.messages import Position
from tocsin_server.transports.sse.last_event_id import StreamPositions, read_last_event_id

epochs = st.text("abcXYZ019_-", max_size=8)
positions = st.none() | st.builds(Position, st.integers(0, 10**18 - 1), epochs)


@given(st.lists(positions, min_size=1, max_size=5))
def test_what_is_written_is_read_back(each: list[Position | None]) -> None:
    """For any positions, of any number of channels."""
    assert read_last_event_id(StreamPositions(each).last_event_id().decode(), len(each)) == each


@pytest.mark.parametrize(
    ("text", "channels", "expected"),
    [
        ("12@abc", 1, [Position(12, "abc")]),
        ("12@abc,,7@", 3, [Position(12, "abc"), None, Position(7, "")]),
        ("", 1, [None]),
        ("", 2, [None, None]),
        (",", 2, [None, None]),
    ],
)
def test_positions_are_in_the_order_of_the_channels(
    text: str, channels: int, expected: list[Position | None]
) -> None:
    """An empty element is a channel without a position; an empty id is none at all."""
    assert read_last_event_id(text, channels) == expected


@pytest.mark.parametrize(
    "text",
    ["12", "@abc", "-1@abc", "1.5@abc", "\u0661@abc", "1@a b", "1@a@b", "9" * 19 + "@abc", "1@a,2@b", "x,"],
)
def test_what_is_not_an_id_is_said_to_be_none(text: str) -> None:
    """Broken off, too large, for another number of channels: never taken for something else."""
    with pytest.raises(ValueError, match="has "):
        read_last_event_id(text, 1)


@given(st.text(max_size=30), st.integers(1, 4))
def test_any_text_is_read_or_refused(text: str, channels: int) -> None:
    """Nothing but ValueError comes of it, and what is read has one element for each channel."""
    with contextlib.suppress(ValueError):
        assert len(read_last_event_id(text, channels)) == channels
