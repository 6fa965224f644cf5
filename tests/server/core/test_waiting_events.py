"""Events that wait: what is known of those that are removed."""

from __future__ import annotations

from tocsin_server.core.lifecycle import LifecycleEvent
from tocsin_server.core.waiting_events import WaitingEvents


def test_nothing_is_kept_of_events_that_are_removed() -> None:
    """Also of those that were put back. A node that begins again often would keep their ids for ever."""
    waiting = WaitingEvents(1_000_000)
    for number in range(100):
        waiting.add(LifecycleEvent("occupied", f"e{number}", 1.5, channel="news"))
        waiting.put_back(waiting.take(1))
        assert len(waiting.remove(lambda event: event.type == "occupied")) == 1
    assert len(waiting) == 0
    assert not waiting._kept
