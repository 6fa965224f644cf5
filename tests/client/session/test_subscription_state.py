"""The state of one subscription."""

from tocsin.backoff import STEADY_SECONDS
from tocsin.models import Position
from tocsin.protocol.messages import SubscribeRequest
from tocsin.session.phases import SubscriptionPhase
from tocsin.session.subscription_state import SubscriptionState


def test_a_request_recovers_from_the_position_if_there_is_one() -> None:
    live = SubscribeRequest("a", positioned=True, recoverable=True)
    assert SubscriptionState("a").request() == live
    since = SubscriptionState("a", since=Position(5, "E")).request()
    recovery = SubscribeRequest("a", recover=True, offset=5, epoch="E", positioned=True, recoverable=True)
    assert since == recovery


def test_a_server_side_request_has_only_a_position() -> None:
    state = SubscriptionState("a", since=Position(5, "E"), is_server_side=True)
    assert state.request() == SubscribeRequest(recover=True, offset=5, epoch="E")


def test_a_reset_keeps_the_position_and_drops_the_deadlines() -> None:
    state = SubscriptionState("a", since=Position(5, "E"))
    state.go_live(now=0, ttl=60)
    assert (state.phase, state.refresh_at) == (SubscriptionPhase.SUBSCRIBED, 60)
    state.reset()
    assert (state.phase, state.refresh_at, state.subscribe_at) == (SubscriptionPhase.IDLE, None, None)
    assert state.tracker.position == Position(5, "E")


def test_interruptions_are_counted_until_the_subscription_is_steady() -> None:
    state = SubscriptionState("a")
    assert [state.count_interruption(now=0) for _ in range(3)] == [0, 1, 2]
    state.go_live(now=0, ttl=None)
    assert state.count_interruption(now=STEADY_SECONDS / 2) == 3
    state.go_live(now=0, ttl=None)
    assert state.count_interruption(now=STEADY_SECONDS) == 0
