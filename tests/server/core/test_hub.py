"""The index of one node: which peers are whose, and which channels anybody wants."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.server.core.recording_connection import RecordingConnection
from tocsin_server.core.hub import Hub


def test_a_user_s_peers_are_known_until_they_are_forgotten() -> None:
    """The anonymous user is a user like others."""
    hub: Hub[RecordingConnection] = Hub()
    first, second, nobody = RecordingConnection(), RecordingConnection(), RecordingConnection()
    for peer, user in ((first, "ada"), (second, "ada"), (nobody, "")):
        hub.identify(peer, user)
    assert (set(hub.connections_of("ada")), hub.connections_of(""), len(hub)) == (
        {first, second},
        [nobody],
        3,
    )
    hub.remove(first)
    hub.remove(first)
    assert (hub.connections_of("ada"), set(hub), set(hub.users)) == ([second], {second, nobody}, {"ada", ""})
    hub.remove(second)
    assert (hub.connections_of("ada"), set(hub.users)) == ([], {""})


def test_peers_may_be_forgotten_while_one_goes_through_them() -> None:
    """Closing every connection of a user, or of the node, forgets them one by one."""
    hub: Hub[RecordingConnection] = Hub()
    for user in ("ada", "ada", "bob"):
        hub.identify(RecordingConnection(), user)
    for peer in hub.connections_of("ada"):
        hub.remove(peer)
    for peer in hub:
        hub.remove(peer)
    assert len(hub) == 0


def test_only_the_last_departure_says_that_a_channel_is_wanted_no_more() -> None:
    """Those who are about to hear it count."""
    hub: Hub[RecordingConnection] = Hub()
    live, entering = RecordingConnection(), RecordingConnection()
    channel = hub.begin_subscribe("news")
    channel.go_live(live, 0, receives_joins=False)
    assert hub.begin_subscribe("news") is channel
    assert not hub.unsubscribe(live, "news")
    assert hub.unsubscribe(entering, "news")
    assert hub.channels == {}


def test_a_channel_that_is_wanted_again_begins_anew() -> None:
    """Nothing is known of what was published meanwhile."""
    hub: Hub[RecordingConnection] = Hub()
    former = hub.begin_subscribe("news")
    hub.unsubscribe(RecordingConnection(), "news")
    assert hub.begin_subscribe("news") is not former


class Index(RuleBasedStateMachine):
    """A hub beside a plain set of facts."""

    peers = st.integers(0, 3)
    names = st.sampled_from(["news", "more"])

    def __init__(self) -> None:
        super().__init__()
        self.hub: Hub[RecordingConnection] = Hub()
        self.ears = [RecordingConnection() for _ in range(4)]
        self.users: dict[RecordingConnection, str] = {}
        self.positions: dict[tuple[RecordingConnection, str], bool] = {}
        """Whether the peer is live there; False while it is entering."""

    @rule(peer=peers, user=st.sampled_from(["ada", "bob", ""]))
    def identify(self, peer: int, user: str) -> None:
        if self.ears[peer] not in self.users:
            self.users[self.ears[peer]] = user
            self.hub.identify(self.ears[peer], user)

    @rule(peer=peers)
    def forget(self, peer: int) -> None:
        self.users.pop(self.ears[peer], None)
        self.hub.remove(self.ears[peer])

    @rule(peer=peers, name=names)
    def enter(self, peer: int, name: str) -> None:
        if (self.ears[peer], name) not in self.positions:
            self.positions[self.ears[peer], name] = False
            self.hub.begin_subscribe(name)

    @rule(peer=peers, name=names, receives_joins=st.booleans())
    def admit(self, peer: int, name: str, receives_joins: bool) -> None:
        if self.positions.get((self.ears[peer], name)) is False:
            self.positions[self.ears[peer], name] = True
            self.hub.channels[name].go_live(self.ears[peer], 0, receives_joins)

    @rule(peer=peers, name=names)
    def leave(self, peer: int, name: str) -> None:
        if self.positions.pop((self.ears[peer], name), None) is not None:
            was_last = self.hub.unsubscribe(self.ears[peer], name)
            assert was_last == all(channel != name for _, channel in self.positions)

    @invariant()
    def the_hub_agrees(self) -> None:
        assert set(self.hub) == set(self.users)
        assert set(self.hub.users) == set(self.users.values())
        for user in self.users.values():
            assert set(self.hub.connections_of(user)) == {
                ear for ear, name in self.users.items() if name == user
            }
        assert set(self.hub.channels) == {name for _, name in self.positions}
        for name, channel in self.hub.channels.items():
            live = {ear for (ear, place), is_live in self.positions.items() if place == name and is_live}
            assert set(channel.connections) == live


TestIndex = Index.TestCase
TestIndex.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
