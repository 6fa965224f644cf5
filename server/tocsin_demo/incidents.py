"""What happened to nodes, and how long everything took that came of it. A value: nothing here waits.

killed  --lapsed--> --back-->        its lease stood still and was reaped; another process has its name
drained --gone--> --back-->          its clients had gone elsewhere
deafened --deaf--> --healed--> --ready-->
"""

from collections.abc import Callable
from typing import Literal

import msgspec

KEPT = 8
"""Incidents that are told; older ones are forgotten."""

Kind = Literal["kill", "drain", "deafen", "end"]
"""`end`: a process went that nobody here had told to."""

What = Literal["lapsed", "gone", "deaf", "healed", "ready", "back"]

COMES: dict[Kind, tuple[What, ...]] = {
    "kill": ("lapsed", "back"),
    "end": ("lapsed", "gone", "back"),
    "drain": ("gone", "lapsed", "back"),
    "deafen": ("deaf", "healed", "ready"),
}
"""What may come of each."""


class Step(msgspec.Struct, frozen=True):
    """One thing that came of an incident, so many seconds after its beginning."""

    what: What
    seconds: float
    says: str = ""


class Incident(msgspec.Struct, frozen=True):
    """Something that happened to a node. `at` is in milliseconds since 1970."""

    number: int
    name: str
    kind: Kind
    at: float
    steps: tuple[Step, ...] = ()

    def has(self, what: What) -> bool:
        """Whether it has come so far."""
        return any(step.what == what for step in self.steps)


class Journal:
    """The latest incidents. `now` gives seconds since 1970."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._count = 0
        self.incidents: tuple[Incident, ...] = ()

    def begin(self, name: str, kind: Kind) -> None:
        """Something has just happened to this node."""
        self._count += 1
        incident = Incident(self._count, name, kind, round(self._now() * 1000, 1))
        self.incidents = (*self.incidents, incident)[-KEPT:]

    def latest(self, name: str) -> Incident | None:
        """What happened last to this node."""
        return next((one for one in reversed(self.incidents) if one.name == name), None)

    def note(self, name: str, what: What, says: str = "") -> None:
        """This came of the last incident of the node, unless it has come already, or cannot come of it."""
        incident = self.latest(name)
        if incident is None or incident.has(what) or what not in COMES[incident.kind]:
            return
        step = Step(what, round(self._now() - incident.at / 1000, 3), says)
        noted = msgspec.structs.replace(incident, steps=(*incident.steps, step))
        self.incidents = tuple(noted if one is incident else one for one in self.incidents)
