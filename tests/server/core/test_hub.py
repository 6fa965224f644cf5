"""The index of one node's connections by user, and of its channels by name."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.server.core.recording_connection import RecordingConnection
from tocsin_server.core.hub import Hub


def test_a_user_s_connections_are_indexed_until_they_are_removed() -> None:
    """The anonymous user is a user like others."""
    hub: Hub[RecordingConnection] = Hub()
    first, second, anonymous = RecordingConnection(), RecordingConnection(), RecordingConnection()
    for connection, user in ((first, "ada"), (second, "ada"), (anonymous, "")):
        hub.identify(connection, user)
    assert (set(hub.connections_of("ada")), hub.connections_of(""), len(hub)) == (
        {first, second},
        [anonymous],
        3,
    )
    hub.remove(first)
    hub.remove(first)
    assert (hub.connections_of("ada"), set(hub), set(hub.users)) == (
        [second],
        {second, anonymous},
        {"ada", ""},
    )
    hub.remove(second)
    assert (hub.connections_of("ada"), set(hub.users)) == ([], {""})


def test_connections_may_be_removed_during_iteration() -> None:
    """A node that closes all connections of a user removes them one by one."""
    hub: Hub[RecordingConnection] = Hub()
    for user in ("ada", "ada", "bob"):
        hub.identify(RecordingConnection(), user)
    for connection in hub.connections_of("ada"):
        hub.remove(connection)
    for connection in hub:
        hub.remove(connection)
    assert len(hub) == 0


def test_only_the_last_unsubscribe_removes_a_channel() -> None:
    """A subscription that is being set up counts."""
    hub: Hub[RecordingConnection] = Hub()
    live, subscribing = RecordingConnection(), RecordingConnection()
    channel = hub.begin_subscribe("news")
    channel.go_live(live, 0, receives_joins=False)
    assert hub.begin_subscribe("news") is channel
    assert not hub.unsubscribe(live, "news")
    assert hub.unsubscribe(subscribing, "news")
    assert hub.channels == {}


def test_a_channel_that_was_removed_is_created_again() -> None:
    """It has no position, since the node has not received what was published meanwhile."""
    hub: Hub[RecordingConnection] = Hub()
    earlier = hub.begin_subscribe("news")
    hub.unsubscribe(RecordingConnection(), "news")
    assert hub.begin_subscribe("news") is not earlier


class Index(RuleBasedStateMachine):
    """A hub beside a model of plain sets."""

    numbers = st.integers(0, 3)
    names = st.sampled_from(["news", "more"])

    def __init__(self) -> None:
        super().__init__()
        self.hub: Hub[RecordingConnection] = Hub()
        self.connections = [RecordingConnection() for _ in range(4)]
        self.users: dict[RecordingConnection, str] = {}
        self.subscriptions: dict[tuple[RecordingConnection, str], bool] = {}
        """Whether each is live; False while it is being set up."""

    @rule(number=numbers, user=st.sampled_from(["ada", "bob", ""]))
    def identify(self, number: int, user: str) -> None:
        connection = self.connections[number]
        if connection not in self.users:
            self.users[connection] = user
            self.hub.identify(connection, user)

    @rule(number=numbers)
    def remove(self, number: int) -> None:
        self.users.pop(self.connections[number], None)
        self.hub.remove(self.connections[number])

    @rule(number=numbers, name=names)
    def begin_subscribe(self, number: int, name: str) -> None:
        if (self.connections[number], name) not in self.subscriptions:
            self.subscriptions[self.connections[number], name] = False
            self.hub.begin_subscribe(name)

    @rule(number=numbers, name=names, receives_joins=st.booleans())
    def go_live(self, number: int, name: str, receives_joins: bool) -> None:
        connection = self.connections[number]
        if self.subscriptions.get((connection, name)) is False:
            self.subscriptions[connection, name] = True
            self.hub.channels[name].go_live(connection, 0, receives_joins)

    @rule(number=numbers, name=names)
    def unsubscribe(self, number: int, name: str) -> None:
        connection = self.connections[number]
        if self.subscriptions.pop((connection, name), None) is not None:
            was_last = self.hub.unsubscribe(connection, name)
            assert was_last == all(name != other for _, other in self.subscriptions)

    @invariant()
    def the_hub_agrees_with_the_model(self) -> None:
        assert set(self.hub) == set(self.users)
        assert set(self.hub.users) == set(self.users.values())
        for user in self.users.values():
            expected = {connection for connection, other in self.users.items() if other == user}
            assert set(self.hub.connections_of(user)) == expected
        assert set(self.hub.channels) == {name for _, name in self.subscriptions}
        for name, channel in self.hub.channels.items():
            live = {
                connection
                for (connection, other), is_live in self.subscriptions.items()
                if other == name and is_live
            }
            assert set(channel.connections) == live


TestIndex = Index.TestCase
TestIndex.settings = settings(max_examples=50, stateful_step_count=40)
