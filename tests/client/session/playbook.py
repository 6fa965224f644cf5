"""Playbooks: the events of a session, and exactly the effects that they must have."""

import json
from typing import Any, Self

from tocsin.models import Position, Publication, State, StateChanged, Subscribed, Unsubscribed
from tocsin.session import effects, events
from tocsin.session.session import Session
from tocsin.session.subscription_state import SubscriptionState

Json = dict[str, Any]
HISTORY: Json = {"recoverable": True, "positioned": True, "epoch": "E"}


class Playbook:
    """A session on a clock that only `wait` moves. The random numbers are 0, so every delay is its shortest.

    `effects` holds the effects of the last step.
    """

    def __init__(self, **options: Any) -> None:
        self.now = 100.0
        self.session = Session(random=lambda: 0.0, **options)
        self.effects: list[effects.Effect] = []

    def handle(self, event: events.SessionEvent) -> Self:
        self.effects = self.session.handle(event, self.now)
        return self

    def receive(self, *replies: Json) -> Self:
        """The server sends these replies in one message."""
        return self.handle(events.Received("\n".join(json.dumps(reply) for reply in replies)))

    def wait(self, seconds: float) -> Self:
        """Let time pass, with a `Timeout` at every deadline. `effects` then holds all their effects."""
        until, collected = self.now + seconds, []
        while self.session.deadline is not None and self.session.deadline <= until:
            self.now = max(self.now, self.session.deadline)
            collected += self.handle(events.Timeout()).effects
        self.now = until
        self.effects = collected + self.handle(events.Timeout()).effects
        return self

    def connect(self, **result: Any) -> Self:
        """Go from the start to connected."""
        self.handle(events.Start()).handle(events.TransportOpened())
        number = self.sent[0]["id"]
        return self.receive({"id": number, "connect": {"client": "C", **result}})

    def subscribe(self, name: str = "news", **options: Any) -> Self:
        return self.handle(events.Subscribe(SubscriptionState(name, **options)))

    def go_live(self, name: str = "news", **result: Any) -> Self:
        """Subscribe to a channel with history, whose top has offset 0 unless `result` says otherwise."""
        self.subscribe(name)
        return self.receive({"id": self.sent[-1]["id"], "subscribe": {**HISTORY, **result}})

    def reconnect(self, **result: Any) -> Self:
        """The backoff passes, the transport opens, the server answers the connect command."""
        self.wait(20).handle(events.TransportOpened())
        return self.receive({"id": self.sent[0]["id"], "connect": {"client": "D", **result}})

    @property
    def sent(self) -> list[Json]:
        """The commands sent in the last step."""
        return [
            json.loads(line)
            for effect in self.effects
            if isinstance(effect, effects.Send)
            for line in effect.text.split("\n")
        ]

    @property
    def notified(self) -> list[Any]:
        """The caller's events of the last step."""
        return [effect.event for effect in self.effects if isinstance(effect, effects.Notify)]

    @property
    def other_effects(self) -> list[effects.Effect]:
        """The effects of the last step that are neither `Send` nor `Notify`."""
        return [effect for effect in self.effects if not isinstance(effect, effects.Send | effects.Notify)]


def push(offset: int, channel: str = "news", **more: Any) -> Json:
    """The push of a publication whose data is its offset."""
    return {"push": {"channel": channel, "pub": {"data": offset, "offset": offset, **more}}}


def publication(offset: int, channel: str = "news", epoch: str = "E") -> Publication:
    """The same publication, as the caller gets it."""
    return Publication(channel, offset, offset, epoch)


def subscribed(recovered: bool | None, offset: int, channel: str = "news") -> Subscribed:
    return Subscribed(channel, recovered, Position(offset, "E"))


__all__ = [
    "HISTORY",
    "Playbook",
    "State",
    "StateChanged",
    "Unsubscribed",
    "publication",
    "push",
    "subscribed",
]
