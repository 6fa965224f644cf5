"""`websockets`' protocol begins open, and two connections share nothing that changes."""

from __future__ import annotations

from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

from tests.support.raw_connection import frame
from tocsin_server.transports.websocket.frame_protocol import FrameProtocol


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
