"""The bytes of event streams."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_load import sse_parser
from tocsin_load.sse_parser import ChunkDecoder, EventParser, ServerEvent


def pieces(data: bytes, at: list[int]) -> list[bytes]:
    borders = [0, *sorted(min(one, len(data)) for one in at), len(data)]
    return [data[first:last] for first, last in pairwise(borders)]


@given(st.lists(st.integers(min_value=0, max_value=200)))
def test_events_are_read_the_same_for_any_pieces(at: list[int]) -> None:
    body = b'id: 7@e\r\n\r\n: alive\r\n\r\nevent: gap\r\ndata: {"a":\r\ndata: 1}\r\nid: 9@e\r\n\r\ndata:x\n\n'
    data = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in pieces(body, [5, 30, 31]) if part)
    chunks, events = ChunkDecoder(), EventParser()
    read = [one for piece in pieces(data + b"0\r\n\r\n", at) for one in events.feed(chunks.feed(piece))]
    assert read == [
        ServerEvent("", "", "7@e"),
        ServerEvent("", "", "7@e"),
        ServerEvent("gap", '{"a":\n1}', "9@e"),
        ServerEvent("", "x", "9@e"),
    ]
    assert chunks.is_complete


def test_a_body_that_is_not_chunked_is_an_error() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        ChunkDecoder().feed(b"hello\r\n")


@pytest.mark.parametrize("body", [b"-5\r\nxxxxxxxx", b"x" * 5000, b"zz\r\n"])
def test_a_chunk_without_a_size_is_an_error(body: bytes) -> None:
    """Also a negative size, and a line that does not end."""
    with pytest.raises(ValueError, match=r"chunk|invalid literal"):
        ChunkDecoder().feed(body)


@pytest.mark.parametrize("body", [b"x" * 2000, b"data: x\n" * 2000])
def test_an_event_that_never_ends_is_an_error(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse_parser, "EVENT_BYTES", 1000)
    with pytest.raises(ValueError, match="more than 1,000 bytes"):
        list(EventParser().feed(body))
