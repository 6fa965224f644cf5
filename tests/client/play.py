"""Playbooks: what happens to a session, and exactly what it must answer."""

import json
from typing import Any, Self

from tocsin import effects
from tocsin.channel import Channel
from tocsin.session import Session
from tocsin.values import Position, Publication, State, StateChanged, Subscribed, Unsubscribed

Json = dict[str, Any]
LOG: Json = {"recoverable": True, "positioned": True, "epoch": "E"}


class Play:
    """A session on a clock that only `wait` moves. Randomness is 0: every delay is its shortest."""

    def __init__(self, **options: Any) -> None:
        self.now = 100.0
        self.session = Session(random=lambda: 0.0, **options)
        self.asked: list[effects.Effect] = []

    def do(self, event: effects.Event) -> Self:
        self.asked = self.session.handle(event, self.now)
        return self

    def hear(self, *replies: Json) -> Self:
        """The server sends these in one message."""
        return self.do(effects.Received("\n".join(json.dumps(reply) for reply in replies)))

    def wait(self, seconds: float) -> Self:
        """Time passes, with every deadline on the way kept; `asked` is all that was asked meanwhile."""
        until, asked = self.now + seconds, []
        while self.session.deadline is not None and self.session.deadline <= until:
            self.now = max(self.now, self.session.deadline)
            asked += self.do(effects.Tick()).asked
        self.now = until
        self.asked = asked + self.do(effects.Tick()).asked
        return self

    def connect(self, **result: Any) -> Self:
        """From the start to connected."""
        self.do(effects.Start()).do(effects.Opened())
        number = self.sent[0]["id"]
        return self.hear({"id": number, "connect": {"client": "C", **result}})

    def subscribe(self, name: str = "news", **options: Any) -> Self:
        return self.do(effects.Subscribe(Channel(name, **options)))

    def live(self, name: str = "news", **result: Any) -> Self:
        """Subscribed to a channel with a log, at offset 0 unless said otherwise."""
        self.subscribe(name)
        return self.hear({"id": self.sent[-1]["id"], "subscribe": {**LOG, **result}})

    def reopen(self, **result: Any) -> Self:
        """The pause passes, the transport opens, the server greets; `asked` is what follows that."""
        self.wait(20).do(effects.Opened())
        return self.hear({"id": self.sent[0]["id"], "connect": {"client": "D", **result}})

    @property
    def sent(self) -> list[Json]:
        """The commands sent in the last step."""
        return [
            json.loads(line)
            for effect in self.asked
            if isinstance(effect, effects.Send)
            for line in effect.text.split("\n")
        ]

    @property
    def told(self) -> list[Any]:
        """What the owner was told in the last step."""
        return [effect.event for effect in self.asked if isinstance(effect, effects.Tell)]

    @property
    def rest(self) -> list[effects.Effect]:
        """Every other effect of the last step."""
        return [effect for effect in self.asked if not isinstance(effect, effects.Send | effects.Tell)]


def pub(offset: int, channel: str = "news", **more: Any) -> Json:
    """A pushed publication whose data is its offset."""
    return {"push": {"channel": channel, "pub": {"data": offset, "offset": offset, **more}}}


def heard(offset: int, channel: str = "news", epoch: str = "E") -> Publication:
    """What the owner hears of it."""
    return Publication(channel, offset, offset, epoch)


def subscribed(recovered: bool | None, offset: int, channel: str = "news") -> Subscribed:
    return Subscribed(channel, recovered, Position(offset, "E"))


__all__ = ["LOG", "Play", "State", "StateChanged", "Unsubscribed", "heard", "pub", "subscribed"]
