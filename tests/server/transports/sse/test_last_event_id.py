"""Positions as the text of an `id:`, written and read."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_server.protocol.messages import Position
from tocsin_server.transports.sse.last_event_id import StreamPositions, read_last_event_id

epochs = st.text("abcXYZ019_-", max_size=8)
positions = st.none() | st.builds(Position, st.integers(0, 10**18 - 1), epochs)


@given(st.lists(positions, min_size=1, max_size=5))
def test_written_positions_are_read_back(each: list[Position | None]) -> None:
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
    """An empty element is a channel without a position; an empty id has no positions."""
    assert read_last_event_id(text, channels) == expected


@pytest.mark.parametrize(
    "text",
    ["12", "@abc", "-1@abc", "1.5@abc", "\u0661@abc", "1@a b", "1@a@b", "9" * 19 + "@abc", "1@a,2@b", "x,"],
)
def test_an_invalid_id_is_a_value_error(text: str) -> None:
    """Truncated, too large, or for another number of channels."""
    with pytest.raises(ValueError, match="has "):
        read_last_event_id(text, 1)


@given(st.text(max_size=30), st.integers(1, 4))
def test_any_text_is_read_or_is_a_value_error(text: str, channels: int) -> None:
    """Any other exception is a fault; the result has one element for each channel."""
    with contextlib.suppress(ValueError):
        assert len(read_last_event_id(text, channels)) == channels
