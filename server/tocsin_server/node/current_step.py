"""The step that runs now: the connection whose session handles an event, and the event.

The mutable state is these two, and the connection in whose step an authorizer decides. `SessionIo` sets the
first two for each event. `Authorizations` changes all three while an authorizer decides.
"""

from __future__ import annotations

from tocsin_server.core.events import Event
from tocsin_server.node.connection import Connection


class CurrentStep:
    """What a node does at this moment, for one connection."""

    __slots__ = ("connection", "deciding", "event")

    def __init__(self) -> None:
        self.connection: Connection | None = None
        """The connection whose event is being handled; None if no event is."""
        self.event: Event | None = None
        """The event that was handled last."""
        self.deciding: Connection | None = None
        """The connection in whose step an authorizer decides, so that its next event must come later."""
