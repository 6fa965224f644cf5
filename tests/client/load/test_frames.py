"""WebSocket frames and event streams, as bytes."""

import os
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

from tocsin.load import frames
from tocsin.load.chunks import ChunkReader, EventReader, ServerEvent
from tocsin.load.frames import FrameReader


def sent_by_a_server(*sent: Frame) -> bytes:
    return b"".join(frame.serialize(mask=False) for frame in sent)


def cut(data: bytes, at: list[int]) -> list[bytes]:
    borders = [0, *sorted(min(one, len(data)) for one in at), len(data)]
    return [data[first:last] for first, last in pairwise(borders)]


@given(st.lists(st.integers(min_value=0, max_value=400)))
def test_frames_are_read_the_same_however_they_are_cut(at: list[int]) -> None:
    """A short one, one with a two-byte length, and a message in pieces with a ping between them."""
    data = sent_by_a_server(
        Frame(Opcode.TEXT, b"{}"),
        Frame(Opcode.TEXT, b"x" * 300),
        Frame(Opcode.TEXT, b"in ", fin=False),
        Frame(Opcode.PING, b"?"),
        Frame(Opcode.CONT, b"pieces"),
        Frame(Opcode.CLOSE, (3001).to_bytes(2, "big") + b"shutdown"),
    )
    reader = FrameReader()
    read = [one for piece in cut(data, at) for one in reader.feed(piece)]
    assert read == [
        (frames.TEXT, b"{}"),
        (frames.TEXT, b"x" * 300),
        (frames.PING, b"?"),
        (frames.TEXT, b"in pieces"),
        (frames.CLOSE, b"\x0b\xb9shutdown"),
    ]
    assert frames.read_close(read[-1][1]) == (3001, "shutdown")


def test_a_close_without_a_code_has_the_code_for_that() -> None:
    assert frames.read_close(b"")[0] == 1005


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_a_server_accepts_the_request_and_reads_every_length_of_frame(size: int) -> None:
    server = ServerProtocol(max_size=None)
    server.receive_data(frames.upgrade_request("host:1", "/connection/websocket", os.urandom(16)))
    (request,) = server.events_received()
    server.send_response(server.accept(request))  # type: ignore[arg-type] # it is a request
    server.receive_data(frames.frame(frames.TEXT, b"x" * size))
    (frame,) = server.events_received()
    assert isinstance(frame, Frame)
    assert frame.data == b"x" * size


@given(st.lists(st.integers(min_value=0, max_value=200)))
def test_events_are_read_the_same_however_they_are_cut(at: list[int]) -> None:
    body = b'id: 7@e\r\n\r\n: alive\r\n\r\nevent: gap\r\ndata: {"a":\r\ndata: 1}\r\nid: 9@e\r\n\r\ndata:x\n\n'
    data = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in cut(body, [5, 30, 31]) if part)
    chunks, events = ChunkReader(), EventReader()
    read = [one for piece in cut(data + b"0\r\n\r\n", at) for one in events.feed(chunks.feed(piece))]
    assert read == [
        ServerEvent("", "", "7@e"),
        ServerEvent("", "", "7@e"),
        ServerEvent("gap", '{"a":\n1}', "9@e"),
        ServerEvent("", "x", "9@e"),
    ]
    assert chunks.is_over


def test_what_is_no_chunk_is_an_error() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        ChunkReader().feed(b"hello\r\n")
