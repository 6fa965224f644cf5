"""Incidents: what happened to the nodes, and how long each consequence took. Pure values, no I/O.

kill    --expired--> --restarted-->           lease expired, entries reaped, new process started
drain   --stopped--> --restarted-->           the clients had moved to other nodes
deafen  --deaf--> --restored--> --ready-->    the node noticed, received again, and became ready
"""

from collections.abc import Callable
from typing import Literal

import msgspec

INCIDENT_LIMIT = 8
"""The log keeps this many incidents and drops the oldest."""

IncidentKind = Literal["kill", "drain", "deafen", "end"]
"""`end`: a process ended without a command of the supervisor."""

StepKind = Literal["expired", "stopped", "deaf", "restored", "ready", "restarted"]

STEPS: dict[IncidentKind, tuple[StepKind, ...]] = {
    "kill": ("expired", "restarted"),
    "end": ("expired", "stopped", "restarted"),
    "drain": ("stopped", "expired", "restarted"),
    "deafen": ("deaf", "restored", "ready"),
}
"""The possible consequences of each kind of incident."""


class Step(msgspec.Struct, frozen=True):
    """One consequence of an incident, with the seconds since the incident began."""

    kind: StepKind
    seconds: float
    text: str = ""


class Incident(msgspec.Struct, frozen=True):
    """Something that happened to a node. `at` is in milliseconds since 1970."""

    number: int
    name: str
    kind: IncidentKind
    at: float
    steps: tuple[Step, ...] = ()

    def has(self, kind: StepKind) -> bool:
        """Whether this step is recorded already."""
        return any(step.kind == kind for step in self.steps)


class IncidentLog:
    """The latest incidents. `now` returns seconds since 1970.

    The mutable state is the tuple of incidents and the count; only `begin` and `add_step` change them.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._count = 0
        self.incidents: tuple[Incident, ...] = ()

    def begin(self, name: str, kind: IncidentKind) -> None:
        """Record a new incident of this node."""
        self._count += 1
        incident = Incident(self._count, name, kind, round(self._now() * 1000, 1))
        self.incidents = (*self.incidents, incident)[-INCIDENT_LIMIT:]

    def latest(self, name: str) -> Incident | None:
        """Return the newest incident of this node."""
        return next((incident for incident in reversed(self.incidents) if incident.name == name), None)

    def add_step(self, name: str, kind: StepKind, text: str = "") -> None:
        """Add a step to the node's latest incident. Steps that repeat or do not belong to it are ignored."""
        latest = self.latest(name)
        if latest is None or latest.has(kind) or kind not in STEPS[latest.kind]:
            return
        step = Step(kind, round(self._now() - latest.at / 1000, 3), text)
        changed = msgspec.structs.replace(latest, steps=(*latest.steps, step))
        self.incidents = tuple(changed if incident is latest else incident for incident in self.incidents)
