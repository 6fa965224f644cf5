"""The sessions of new connections."""

from __future__ import annotations

from tocsin_server.core.events import Received
from tocsin_server.node.node import Node
from tocsin_server.protocol.json import JSON


async def test_the_first_pings_of_sessions_are_spread(node: Node) -> None:
    """Over the second half of the interval, though all connected at once."""
    phases = set()
    for _ in range(20):
        session, now = node.new_session(), node.now()
        session.handle(Received(JSON.decode_commands(b'{"id":1,"connect":{}}')), now)
        assert session.deadline is not None
        phases.add((session.deadline - now.monotonic) / node.settings.client.ping_interval)
    assert all(0.49 < phase < 1.01 for phase in phases)
    assert len(phases) == 20
