"""`websockets`' protocol begins open, and two connections share nothing that changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

from tests.support.raw_connection import frame
from tocsin_server.transports.websocket.frame_protocol import FRAMES_PER_TURN, FrameProtocol


def test_connections_share_no_state() -> None:
    """What the class holds for all of them cannot change; extensions are replaced and not changed."""
    shared = {name: getattr(FrameProtocol, name, None) for name in vars(Protocol(Side.SERVER))}
    changing = {name for name, value in shared.items() if isinstance(value, list | dict | set | bytearray)}
    assert changing == {"extensions"}
    one, other = FrameProtocol(100), FrameProtocol(100)
    assert one.extensions == other.extensions == []
    one.receive_data(frame("a", fin=False))
    one.receive_data(frame("b", Opcode.CLOSE))
    assert (other.state, other.current_size, other.events, other.writes) == (State.OPEN, None, [], [])


def test_frames_are_read_from_the_first_byte_on() -> None:
    protocol = FrameProtocol(100)
    data = frame("first") + frame("second")
    for index in range(len(data)):
        protocol.receive_data(data[index : index + 1])
    assert [event.data for event in protocol.events_received() if isinstance(event, Frame)] == [
        b"first",
        b"second",
    ]


def test_a_message_that_is_too_large_fails_the_connection() -> None:
    protocol = FrameProtocol(100)
    protocol.receive_data(frame("x" * 101))
    assert protocol.close_sent is not None
    assert protocol.close_sent.code == 1009


def assert_same_frames(reads: list[bytes], max_size: int = 1000) -> None:
    """Assert that the frames, the answers and the failure are those of `websockets`' own protocol."""
    protocol = FrameProtocol(max_size)
    library = Protocol(Side.SERVER, state=State.OPEN, max_size=max_size)
    for data in reads:
        protocol.frames.frames_left = FRAMES_PER_TURN
        library.receive_data(data)
        assert protocol.read(data) == library.events_received()
        assert protocol.data_to_send() == library.data_to_send()
        assert (protocol.state, protocol.current_size) == (library.state, library.current_size)
        assert str(protocol.parser_exc) == str(library.parser_exc)


WHOLE = frame("text")


@pytest.mark.parametrize(
    "reads",
    [
        [WHOLE, frame(b"\xff", Opcode.BINARY), frame("x" * 126), frame("")],
        [frame("a", fin=False), WHOLE],
        [frame("a", fin=False), frame("b", Opcode.CONT), WHOLE],
        *[[WHOLE[:size], WHOLE] for size in range(1, len(WHOLE))],
        [frame("", Opcode.CLOSE), WHOLE],
        [frame("text", masked=False)],
        [frame("text", reserved=4)],
        [frame("x" * 1001), WHOLE],
        [b"\x81\xfe\x00\x03mask" + b"abc", b"\x81\xff" + bytes(7) + b"\x01mask" + b"a", b"\x81\xff1234"],
    ],
)
def test_what_is_no_whole_message_is_read_by_websockets(reads: list[bytes]) -> None:
    assert_same_frames(reads)


FRAMES = st.builds(
    frame,
    st.binary(max_size=3) | st.binary(min_size=124, max_size=128),
    st.sampled_from([Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.PING]),
    fin=st.booleans(),
)
READS = FRAMES | st.binary(max_size=12) | st.builds(lambda one, size: one[:size], FRAMES, st.integers(1, 12))


@given(st.lists(READS, max_size=6), st.sampled_from([0, 2, 126, 1000]))
def test_any_bytes_are_read_as_websockets_reads_them(reads: list[bytes], max_size: int) -> None:
    assert_same_frames(reads, max_size)
