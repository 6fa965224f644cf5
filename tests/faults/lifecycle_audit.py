"""What a reader of lifecycle events got, compared with what clients saw (pure)."""

from __future__ import annotations

from dataclasses import dataclass, field

from tocsin_server.core.lifecycle import LifecycleEvent

LEASE_SECONDS = 4.0
"""A killed node is detected within this time."""

GRACE_SECONDS = 3.0
"""How long after that the end of a session may be told."""

REMARKS = 20
"""How many broken promises are described. Further ones are only counted."""


@dataclass
class ClientSession:
    """What one client saw of its session: when it began and ended (monotonic seconds), and its channels."""

    client: str
    ended_at: float = 0.0
    channels: set[str] = field(default_factory=set)
    began_at: float = 0.0
    is_unwritten: bool = False
    """Whether its node may have been killed before it wrote anything of the session."""
    is_disturbed: bool = False
    """Whether its node may have been taken for dead while it lasted."""


class Audit:
    """Takes events as a reader gets them, and collects broken promises.

    The mutable state is what the events have told so far, and the violations.
    """

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.violation_count = 0
        self.events = 0
        self.repeated = 0
        self.state_lost = 0
        self.unwritten = 0
        """How many sessions began at the moment in which their node was killed, and were not told."""
        self.incomplete = 0
        """How many sessions of nodes taken for dead ended before all their subscriptions were told."""
        self.reconnected = 0
        """How many sessions were told again after their node had been taken for dead."""
        self._known: dict[str, LifecycleEvent] = {}
        self._sequences: dict[str, int] = {}
        self._live: dict[str, set[str]] = {}
        self._ended_at: dict[str, float] = {}
        self._subscribed: dict[str, set[str]] = {}
        self._occupied: set[str] = set()

    @property
    def live_count(self) -> int:
        """How many sessions and channels have begun and not ended."""
        return len(self._live) + len(self._occupied)

    def take(self, event: LifecycleEvent, now: float) -> None:
        """Take the next event."""
        self.events += 1
        if event.type == "state_lost":
            self.state_lost += 1
            self._occupied.clear()
        elif (known := self._known.get(event.id)) is not None:
            self.repeated += 1
            self._check(known == event, f"{event.id} has two meanings: {known} and {event}")
        else:
            self._known[event.id] = event
            if event.client:
                self._take_of_session(event, now)
            else:
                self._take_of_channel(event)

    def _take_of_channel(self, event: LifecycleEvent) -> None:
        is_occupied = event.channel in self._occupied
        self._check(is_occupied == (event.type == "vacated"), f"{event.channel}: {event.type} twice")
        if event.type == "occupied":
            self._occupied.add(event.channel)
        else:
            self._occupied.discard(event.channel)

    def _take_of_session(self, event: LifecycleEvent, now: float) -> None:
        client, channels = event.client, self._live.get(event.client)
        self._check(event.sequence > self._sequences.get(client, 0), f"{client}: {event.type} out of order")
        self._sequences[client] = event.sequence
        if event.type == "connected":
            self._check(channels is None, f"{client} connected twice")
            self.reconnected += client in self._ended_at
            self._live[client] = set()
            self._ended_at.pop(client, None)
        elif channels is None:
            self._check(False, f"{client}: {event.type} without connected")
        elif event.type == "subscribed":
            self._check(event.channel not in channels, f"{client} subscribed to {event.channel} twice")
            channels.add(event.channel)
            self._subscribed.setdefault(client, set()).add(event.channel)
        elif event.type == "unsubscribed":
            self._check(event.channel in channels, f"{client} unsubscribed from {event.channel} twice")
            channels.discard(event.channel)
        elif event.type == "disconnected":
            self._check(not channels, f"{client} disconnected with {channels}")
            del self._live[client]
            self._ended_at[client] = now

    def has_ended(self, session: ClientSession) -> bool:
        """Whether the end of a session was told, or nothing of it will be."""
        return session.client in self._ended_at or session.is_unwritten

    def compare(self, session: ClientSession, due_at: float) -> float:
        """Check that a session was told. Returns how long after its end that was, in seconds.

        `due_at` is the latest time for it.
        """
        client = session.client
        if session.is_unwritten and client not in self._sequences:
            self.unwritten += 1
            return 0.0
        missing = session.channels - self._subscribed.get(client, set())
        if missing and (session.is_unwritten or session.is_disturbed):
            self.incomplete += 1
        else:
            self._check(not missing, f"{client}: subscribed to {missing} was not told")
        ended_at = self._ended_at.get(client)
        if ended_at is None:
            self._check(False, f"{client}: its {'end' if client in self._live else 'session'} was not told")
            return 0.0
        self._check(ended_at <= due_at, f"{client}: its end was told {ended_at - due_at:.1f} s too late")
        return ended_at - session.ended_at

    def finish(self) -> None:
        """Check that no session and no channel is left."""
        for client in self._live:
            self._check(False, f"{client} has no disconnected")
        for channel in self._occupied:
            self._check(False, f"{channel} has no vacated")

    def _check(self, is_right: bool, violation: str) -> None:
        if not is_right:
            self.violation_count += 1
            if len(self.violations) < REMARKS:
                self.violations.append(violation)
