"""WebSocket frames, as bytes."""

import os
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

from tocsin_load import frames
from tocsin_load.frames import FrameReader


def sent_by_a_server(*sent: Frame) -> bytes:
    return b"".join(frame.serialize(mask=False) for frame in sent)


def pieces(data: bytes, at: list[int]) -> list[bytes]:
    borders = [0, *sorted(min(one, len(data)) for one in at), len(data)]
    return [data[first:last] for first, last in pairwise(borders)]


@given(st.lists(st.integers(min_value=0, max_value=400)))
def test_frames_are_read_the_same_for_any_pieces(at: list[int]) -> None:
    """A short frame, one with a two-byte length, and a fragmented message with a ping in between."""
    data = sent_by_a_server(
        Frame(Opcode.TEXT, b"{}"),
        Frame(Opcode.TEXT, b"x" * 300),
        Frame(Opcode.TEXT, b"in ", fin=False),
        Frame(Opcode.PING, b"?"),
        Frame(Opcode.CONT, b"pieces"),
        Frame(Opcode.CLOSE, (3001).to_bytes(2, "big") + b"shutdown"),
    )
    reader = FrameReader()
    read = [one for piece in pieces(data, at) for one in reader.feed(piece)]
    assert read == [
        (frames.TEXT, b"{}"),
        (frames.TEXT, b"x" * 300),
        (frames.PING, b"?"),
        (frames.TEXT, b"in pieces"),
        (frames.CLOSE, b"\x0b\xb9shutdown"),
    ]
    assert frames.read_close(read[-1][1]) == (3001, "shutdown")


def test_a_close_without_a_code_is_1005() -> None:
    assert frames.read_close(b"")[0] == 1005


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_a_server_accepts_the_request_and_frames_of_every_length(size: int) -> None:
    server = ServerProtocol(max_size=None)
    server.receive_data(frames.upgrade_request("host:1", "/connection/websocket", os.urandom(16)))
    (request,) = server.events_received()
    server.send_response(server.accept(request))  # type: ignore[arg-type] # it is a request
    server.receive_data(frames.build_frame(frames.TEXT, b"x" * size))
    (frame,) = server.events_received()
    assert isinstance(frame, Frame)
    assert frame.data == b"x" * size


@pytest.mark.parametrize(
    "data", [bytes((0x81, 127)) + (2**40).to_bytes(8, "big"), (bytes((0x01, 100)) + b"x" * 100) * 20]
)
def test_a_message_that_is_too_long_is_an_error(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """One frame, and fragments that never end."""
    monkeypatch.setattr(frames, "MESSAGE_BYTES", 1000)
    with pytest.raises(ValueError, match="a message of more than 1,000 bytes"):
        list(frames.FrameReader().feed(data))
