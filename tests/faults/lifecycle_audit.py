"""What a reader of lifecycle events got, compared with what clients saw (pure)."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from tocsin_server.core.lifecycle import LifecycleEvent

LEASE_SECONDS = 4.0
"""A killed node is detected within this time."""

GRACE_SECONDS = 3.0
"""How long after that the end of a session may be told."""

UNWRITTEN_SECONDS = 2.0
"""A killed node may not have written what happened in so short a time before, on a busy machine.

It writes a batch 10 ms after the one before.
"""

REMARKS = 20
"""How many broken promises are described. Further ones are only counted."""


@dataclass
class ClientSession:
    """What one client saw of its session. Times are Unix seconds; `ended_at` is 0 while it lasts."""

    client: str
    process: int
    """The process id of its node."""
    began_at: float = 0.0
    ended_at: float = 0.0
    channels: set[str] = field(default_factory=set)


@dataclass
class Disturbance:
    """A fault: from when to when these nodes could not write events, and when it killed them.

    Nodes are process ids, times are Unix seconds.
    """

    name: str
    nodes: frozenset[int]
    began_at: float
    ended_at: float = inf
    killed_at: float = 0.0

    def ends(self, session: ClientSession) -> bool:
        """Whether it killed the node of a session that lasted. The client may notice it later."""
        return session.process in self.nodes and bool(self.killed_at) and session.ended_at >= self.killed_at

    def may_delay(self, session: ClientSession) -> bool:
        """Whether the end of a session could only be told after it: its node lived, and could not write."""
        is_meanwhile = (
            not self.killed_at and self.began_at - UNWRITTEN_SECONDS <= session.ended_at <= self.ended_at
        )
        return session.process in self.nodes and is_meanwhile

    def may_hide(self, session: ClientSession) -> bool:
        """Whether it killed the node before that had written anything of a session."""
        is_late = session.began_at >= self.began_at - UNWRITTEN_SECONDS
        return session.process in self.nodes and bool(self.killed_at) and is_late

    def overlaps(self, session: ClientSession) -> bool:
        """Whether the node may have been taken for dead while a session lasted."""
        first, last = session.began_at - UNWRITTEN_SECONDS, session.ended_at + UNWRITTEN_SECONDS
        return session.process in self.nodes and first < self.ended_at and last > self.began_at


class Audit:
    """Takes events as a reader gets them, and collects broken promises.

    The mutable state is what the events have told so far, and the violations.
    """

    def __init__(self, allowed_seconds: float = LEASE_SECONDS + GRACE_SECONDS) -> None:
        self._allowed_seconds = allowed_seconds
        self.disturbances: list[Disturbance] = []
        """The faults that were injected. The owner adds them."""
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

    def take(self, event: LifecycleEvent, told_at: float) -> None:
        """Take the next event, which was written at that Unix second."""
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
                self._take_of_session(event, told_at)
            else:
                self._take_of_channel(event)

    def _take_of_channel(self, event: LifecycleEvent) -> None:
        is_occupied = event.channel in self._occupied
        self._check(is_occupied == (event.type == "vacated"), f"{event.channel}: {event.type} twice")
        if event.type == "occupied":
            self._occupied.add(event.channel)
        else:
            self._occupied.discard(event.channel)

    def _take_of_session(self, event: LifecycleEvent, told_at: float) -> None:
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
            self._ended_at[client] = told_at

    def is_live(self, client: str) -> bool:
        """Whether a session was told to have begun, and not to have ended since."""
        return client in self._live

    def has_told(self, client: str) -> bool:
        """Whether anything was told of a session."""
        return client in self._sequences

    def has_ended(self, session: ClientSession) -> bool:
        """Whether the end of a session was told, or nothing of it will be."""
        client = session.client
        return client in self._ended_at or (not self.has_told(client) and self._may_be_hidden(session))

    def _may_be_hidden(self, session: ClientSession) -> bool:
        return any(one.may_hide(session) for one in self.disturbances)

    def compare(self, session: ClientSession) -> tuple[str, float]:
        """Check that a session was told, and in time.

        Returns which fault ended it or could delay its end, and how many seconds after its end that was told:
        after the end of the fault if the node could not tell it before.
        """
        client = session.client
        if not self.has_told(client) and self._may_be_hidden(session):
            self.unwritten += 1
            return "", 0.0
        missing = session.channels - self._subscribed.get(client, set())
        if missing and any(one.overlaps(session) for one in self.disturbances):
            self.incomplete += 1
        else:
            self._check(not missing, f"{client}: subscribed to {missing} was not told")
        told_at = self._ended_at.get(client)
        if told_at is None:
            self._check(False, f"{client}: its {'end' if client in self._live else 'session'} was not told")
            return "", 0.0
        fault, since = self._due_since(session)
        late = told_at - since - self._allowed_seconds
        self._check(late <= 0, f"{client}: its end was told {late:.1f} s too late ({fault or 'no fault'})")
        return fault, max(0.0, told_at - since)

    def _due_since(self, session: ClientSession) -> tuple[str, float]:
        """Which fault concerns the end of a session, and from when on it could be told (Unix seconds)."""
        fault, since = "", session.ended_at
        for one in self.disturbances:
            if one.ends(session):
                fault, since = one.name, one.killed_at  # the client may have noticed it later
        for one in self.disturbances:
            if one.may_delay(session) and one.ended_at > since:
                fault, since = one.name, one.ended_at
        return fault, since

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
