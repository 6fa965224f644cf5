"""Connecting (protocol §3): user, expiry, limits, and server-side subscriptions."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.core.playbook import (
    EPOCH,
    OPEN,
    START,
    WITH_HISTORY,
    Closing,
    Joining,
    Opening,
    Wait,
    connect_reply,
    connected,
    context,
    error,
    history_at,
    new_connection,
    opened,
    opening_failed,
)
from tests.support.tokens import connection_token, subscription_token
from tocsin_server import errors
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core import events
from tocsin_server.core.events import (
    Close,
    ConnectionLost,
    GoLive,
    Identify,
    Received,
    ReserveConnection,
    ServerDisconnect,
    ServerRefresh,
    ServerSubscribe,
    ServerUnsubscribe,
)
from tocsin_server.protocol.messages import Command, ConnectRequest, Position, SubscribeRequest

NOW = START.unix
WITH_JOINS = ChannelOptions(join_leave=True, force_push_join_leave=True)


def connect(command_id: int = 1, **request: Any) -> dict[str, Any]:
    return {"id": command_id, "connect": request}


# -------------------------------------------------------------------------------------------- user and expiry


def test_a_token_names_the_user_of_a_connection() -> None:
    """The reply holds what an SDK needs: its client id, the version, and the ping interval."""
    new_connection() >> connect(token=connection_token("ada")) << [Identify("ada"), connect_reply()]


def test_the_reply_has_the_id_of_the_command() -> None:
    """SDKs continue to count after a reconnect, so a connection may begin with any id."""
    new_connection() >> connect(7, token=connection_token("ada")) << [Identify("ada"), connect_reply(7)]


def test_a_connect_without_a_token_is_refused() -> None:
    """Unless the configuration allows it."""
    new_connection() >> connect() << [Close(errors.PROTOCOL_VIOLATION)]


@pytest.mark.parametrize("option", [{"allow_anonymous": True}, {"insecure": True}])
def test_a_connect_without_a_token_is_anonymous_where_that_is_allowed(option: dict[str, Any]) -> None:
    """Both options give the connection the empty user."""
    new_connection(context(**option)) >> connect() << [Identify(""), connect_reply()]


def test_a_token_without_a_subject_is_anonymous() -> None:
    """The application vouches for a connection without naming its user."""
    new_connection() >> connect(token=connection_token("")) << [Identify(""), connect_reply()]


@pytest.mark.parametrize(
    "token",
    [
        "garbage",
        connection_token("ada", secret="another secret, which is just as long as the right one"),
        subscription_token("ada", "news"),
        connection_token("ada", b64info="!!!"),
        connection_token("ada", channels=[""]),
        connection_token("ada", subs={"news": {"b64data": "e3"}}),
    ],
    ids=["garbage", "foreign", "for a subscription", "bad info", "nameless channel", "bad data"],
)
def test_an_invalid_token_closes_without_a_reply(token: str) -> None:
    """A reconnect with the same token would fail too, so the code forbids it."""
    new_connection(context(allow_anonymous=True)) >> connect(token=token) << [Close(errors.INVALID_TOKEN)]


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ({"exp": NOW}, "token expired"),
        ({"exp": NOW - 1}, "token expired"),
        ({"nbf": NOW + 1}, "token expired: it is not valid yet"),
    ],
)
def test_a_token_outside_its_validity_is_an_error(claims: dict[str, Any], message: str) -> None:
    """An SDK fetches a new token after error 109, and tries again."""
    playbook = new_connection()
    playbook >> connect(token=connection_token("ada", **claims)) << [error(1, 109, message)]


@pytest.mark.parametrize("claims", [{"exp": NOW - 4}, {"nbf": NOW + 4}, {"expire_at": NOW - 4}])
def test_a_token_within_the_leeway_connects(claims: dict[str, Any]) -> None:
    """A connection that expires at once is refreshed by its client within `expired_close_delay`."""
    playbook = new_connection(context(token_leeway=5))
    playbook >> connect(token=connection_token("ada", **claims))
    expires = {} if "nbf" in claims else {"expires": True, "ttl": 1}
    playbook << [Identify("ada"), connect_reply(**expires)]


def test_a_connection_whose_expiry_has_passed_is_refused() -> None:
    """`expire_at` is independent of the token's own validity."""
    token = connection_token("ada", exp=NOW + 60, expire_at=NOW - 1)
    new_connection() >> connect(token=token) << [error(1, 110, "expired")]


def test_the_expiry_in_the_reply_is_in_whole_seconds() -> None:
    """The client refreshes after `ttl` seconds."""
    token = connection_token("ada", exp=NOW + 60.9)
    new_connection() >> connect(token=token) << [Identify("ada"), connect_reply(expires=True, ttl=60)]


@pytest.mark.parametrize("exp", [2**53, NOW * 1_000, 1e300])
def test_an_expiry_beyond_32_bits_is_the_largest_ttl(exp: float) -> None:
    """`ttl` has 32 bits. An `exp` in milliseconds is a common mistake, and harmless."""
    playbook = new_connection()
    playbook >> connect(token=connection_token("ada", exp=exp))
    playbook << [Identify("ada"), connect_reply(expires=True, ttl=2**32 - 1)]
    playbook >> Wait(20) << [{}]


@pytest.mark.parametrize(("expire_at", "more"), [(0, {}), (NOW + 5, {"expires": True, "ttl": 5})])
def test_expire_at_takes_precedence_over_exp(expire_at: float, more: dict[str, Any]) -> None:
    """Zero means never."""
    token = connection_token("ada", exp=NOW + 60, expire_at=expire_at)
    new_connection() >> connect(token=token) << [Identify("ada"), connect_reply(**more)]


def test_an_insecure_server_ignores_the_expiry_of_a_connection() -> None:
    """Development is not interrupted by an expired token."""
    token = connection_token("ada", exp=NOW + 60)
    new_connection(context(insecure=True)) >> connect(token=token) << [Identify("ada"), connect_reply()]


TOO_MANY = {
    "id": 1,
    "error": {
        "code": 106,
        "message": "limit exceeded: the limit of connections of a user is 2",
        "temporary": True,
    },
}


def test_a_connection_above_the_limit_of_its_user_is_refused_for_now() -> None:
    """One of the others may be that of a client without network. Anonymous connections have no limit."""
    at_limit = context(user_connection_limit=2, connections=2, allow_anonymous=True)
    new_connection(at_limit) >> connect(token=connection_token("ada")) << [TOO_MANY]
    new_connection(at_limit) >> connect() << [Identify(""), connect_reply()]


def test_a_connection_below_the_limit_of_this_node_is_reserved_on_all_nodes() -> None:
    """The connect reply, and the subscriptions of the token, follow the reservation."""
    limited = context(user_connection_limit=2, connections=1)
    token = connection_token("ada", channels=["news"])
    playbook = new_connection(limited) >> connect(token=token)
    playbook << [Identify("ada"), ReserveConnection("ada")]
    playbook >> events.ConnectionReserved() << [Opening("news")]
    playbook = new_connection(limited) >> connect(token=connection_token("ada"))
    playbook << [Identify("ada"), ReserveConnection("ada")]
    playbook >> events.ConnectionReserved() << [connect_reply()]
    playbook >> events.ConnectionReserved() << []


def test_a_reservation_may_be_refused() -> None:
    """The client is told, and may leave. If the engine fails, it comes back."""
    limited = context(user_connection_limit=2)
    for why, effect in (
        (errors.too_many_connections(2), TOO_MANY),
        (errors.SERVER_ERROR, Close(errors.SERVER_ERROR)),
    ):
        playbook = new_connection(limited) >> connect(token=connection_token("ada"))
        playbook >> events.ConnectionRefused(why) << [effect]


def test_a_reservation_that_ends_after_the_session_has_no_effect() -> None:
    """The node gives it back."""
    playbook = new_connection(context(user_connection_limit=2)) >> connect(token=connection_token("ada"))
    playbook >> events.ConnectionLost() << []
    playbook >> events.ConnectionReserved() << []


def test_a_token_carries_the_info_of_a_connection() -> None:
    """Other clients see it. It is kept as it is, in JSON or in base64."""
    for claims in ({"info": {"name": "Ada"}}, {"b64info": "eyJuYW1lIjogIkFkYSJ9"}):
        playbook = new_connection()
        playbook >> connect(token=connection_token("ada", **claims))
        assert bytes(playbook.session.info.conn_info).replace(b" ", b"") == b'{"name":"Ada"}'


def test_a_transport_without_pings_announces_none() -> None:
    """An event stream has its own keep-alive, and its client cannot send a pong."""
    without_pings = new_connection(sends_pings=False)
    (
        without_pings
        >> connect(token=connection_token("ada"))
        << [Identify("ada"), connect_reply(ping=None, pong=None)]
    )
    without_pings >> Wait(1000) << []
    without_pongs = new_connection(wants_pong=False)
    without_pongs >> connect(token=connection_token("ada")) << [Identify("ada"), connect_reply(pong=None)]


# -------------------------------------------------------------------------------------- commands out of order


@pytest.mark.parametrize(
    "command",
    [
        {"id": 1, "subscribe": {"channel": "news"}},
        {"id": 1, "unsubscribe": {"channel": "news"}},
        {"id": 1, "publish": {"channel": "news", "data": 1}},
        {"id": 1, "presence": {"channel": "news"}},
        {"id": 1, "rpc": {"method": "x"}},
        {"id": 1, "refresh": {"token": "x"}},
        {"send": {"data": 1}},
        {"id": 1},
        {"id": 1, "ping": {}},
        {},
    ],
)
def test_the_first_command_must_be_connect(command: dict[str, Any]) -> None:
    """Another command, an unknown command and a pong close the connection."""
    new_connection(context(insecure=True)) >> command << [Close(errors.PROTOCOL_VIOLATION)]


def test_a_second_connect_closes() -> None:
    """A connection has one user for its whole life."""
    connected() >> connect(2, token=connection_token("ada")) << [Close(errors.PROTOCOL_VIOLATION)]


def test_a_connect_without_an_id_is_an_unsolicited_pong() -> None:
    """A command without an id is a pong; its content does not matter (§2)."""
    new_connection(context(insecure=True)) >> {"connect": {}} << [Close(errors.PROTOCOL_VIOLATION)]


def test_the_rest_of_a_frame_is_dropped_once_connect_is_refused() -> None:
    """An SDK that sends subscribes behind its connect must be able to fetch a new token."""
    playbook = new_connection()
    frame = [connect(token=connection_token("ada", exp=NOW - 1)), {"id": 2, "subscribe": {"channel": "news"}}]
    playbook >> frame << [error(1, 109, "token expired")]
    playbook >> {"id": 3, "subscribe": {"channel": "news"}} << [Close(errors.PROTOCOL_VIOLATION)]


def test_the_commands_of_a_transport_end_with_a_refused_connect() -> None:
    """A transport whose client cannot send commands issues connect and subscribes at once."""
    commands = [
        Command(id=1, connect=ConnectRequest(token=connection_token("ada", exp=NOW - 1))),
        Command(id=2, subscribe=SubscribeRequest(channel="news")),
    ]
    new_connection() >> Received(commands) << [error(1, 109, "token expired")]


def test_a_refused_connection_that_stays_open_is_stale() -> None:
    """An SDK closes it itself; any other client is disconnected after the stale timeout."""
    playbook = new_connection()
    playbook >> connect(token=connection_token("ada", exp=NOW - 1))
    playbook >> Wait(9.9) << []
    playbook >> Wait(0.1) << [Close(errors.STALE)]


def test_a_pong_after_a_refused_connect_closes() -> None:
    """Every later frame does."""
    playbook = new_connection()
    playbook >> connect(token=connection_token("ada", exp=NOW - 1))
    playbook >> {} << [Close(errors.PROTOCOL_VIOLATION)]


# ---------------------------------------------------------------------------------- server-side subscriptions


def test_a_token_may_subscribe_its_connection() -> None:
    """The channels of the claim are subscribed before the reply; the permissions of clients do not matter."""
    playbook = new_connection(context(ChannelOptions()))
    token = connection_token("ada", channels=["news", "$private"])
    playbook >> connect(token=token) << [Identify("ada"), Opening("news", "$private")]
    (
        playbook
        >> opened("news", "$private")
        << [
            connect_reply(subs={"news": {}, "$private": {}}),
            GoLive("news"),
            GoLive("$private"),
        ]
    )


def test_subs_replace_channels_and_carry_info_data_and_options() -> None:
    """They apply to the one channel that they name."""
    playbook = new_connection(context(ChannelOptions()))
    sub = {"info": {"seat": 1}, "data": {"topic": "x"}, "override": {"join_leave": {"value": True}}}
    playbook >> connect(token=connection_token("ada", channels=["old"], subs={"news": sub}))
    playbook << [Identify("ada"), Opening("news")]
    (
        playbook
        >> opened("news")
        << [
            connect_reply(subs={"news": {"data": {"topic": "x"}}}),
            GoLive("news"),
            Joining("news"),
        ]
    )


def test_a_server_side_subscription_in_an_unknown_namespace_is_refused() -> None:
    """The token names a namespace that the configuration does not have."""
    token = connection_token("ada", channels=["nowhere:news"])
    new_connection() >> connect(token=token) << [error(1, 102, "unknown channel")]


@pytest.mark.parametrize("user", ["urn:uuid:1", "CN=Ann,OU=Sales", "a#b", "Jürgen", "auth0|5f7c"])
def test_a_personal_channel_has_the_whole_id_of_its_user(user: str) -> None:
    """Identity providers issue ids with separators, and with letters beyond ASCII."""
    playbook = new_connection(context(personal_channel=True))
    playbook >> connect(token=connection_token(user)) << [Identify(user), Opening(f"#{user}")]


@pytest.mark.parametrize(
    ("channels", "user", "reason"),
    [
        (OPEN, "x" * 255, "the channel's name is longer than 255 bytes"),
        (
            OPEN.model_copy(update={"channel_regex": "^[a-z]+$"}),
            "42",
            "the channel's name does not match channel_regex",
        ),
    ],
)
def test_a_user_whose_personal_channel_is_invalid_is_refused(
    channels: ChannelOptions, user: str, reason: str
) -> None:
    """Otherwise every publication into that channel would be refused, and the user would not know."""
    message = f"bad request: {reason}: it is the user's personal channel"
    playbook = new_connection(context(channels, personal_channel=True))
    playbook >> connect(token=connection_token(user)) << [error(1, 107, message)]


@pytest.mark.parametrize("claim", ["channels", "subs"])
def test_a_token_with_an_invalid_channel_is_refused(claim: str) -> None:
    """No publication could reach it."""
    claims: dict[str, Any] = {"channels": {"channels": ["größe"]}, "subs": {"subs": {"größe": {}}}}
    token = connection_token("ada", **claims[claim])
    message = "bad request: the channel's name has characters beyond ASCII"
    new_connection() >> connect(token=token) << [error(1, 107, message)]


def test_a_user_is_subscribed_to_its_personal_channel_where_that_is_configured() -> None:
    """Anonymous users have none."""
    personal = context(personal_channel=True, allow_anonymous=True)
    new_connection(personal) >> connect(token=connection_token("17")) << [Identify("17"), Opening("#17")]
    new_connection(personal) >> connect() << [Identify(""), connect_reply()]
    with_namespace = context(namespaces={"me": OPEN}, personal_channel=True, personal_channel_namespace="me")
    (
        new_connection(with_namespace)
        >> connect(token=connection_token("17"))
        << [Identify("17"), Opening("me:#17")]
    )


def test_too_many_server_side_subscriptions_close() -> None:
    """The limit counts client-side and server-side subscriptions together."""
    token = connection_token("ada", channels=["a", "b", "c"])
    new_connection(context(channel_limit=2)) >> connect(token=token) << [Close(errors.CHANNEL_LIMIT)]
    (
        new_connection(context(channel_limit=3))
        >> connect(token=token)
        << [Identify("ada"), Opening("a", "b", "c")]
    )


def test_a_reconnecting_client_is_subscribed_again_to_permitted_channels() -> None:
    """Channels that it may not subscribe to are left out, and so are invalid names."""
    positions = {name: {"recover": True} for name in ("news", "$secret", "ünïcode", "x" * 256)}
    playbook = new_connection()
    playbook >> connect(token=connection_token("ada"), subs=positions) << [Identify("ada"), Opening("news")]


def test_a_client_s_position_does_not_change_the_grant_of_its_token() -> None:
    """The position is used; data and options stay those of the token."""
    playbook = new_connection(context(WITH_HISTORY))
    sub = {"data": {"topic": "x"}, "override": {"join_leave": {"value": True}}}
    token = connection_token("ada", subs={"news": sub})
    playbook >> connect(token=token, subs={"news": {"recover": True, "offset": 5, "epoch": EPOCH}})
    playbook >> opened(news=history_at(5))
    granted = {"recoverable": True, "positioned": True, "epoch": EPOCH, "offset": 5, "data": {"topic": "x"}}
    granted |= {"recovered": True, "was_recovering": True}
    playbook << [connect_reply(subs={"news": granted}), GoLive("news", 5), Joining("news")]


@pytest.mark.parametrize("name", ["nowhere:news", ""])
def test_a_position_in_an_impossible_channel_closes(name: str) -> None:
    """A channel without a name, or in a namespace that is not configured."""
    playbook = new_connection(context(insecure=True))
    playbook >> connect(subs={name: {}}) << [Close(errors.PROTOCOL_VIOLATION)]


def test_server_side_subscriptions_recover() -> None:
    """Each from its own position. One that cannot recover begins at the top, and the reply says so."""
    playbook = new_connection(context(WITH_HISTORY))
    token = connection_token("ada", channels=["here", "lost", "fresh"])
    positions = {
        "here": {"recover": True, "offset": 2, "epoch": "abcdefgh"},
        "lost": {"recover": True, "offset": 1},
    }
    playbook >> connect(token=token, subs=positions)
    plans = {entry.channel: entry.read for entry in playbook.effects[1].plans}  # type: ignore[union-attr]
    assert {name: read and read.since for name, read in plans.items()} == {
        "here": Position(2, "abcdefgh"),
        "lost": Position(1, ""),
        "fresh": None,
    }
    playbook >> opened(here=history_at(4, 3, 4), lost=history_at(9, 8, 9), fresh=history_at(5))
    granted = {"recoverable": True, "positioned": True, "epoch": "abcdefgh"}
    subs = {
        "here": {
            **granted,
            "offset": 2,
            "recovered": True,
            "was_recovering": True,
            "publications": [{"data": 3, "offset": 3}, {"data": 4, "offset": 4}],
        },
        "lost": {**granted, "offset": 9, "was_recovering": True},
        "fresh": {**granted, "offset": 5},
    }
    playbook << [connect_reply(subs=subs), GoLive("here", 4), GoLive("lost", 9), GoLive("fresh", 5)]


def test_joins_are_published_after_the_connect_reply() -> None:
    """So a client receives its own join in a channel that it knows already."""
    playbook = new_connection(context(WITH_JOINS))
    playbook >> connect(token=connection_token("ada", channels=["news"]))
    playbook >> opened("news")
    playbook << [connect_reply(subs={"news": {}}), GoLive("news", receives_joins=True), Joining("news")]


# ----------------------------------------------------------------------- while subscriptions are being set up


def test_commands_behind_a_connect_run_after_its_reply() -> None:
    """They wait in the backlog."""
    playbook = new_connection()
    token = connection_token("ada", channels=["mine"])
    playbook >> [connect(token=token), {"id": 2, "unsubscribe": {"channel": "x"}}]
    playbook << [Identify("ada"), Opening("mine")]
    playbook >> {"id": 3, "subscribe": {"channel": "news"}} << []
    (
        playbook
        >> opened("mine")
        << [
            connect_reply(subs={"mine": {}}),
            GoLive("mine"),
            {"id": 2, "unsubscribe": {}},
            Opening("news"),
        ]
    )


def test_an_engine_failure_during_connect_closes_the_connection() -> None:
    """The code lets the client reconnect. No subscription is left."""
    playbook = new_connection()
    playbook >> connect(token=connection_token("ada", channels=["a", "b"]))
    playbook >> opening_failed("a", "b") << [Close(errors.SERVER_ERROR), Closing("a"), Closing("b")]


def test_an_engine_without_an_answer_in_time_is_a_server_error() -> None:
    """The client reconnects. The subscriptions are closed when the engine answers."""
    playbook = new_connection()
    playbook >> connect(token=connection_token("ada", channels=["a"]))
    playbook >> Wait(10) << [Close(errors.SERVER_ERROR)]
    playbook >> opened("a") << [Closing("a")]


@pytest.mark.parametrize("answer", [opened("a", "b"), opening_failed("a", "b")])
def test_a_connection_lost_while_connecting_closes_its_subscriptions_once(answer: Any) -> None:
    """After the engine's answer, success or failure."""
    playbook = new_connection()
    playbook >> connect(token=connection_token("ada", channels=["a", "b"]))
    playbook >> ConnectionLost() << []
    playbook >> answer << [Closing("a"), Closing("b")]
    playbook >> answer << []


def test_an_unsubscribe_by_the_api_while_connecting_follows_the_reply() -> None:
    """The client learns of the subscription, and then of its end."""
    playbook = new_connection()
    playbook >> connect(token=connection_token("ada", channels=["a"]))
    playbook >> ServerUnsubscribe("a") << []
    (
        playbook
        >> opened("a")
        << [
            connect_reply(subs={"a": {}}),
            GoLive("a"),
            Closing("a"),
            {"push": {"channel": "a", "unsubscribe": {"code": 2000, "reason": "server unsubscribe"}}},
        ]
    )


def test_a_refresh_by_the_api_while_connecting_is_in_the_reply() -> None:
    """No push precedes the reply."""
    playbook = new_connection()
    playbook >> connect(token=connection_token("ada", channels=["a"]))
    playbook >> ServerRefresh(expire_at=NOW + 30) << []
    playbook >> opened("a") << [connect_reply(expires=True, ttl=30, subs={"a": {}}), GoLive("a")]


def test_a_subscribe_and_a_disconnect_by_the_api_while_connecting() -> None:
    """The subscribe does nothing, since no client is connected yet; the disconnect closes at once."""
    playbook = new_connection()
    playbook >> connect(token=connection_token("ada", channels=["a"]))
    playbook >> ServerSubscribe("b") << []
    playbook >> ServerDisconnect(errors.FORCE_DISCONNECT) << [Close(errors.FORCE_DISCONNECT)]
    playbook >> opened("a") << [Closing("a")]


def test_a_connection_without_a_connect_command_is_stale() -> None:
    """It would otherwise cost memory for ever."""
    playbook = new_connection()
    playbook >> Wait(9.9) << []
    playbook >> Wait(0.1) << [Close(errors.STALE)]


def test_subscriptions_that_a_limit_refuses_refuse_the_connect() -> None:
    """With the words of the limit. Subscriptions that were set up are closed."""
    why = errors.because(errors.LIMIT_EXCEEDED, "the channel has 1 presence entries")
    playbook = new_connection() >> connect(token=connection_token("ada", channels=["news", "chat"]))
    playbook << [Identify("ada"), Opening("news", "chat")]
    playbook >> events.SubscriptionsFailed(["news", "chat"], why)
    playbook << [error(1, why.code, why.message), Closing("news"), Closing("chat")]
