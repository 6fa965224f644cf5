"""For any drops, delays, repetitions and cuts, the caller gets every offset in order, or a gap."""

import json
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tocsin.models import Publication, State, StateChanged, Subscribed
from tocsin.session import effects, events
from tocsin.session.session import Session
from tocsin.session.subscription_state import SubscriptionState

Json = dict[str, Any]
KEPT = 4


class History:
    """The history of a channel, as a correct server keeps it."""

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
        """Return the subscribe result (protocol §10)."""
        result = {"recoverable": True, "positioned": True, "epoch": str(self.epoch), "offset": self.top}
        if not request.get("recover"):
            return result
        since = request.get("offset", 0)
        missed = [one for one in self.kept if one["offset"] > since]
        is_complete = missed[0]["offset"] == since + 1 if missed else since == self.top
        if is_complete and request.get("epoch", "") in ("", str(self.epoch)):
            result |= {"recovered": True, "offset": since, "publications": missed}
        return result


class FaultyNetwork(RuleBasedStateMachine):
    """A session and a correct server, with a faulty network between them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.history = History()
        self.session = Session(random=lambda: 0.5)
        self.is_open = False
        self.is_subscribed = False  # the server's view
        self.down: list[Json] = []  # on their way to the client
        self.up: list[Json] = []  # on their way to the server
        self.last: tuple[int, int] | None = None  # the caller's position: epoch, offset
        self.published: list[tuple[int, int]] = []
        self.handle(events.Start())
        self.handle(events.Subscribe(SubscriptionState("news")))

    def handle(self, event: events.SessionEvent) -> None:
        for effect in self.session.handle(event, self.now):
            match effect:
                case effects.Send(text):
                    self.up += [json.loads(line) for line in text.split("\n")]
                case effects.CloseTransport() | effects.OpenTransport():
                    self.is_open = self.is_subscribed = False
                    self.down, self.up = [], []
                case effects.Notify(reported):
                    self.check(reported)

    def check(self, event: object) -> None:
        """Check that offsets rise by one within an epoch, unless the caller gets a gap."""
        if isinstance(event, Subscribed):
            assert event.position is not None
            position = int(event.position.epoch), event.position.offset
            if event.recovered:
                assert position == self.last, "recovered, but from another position"
            else:
                assert event.recovered is None or self.last is not None
                self.last = position
        elif isinstance(event, Publication):
            assert self.last is not None, "a publication before its subscription"
            assert (int(event.epoch), event.offset) == (self.last[0], self.last[1] + 1), "an unreported gap"
            assert event.data == [self.last[0], event.offset]
            self.last = self.last[0], event.offset
        else:
            assert isinstance(event, StateChanged)
            assert event.state is not State.DISCONNECTED

    @rule()
    def publish(self) -> None:
        publication = self.history.append()
        self.published.append((self.history.epoch, self.history.top))
        if self.is_subscribed:
            self.down.append({"push": {"channel": "news", "pub": publication}})

    @rule()
    def the_server_loses_its_history(self) -> None:
        """A server that lost its history has lost its subscribers too."""
        epoch = self.history.epoch
        self.history = History()
        self.history.epoch = epoch + 1
        self.the_connection_breaks()

    @rule()
    def the_connection_breaks(self) -> None:
        self.is_subscribed = False
        self.down, self.up = [], []
        if self.is_open:
            self.is_open = False
            self.handle(events.TransportLost(1006, "gone"))

    @rule(seconds=st.sampled_from([0.1, 0.6, 6.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.handle(events.Timeout())

    @precondition(lambda self: not self.is_open)
    @rule()
    def the_transport_opens(self) -> None:
        if self.session._has_transport:
            self.is_open = True
            self.handle(events.TransportOpened())

    @precondition(lambda self: self.up)
    @rule()
    def the_server_reads(self) -> None:
        command = self.up.pop(0)
        if "connect" in command:
            self.down.append({"id": command["id"], "connect": {"client": "c", "ping": 25, "pong": True}})
        elif "subscribe" in command:
            self.is_subscribed = True
            self.down.append({"id": command["id"], "subscribe": self.history.subscribe(command["subscribe"])})
        elif "unsubscribe" in command:
            self.is_subscribed = False
            self.down.append({"id": command["id"], "unsubscribe": {}})

    @precondition(lambda self: self.is_open and self.down)
    @rule(count=st.integers(min_value=1, max_value=4))
    def the_client_reads(self, count: int) -> None:
        frame, self.down = self.down[:count], self.down[count:]
        self.handle(events.Received("\n".join(map(json.dumps, frame))))

    @property
    def publications_in_flight(self) -> list[Json]:
        return [one for one in self.down if "pub" in one.get("push", {})]

    @precondition(lambda self: self.publications_in_flight)
    @rule(data=st.data(), twice=st.booleans())
    def a_publication_is_lost_or_doubled(self, data: st.DataObject, twice: bool) -> None:
        """As by a node whose broker loses or repeats a publication. Replies are neither lost nor doubled."""
        push = data.draw(st.sampled_from(self.publications_in_flight))
        if twice:
            self.down.append(push)
        else:
            self.down.remove(push)

    @precondition(lambda self: self.is_subscribed)
    @rule()
    def the_server_unsubscribes_the_client(self) -> None:
        self.is_subscribed = False
        unsubscribe = {"code": 2500, "reason": "insufficient state"}
        self.down.append({"push": {"channel": "news", "unsubscribe": unsubscribe}})

    @rule()
    def the_reader_pauses(self) -> None:
        self.handle(events.Pause("news"))

    @rule()
    def the_reader_resumes(self) -> None:
        self.handle(events.Resume("news"))

    @invariant()
    def there_is_always_a_next_step(self) -> None:
        """A session without a deadline and without a transport would wait for ever."""
        assert self.session.deadline is not None or self.session._has_transport

    @rule()
    def the_network_works(self) -> None:
        """All messages in flight arrive, until the caller has reached the top."""
        self.handle(events.Resume("news"))
        for _ in range(300):
            if not self.is_open:
                self.the_transport_opens()
            while self.up:
                self.the_server_reads()
            if self.down and self.is_open:
                self.the_client_reads(4)
            elif self.last != (self.history.epoch, self.history.top):
                self.time_passes(1.0)
                self.down.append({})  # pings go on, so that the ping timeout does not repair the session
                self.the_server_notices_a_loss()
            else:
                return
        raise AssertionError(f"stuck at {self.last}, the top is {self.history.epoch, self.history.top}")

    def the_server_notices_a_loss(self) -> None:
        """The server's own check notices a lost last publication."""
        if self.is_subscribed and self.down == [{}] and not self.up:
            self.the_server_unsubscribes_the_client()

    def teardown(self) -> None:
        self.the_network_works()


FaultyNetwork.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
test_a_caller_gets_every_offset_once_and_in_order_or_a_gap = FaultyNetwork.TestCase
