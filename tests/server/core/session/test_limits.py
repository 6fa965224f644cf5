"""Limits on what a client does through commands: each holds exactly at its boundary, and says so."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.core.playbook import (
    OPEN,
    Closing,
    Opening,
    Playbook,
    Wait,
    connected,
    context,
    error,
    new_connection,
    opened,
)
from tests.support.tokens import connection_token, subscription_token
from tocsin_server import errors
from tocsin_server.core import events
from tocsin_server.core.events import Close, Execute, Executed, Identify, OpenSubscriptions, Send
from tocsin_server.core.session import Session
from tocsin_server.core.session_context import SessionContext
from tocsin_server.protocol.messages import EMPTY, Reply

PUBLISHED = {"publish": {"channel": "news", "data": 1}}


def too_many(command_id: int, reason: str) -> dict[str, Any]:
    """Error 111 with its reason, which clients retry after."""
    return error(command_id, 111, f"too many requests: {reason}", temporary=True)


def requests(count: int, first: int = 2, **request: Any) -> list[dict[str, Any]]:
    """Commands with ids that follow each other; by default presence of a channel that has none."""
    return [{"id": first + n, **(request or {"presence": {"channel": "news"}})} for n in range(count)]


def codes(playbook: Playbook) -> list[int]:
    """The code of each reply of the latest input, 0 for a result; then that of the close, if there is one."""
    found = []
    for effect in playbook.effects:
        if isinstance(effect, Send) and isinstance(effect.message, Reply):
            found.append(effect.message.error.code if effect.message.error else 0)
        elif isinstance(effect, Close):
            found.append(effect.why.code)
    return found


# ---------------------------------------------------------------------------------------------- commands


def test_a_connection_sends_command_burst_commands_at_once_and_one_more_is_refused() -> None:
    """The connect command is one of them. The refusal says which limit it was."""
    reached: list[str] = []
    playbook = connected(context(command_rate=10, command_burst=5, reached=reached))
    playbook >> requests(4)
    assert codes(playbook) == [108] * 4
    assert reached == []
    playbook >> requests(1, 6) << [too_many(6, "more than 10 commands a second from this connection")]
    assert reached == ["client.command_rate"]


def test_a_client_that_pauses_may_send_again() -> None:
    """The allowance comes back at command_rate, also what refused commands used."""
    playbook = connected(context(command_rate=10, command_burst=5)) >> requests(5)
    assert codes(playbook)[-1] == 111
    playbook >> Wait(0.1) >> requests(1, 10)
    assert codes(playbook) == [111]
    playbook >> Wait(0.2) >> requests(1, 11)
    assert codes(playbook) == [108]


def test_twice_the_burst_disconnects() -> None:
    """A client that goes on is closed with a code after which it comes back later."""
    playbook = connected(context(command_rate=10, command_burst=5)) >> requests(9)
    assert codes(playbook) == [108] * 4 + [111] * 5
    playbook >> requests(1, 20) << [Close(errors.RATE_LIMITED)]


def test_an_unsubscribe_is_never_refused_for_a_limit() -> None:
    """SDKs reconnect after an error there (protocol §4). It counts, though."""
    playbook = connected(context(command_rate=10, command_burst=5)) >> requests(5)
    playbook >> requests(4, 10, unsubscribe={"channel": "news"})
    assert codes(playbook) == [0] * 4
    playbook >> requests(1, 20, unsubscribe={"channel": "news"}) << [Close(errors.RATE_LIMITED)]


def test_a_message_without_a_reply_gets_none_above_a_limit() -> None:
    """It closes the connection as it does below the limit (protocol §4)."""
    playbook = connected(context(command_rate=10, command_burst=5)) >> requests(5)
    playbook >> {"send": {"data": 1}} << [Close(errors.UNSUPPORTED)]


def test_a_rate_of_0_limits_nothing() -> None:
    """Such a limit is off."""
    playbook = connected(context(command_rate=0, command_burst=1, user_command_rate=0))
    playbook >> requests(300)
    assert codes(playbook) == [108] * 300


def test_a_pong_uses_no_command() -> None:
    """At most one is valid for each ping."""
    playbook = connected(context(command_rate=0.01, command_burst=2))
    for _ in range(5):
        playbook >> Wait(25) >> b"{}" << []
    playbook >> requests(1)
    assert codes(playbook) == [108]


def test_an_sdk_that_reconnects_to_all_its_channels_meets_no_limit() -> None:
    """By default it may subscribe, refresh, and read presence and history of each channel at once."""
    reached: list[str] = []
    playbook = new_connection(context(OPEN, reached=reached))
    connect = {"id": 1, "connect": {"token": connection_token("ada")}}
    names = [f"news{n}" for n in range(128)]
    tokens = {name: subscription_token("ada", name) for name in names}
    subscribes = [
        {"id": n, "subscribe": {"channel": name, "token": tokens[name]}} for n, name in enumerate(names, 2)
    ]
    playbook >> [connect, *subscribes] >> opened(*names)
    assert codes(playbook) == [0] * 128
    reads: list[dict[str, Any]] = []
    for name in names:
        reads += [
            {"sub_refresh": {"channel": name, "token": tokens[name]}},
            {"presence": {"channel": name}},
            {"presence_stats": {"channel": name}},
            {"history": {"channel": name}},
        ]
    playbook >> [{"id": number, **read} for number, read in enumerate(reads, 200)]
    assert codes(playbook) == [0, 108, 108, 108] * 128
    assert reached == []


def user_context(**options: Any) -> SessionContext:
    """A context whose connections share what a user may do."""
    return context(user_command_rate=10, user_command_burst=5, **options)


def test_the_connections_of_a_user_share_its_commands() -> None:
    """The connect command does not count: until then the user is not known."""
    reached: list[str] = []
    shared = user_context(reached=reached)
    first, second = connected(shared), connected(shared)
    assert codes(first >> requests(3)) == [108] * 3
    assert codes(second >> requests(2)) == [108] * 2
    second >> requests(1, 9) << [too_many(9, "more than 10 commands a second from this user")]
    assert codes(connected(shared, "bob") >> requests(5)) == [108] * 5
    assert reached == ["client.user_command_rate"]


def test_a_user_that_goes_on_is_disconnected_where_it_does() -> None:
    """Its other connections stay open."""
    shared = user_context()
    first, second = connected(shared), connected(shared)
    assert codes(first >> requests(10)) == [108] * 5 + [111] * 5
    second >> requests(1) << [Close(errors.RATE_LIMITED)]
    assert not first.session.is_closed


def test_each_anonymous_connection_counts_as_a_user_of_its_own() -> None:
    """They have no user in common."""
    shared = user_context(allow_anonymous=True)
    for client in ("c1", "c2"):
        session = Session(shared, client, Playbook(new_connection().session).now)
        playbook = Playbook(session) >> {"id": 1, "connect": {}} >> requests(6)
        assert codes(playbook) == [108] * 5 + [111]


# ------------------------------------------------------------------------------------------------ errors


def test_error_limit_errors_are_allowed_and_one_more_disconnects() -> None:
    """The error is still answered, then the client is closed for good."""
    reached: list[str] = []
    playbook = connected(context(error_limit=3, reached=reached)) >> requests(3)
    assert codes(playbook) == [108] * 3
    playbook >> requests(1, 9) << [error(9, 108, "not available"), Close(errors.TOO_MANY_ERRORS)]
    assert reached == ["client.error_limit"]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"subscribe": {"channel": "no:such"}}, 102),
        ({"subscribe": {"channel": "$private"}}, 103),
        ({"subscribe": {"channel": "news", "token": "forged"}}, 103),
        ({"rpc": {"method": "none"}}, 108),
        ({"publish": {"channel": "news"}}, 107),
    ],
)
def test_what_a_client_should_not_have_asked_is_an_error(request_: dict[str, Any], code: int) -> None:
    """Invalid tokens are among it, whose signatures cost the most."""
    playbook = connected(context(error_limit=2)) >> requests(3, **request_)
    assert codes(playbook) == [code, code, code, 3509]


def test_an_expired_token_and_a_limit_are_no_errors() -> None:
    """A client cannot know that its token has expired, and a limit has a bound of its own."""
    expired = subscription_token("ada", "news", exp=1)
    playbook = connected(context(error_limit=1, channel_limit=1))
    playbook >> requests(5, subscribe={"channel": "news", "token": expired})
    assert codes(playbook) == [109] * 5
    playbook >> {"id": 20, "subscribe": {"channel": "news"}} >> opened("news")
    playbook >> requests(5, 21, subscribe={"channel": "more"})
    assert codes(playbook) == [106] * 5


def test_errors_are_forgotten_within_the_window() -> None:
    """A client with a mistake that it makes seldom stays connected."""
    playbook = connected(context(error_limit=3, error_window=30))
    for number in range(20):
        playbook >> requests(1, 2 + number) >> Wait(10)
        if playbook.session.awaits_pong:
            playbook >> b"{}"
    assert not playbook.session.is_closed


def test_a_client_that_is_permitted_nothing_stays_connected() -> None:
    """By default it may try to subscribe to all its channels, and to read presence and history of each."""
    playbook = connected(context(error_window=1e9))
    for method in ("subscribe", "presence", "history"):
        playbook >> [{"id": n, method: {"channel": f"$private{n}"}} for n in range(2, 130)]
    assert not playbook.session.is_closed


def test_what_an_rpc_method_refuses_is_no_error() -> None:
    """An application may refuse with any code, as often as it wants."""
    playbook = connected(context(error_limit=1, rpc_methods=frozenset({"add"})))
    for number in range(2, 6):
        playbook >> {"id": number, "rpc": {"method": "add"}} >> Executed(number, errors.PERMISSION_DENIED)
        assert codes(playbook) == [103]


# ------------------------------------------------------------------------------------------ publications


def publish_all(playbook: Playbook, count: int, **request: Any) -> list[int]:
    """Publish so often; return the code of each reply."""
    found = []
    for number in range(10, 10 + count):
        playbook >> {"id": number, **(request or PUBLISHED)}
        if any(isinstance(effect, Execute) for effect in playbook.effects):
            playbook >> Executed(number, EMPTY)
        found += codes(playbook)
    return found


PUBLISHING = OPEN.model_copy(update={"allow_publish_for_client": True})


def test_a_user_publishes_user_publish_burst_times_at_once_and_not_once_more() -> None:
    """Its connections share the limit. Another user has one of its own."""
    reached: list[str] = []
    shared = context(PUBLISHING, user_publish_rate=10, user_publish_burst=3, reached=reached)
    first, second = connected(shared), connected(shared)
    assert publish_all(first, 2) == [0, 0]
    assert publish_all(second, 2) == [0, 111]
    second >> {"id": 30, **PUBLISHED} << [too_many(30, "more than 10 publications a second from this user")]
    assert publish_all(connected(shared, "bob"), 1) == [0]
    assert reached == ["client.user_publish_rate"] * 2


def test_a_channel_takes_publish_burst_publications_at_once_and_not_one_more() -> None:
    """Of all clients together. Other channels of the namespace are not concerned."""
    reached: list[str] = []
    options = PUBLISHING.model_copy(update={"publish_rate": 10, "publish_burst": 3})
    shared = context(OPEN, {"chat": options}, reached=reached)
    ada, bob = connected(shared), connected(shared, "bob")
    request = {"publish": {"channel": "chat:1", "data": 1}}
    assert publish_all(ada, 2, **request) == [0, 0]
    assert publish_all(bob, 1, **request) == [0]
    bob >> {"id": 9, **request} << [too_many(9, "more than 10 publications a second in this channel")]
    assert publish_all(bob, 1, publish={"channel": "chat:2", "data": 1}) == [0]
    assert reached == ["namespaces.chat.publish_rate"]


def test_a_publication_that_is_not_permitted_uses_nothing() -> None:
    """A stranger cannot use up the limit of a channel."""
    options = OPEN.model_copy(
        update={"allow_publish_for_subscriber": True, "publish_rate": 1, "publish_burst": 1}
    )
    shared = context(options)
    assert publish_all(connected(shared, "eve"), 3) == [103] * 3
    playbook = connected(shared) >> {"id": 2, "subscribe": {"channel": "news"}} >> opened("news")
    assert publish_all(playbook, 1) == [0]


# ------------------------------------------------------------------------------------------ new channels


def subscribe_and_leave(playbook: Playbook, names: list[str]) -> list[int]:
    """Subscribe to each channel and leave it; return the code of each subscribe reply."""
    found = []
    for number, name in enumerate(names, 10):
        playbook >> {"id": number, "subscribe": {"channel": name}}
        if any(isinstance(effect, OpenSubscriptions) for effect in playbook.effects):
            playbook >> opened(name)
        found += codes(playbook)
        playbook >> {"id": number + 1000, "unsubscribe": {"channel": name}}
    return found


def test_a_connection_makes_new_channel_burst_channels_at_once_and_not_one_more() -> None:
    """Channels without a subscriber cost the engine something, also the same one again and again."""
    reached: list[str] = []
    shared = context(new_channel_rate=10, new_channel_burst=3, reached=reached)
    playbook = connected(shared)
    assert subscribe_and_leave(playbook, ["a", "b", "a"]) == [0] * 3
    (
        playbook
        >> {"id": 9, "subscribe": {"channel": "c"}}
        << [too_many(9, "more than 10 new channels a second from this connection")]
    )
    assert reached == ["client.new_channel_rate"]
    playbook >> Wait(0.1) >> {"id": 10, "subscribe": {"channel": "c"}} << [Opening("c")]


def test_a_channel_with_subscribers_is_not_new() -> None:
    """It costs the engine nothing more."""
    playbook = connected(context(new_channel_burst=1, subscribers={"a": 2, "b": 1}))
    assert subscribe_and_leave(playbook, ["a", "b"] * 5) == [0] * 10


def test_a_user_makes_user_new_channel_burst_channels_at_once_and_not_one_more() -> None:
    """Its connections share the limit."""
    shared = context(user_new_channel_rate=10, user_new_channel_burst=3)
    assert subscribe_and_leave(connected(shared), ["a", "b"]) == [0, 0]
    assert subscribe_and_leave(connected(shared), ["c", "d"]) == [0, 111]
    assert subscribe_and_leave(connected(shared, "bob"), ["e"]) == [0]


def test_a_node_makes_new_channel_burst_channels_at_once_and_not_one_more() -> None:
    """All clients share the limit."""
    reached: list[str] = []
    shared = context(limits={"new_channel_rate": 10, "new_channel_burst": 3}, reached=reached)
    assert subscribe_and_leave(connected(shared), ["a", "b"]) == [0, 0]
    bob = connected(shared, "bob")
    assert subscribe_and_leave(bob, ["c"]) == [0]
    (
        bob
        >> {"id": 9, "subscribe": {"channel": "d"}}
        << [too_many(9, "more than 10 new channels a second on this node")]
    )
    assert reached == ["limits.new_channel_rate"]


def test_a_connect_command_for_too_many_new_channels_is_refused() -> None:
    """Its server-side subscriptions count. SDKs try again after 111."""
    shared = context(limits={"new_channel_rate": 1, "new_channel_burst": 3})
    first = new_connection(shared) >> {
        "id": 1,
        "connect": {"token": connection_token("ada", channels=["a", "b", "c"])},
    }
    first << [Identify("ada"), Opening("a", "b", "c")]
    second = new_connection(shared) >> {
        "id": 1,
        "connect": {"token": connection_token("bob", channels=["d"])},
    }
    second << [too_many(1, "more than 1 new channels a second on this node")]


def test_a_refused_subscription_uses_no_new_channel() -> None:
    """Nothing is subscribed for it."""
    playbook = connected(context(new_channel_burst=1, new_channel_rate=0.001))
    assert subscribe_and_leave(playbook, ["$private", "no:such", "a"]) == [103, 102, 0]


# ------------------------------------------------------------------------------------------- subscribers


@pytest.mark.parametrize(("count", "is_full"), [(0, False), (2, False), (3, True), (4, True)])
def test_a_channel_has_at_most_subscriber_limit_subscribers(count: int, is_full: bool) -> None:
    """Those being set up count. The refusal is final, as for the channels of a connection."""
    reached: list[str] = []
    options = OPEN.model_copy(update={"subscriber_limit": 3})
    shared = context(OPEN, {"chat": options}, subscribers={"chat:1": count}, reached=reached)
    playbook = connected(shared) >> {"id": 2, "subscribe": {"channel": "chat:1"}}
    if is_full:
        playbook << [error(2, 106, "limit exceeded: the channel has 3 subscribers on this node")]
        assert reached == ["namespaces.chat.subscriber_limit"]
    else:
        playbook << [Opening("chat:1")]


def test_a_token_subscribes_to_a_full_channel() -> None:
    """The server's own subscriptions are not limited."""
    options = OPEN.model_copy(update={"subscriber_limit": 1})
    playbook = new_connection(context(options, subscribers={"news": 1}))
    playbook >> {"id": 1, "connect": {"token": connection_token("ada", channels=["news"])}}
    playbook << [Identify("ada"), Opening("news")]
    playbook >> opened("news") >> events.ConnectionLost() << [Closing("news")]


def test_a_connect_command_with_more_positions_than_channels_is_closed() -> None:
    """Before any of them, and its token, is looked at. A connection never has as many subscriptions."""
    reached: list[str] = []
    for count in (2, 3):
        playbook = new_connection(context(channel_limit=2, reached=reached))
        subs: dict[str, Any] = {f"news{number}": {} for number in range(count)}
        playbook >> {"id": 1, "connect": {"token": connection_token("ada"), "subs": subs}}
    playbook << [Close(errors.CHANNEL_LIMIT)]
    assert reached == ["client.channel_limit"]
