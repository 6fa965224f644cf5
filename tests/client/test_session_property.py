"""Whatever is dropped, delayed, repeated or cut: offsets rise without a hole, or the caller is told of it."""

import json
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tocsin import effects
from tocsin.channel import Channel
from tocsin.session import Session
from tocsin.values import Publication, State, StateChanged, Subscribed

Json = dict[str, Any]
KEPT = 4


class Log:
    """A channel as a correct server keeps it."""

    def __init__(self) -> None:
        self.epoch = 1
        self.top = 0
        self.kept: list[Json] = []

    def append(self) -> Json:
        self.top += 1
        publication = {"data": [self.epoch, self.top], "offset": self.top}
        self.kept = [*self.kept, publication][-KEPT:]
        return publication

    def subscribe(self, request: Json) -> Json:
        """Protocol §10."""
        result = {"recoverable": True, "positioned": True, "epoch": str(self.epoch), "offset": self.top}
        if not request.get("recover"):
            return result
        since = request.get("offset", 0)
        missed = [one for one in self.kept if one["offset"] > since]
        whole = missed[0]["offset"] == since + 1 if missed else since == self.top
        if whole and request.get("epoch", "") in ("", str(self.epoch)):
            result |= {"recovered": True, "offset": since, "publications": missed}
        return result


class Weather(RuleBasedStateMachine):
    """A session, a correct server, and a network that is neither."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.log = Log()
        self.session = Session(random=lambda: 0.5)
        self.is_open = False
        self.is_subscribed = False  # the server's view
        self.down: list[Json] = []  # on their way to the client
        self.up: list[Json] = []  # on their way to the server
        self.last: tuple[int, int] | None = None  # what the caller knows: epoch, offset
        self.published: list[tuple[int, int]] = []
        self.happens(effects.Start())
        self.happens(effects.Subscribe(Channel("news")))

    def happens(self, event: effects.Event) -> None:
        for effect in self.session.handle(event, self.now):
            match effect:
                case effects.Send(text):
                    self.up += [json.loads(line) for line in text.split("\n")]
                case effects.Hangup() | effects.Open():
                    self.is_open = self.is_subscribed = False
                    self.down, self.up = [], []
                case effects.Tell(told):
                    self.caller_hears(told)

    def caller_hears(self, event: object) -> None:
        """The property itself."""
        if isinstance(event, Subscribed):
            assert event.position is not None
            position = int(event.position.epoch), event.position.offset
            if event.recovered:
                assert position == self.last, "recovered, but from elsewhere"
            else:
                assert event.recovered is None or self.last is not None
                self.last = position
        elif isinstance(event, Publication):
            assert self.last is not None, "a publication before its subscription"
            assert (int(event.epoch), event.offset) == (self.last[0], self.last[1] + 1), "a hole, untold"
            assert event.data == [self.last[0], event.offset]
            self.last = self.last[0], event.offset
        else:
            assert isinstance(event, StateChanged)
            assert event.state is not State.DISCONNECTED

    @rule()
    def a_publication(self) -> None:
        publication = self.log.append()
        self.published.append((self.log.epoch, self.log.top))
        if self.is_subscribed:
            self.down.append({"push": {"channel": "news", "pub": publication}})

    @rule()
    def the_log_begins_anew(self) -> None:
        """A server that lost its memory has lost its subscribers too."""
        epoch = self.log.epoch
        self.log = Log()
        self.log.epoch = epoch + 1
        self.the_connection_breaks()

    @rule()
    def the_connection_breaks(self) -> None:
        self.is_subscribed = False
        self.down, self.up = [], []
        if self.is_open:
            self.is_open = False
            self.happens(effects.Lost(1006, "gone"))

    @rule(seconds=st.sampled_from([0.1, 0.6, 6.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.happens(effects.Tick())

    @precondition(lambda self: not self.is_open)
    @rule()
    def the_transport_opens(self) -> None:
        if self.session._has_transport:
            self.is_open = True
            self.happens(effects.Opened())

    @precondition(lambda self: self.up)
    @rule()
    def the_server_reads(self) -> None:
        command = self.up.pop(0)
        if "connect" in command:
            self.down.append({"id": command["id"], "connect": {"client": "c", "ping": 25, "pong": True}})
        elif "subscribe" in command:
            self.is_subscribed = True
            self.down.append({"id": command["id"], "subscribe": self.log.subscribe(command["subscribe"])})
        elif "unsubscribe" in command:
            self.is_subscribed = False
            self.down.append({"id": command["id"], "unsubscribe": {}})

    @precondition(lambda self: self.is_open and self.down)
    @rule(count=st.integers(min_value=1, max_value=4))
    def the_client_reads(self, count: int) -> None:
        frame, self.down = self.down[:count], self.down[count:]
        self.happens(effects.Received("\n".join(map(json.dumps, frame))))

    @property
    def publications_under_way(self) -> list[Json]:
        return [one for one in self.down if "pub" in one.get("push", {})]

    @precondition(lambda self: self.publications_under_way)
    @rule(data=st.data(), twice=st.booleans())
    def a_publication_is_lost_or_doubled(self, data: st.DataObject, twice: bool) -> None:
        """As by a server whose own link to its log is deaf for a moment; what it says itself it says once."""
        push = data.draw(st.sampled_from(self.publications_under_way))
        if twice:
            self.down.append(push)
        else:
            self.down.remove(push)

    @precondition(lambda self: self.is_subscribed)
    @rule()
    def the_server_sends_the_client_back(self) -> None:
        self.is_subscribed = False
        told = {"code": 2500, "reason": "insufficient state"}
        self.down.append({"push": {"channel": "news", "unsubscribe": told}})

    @rule()
    def the_reader_pauses(self) -> None:
        self.happens(effects.Pause("news"))

    @rule()
    def the_reader_resumes(self) -> None:
        self.happens(effects.Resume("news"))

    @invariant()
    def there_is_always_a_next_step(self) -> None:
        """Nothing pending, nothing due and no transport would be a client asleep for ever."""
        assert self.session.deadline is not None or self.session._has_transport

    @rule()
    def the_weather_is_fine(self) -> None:
        """Everything under way arrives, until the caller is at the top of the log."""
        self.happens(effects.Resume("news"))
        for _ in range(300):
            if not self.is_open:
                self.the_transport_opens()
            while self.up:
                self.the_server_reads()
            if self.down and self.is_open:
                self.the_client_reads(4)
            elif self.last != (self.log.epoch, self.log.top):
                self.time_passes(1.0)
                self.down.append({})  # pings go on: silence alone must not be what repairs a session
                self.a_sign_of_a_loss()
            else:
                return
        raise AssertionError(f"stuck at {self.last}, the log is at {self.log.epoch, self.log.top}")

    def a_sign_of_a_loss(self) -> None:
        """A lost last message is noticed by the server's own check, or by the next message."""
        if self.is_subscribed and self.down == [{}] and not self.up:
            self.the_server_sends_the_client_back()

    def teardown(self) -> None:
        self.the_weather_is_fine()


Weather.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
test_a_caller_sees_every_offset_once_and_in_order_or_is_told = Weather.TestCase
