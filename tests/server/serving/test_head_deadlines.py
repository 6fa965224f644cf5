"""Connections whose first request does not arrive end in the order in which they came, by one timer."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.server.engine.virtual_time import VirtualTime
from tocsin_server.serving import head_deadlines
from tocsin_server.serving.head_deadlines import HeadDeadlines


class Connection:
    """Notes when its time was over."""

    def __init__(self, time: VirtualTime) -> None:
        self._time = time
        self.ended_at: float | None = None

    def time_out(self) -> None:
        self.ended_at = self._time.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> VirtualTime:
    time = VirtualTime()
    loop = SimpleNamespace(time=time.clock, call_at=lambda at, call: time.call_later(at - time.now, call))
    monkeypatch.setattr(head_deadlines, "asyncio", SimpleNamespace(get_running_loop=lambda: loop))
    return time


def test_each_connection_ends_after_its_own_seconds(time: VirtualTime) -> None:
    deadlines = HeadDeadlines(10)
    connections = [Connection(time) for _ in range(4)]
    for connection in connections:
        assert deadlines.add(connection) == time.now + 10
        time.advance(2)
    deadlines.remove(connections[1])
    assert len(time.scheduled) == 1
    time.advance(20)
    assert [connection.ended_at for connection in connections] == [10, None, 14, 16]
    assert not time.scheduled


def test_a_timer_whose_connections_are_gone_ends_none(time: VirtualTime) -> None:
    deadlines = HeadDeadlines(10)
    gone, late = Connection(time), Connection(time)
    deadlines.add(gone)
    deadlines.remove(gone)
    deadlines.remove(gone)
    time.advance(5)
    deadlines.add(late)
    time.advance(5)
    assert (gone.ended_at, late.ended_at) == (None, None)
    assert time.scheduled == [15]
    time.advance(5)
    assert (gone.ended_at, late.ended_at) == (None, 15)
