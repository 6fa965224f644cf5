"""Connecting (protocol §3): who is let in, as whom, and with which subscriptions."""

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
from tocsin_server.config.options import ChannelOptions
from tocsin_server.core.events import (
    Close,
    ConnectionLost,
    GoLive,
    Identify,
    Received,
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


# -------------------------------------------------------------------------------------------------- who is it


def test_a_token_says_who_it_is() -> None:
    """The reply carries what an SDK needs: its id, the version, and the ping it has to expect."""
    new_connection() >> connect(token=connection_token("ada")) << [Identify("ada"), connect_reply()]


def test_the_id_of_the_command_is_the_id_of_the_reply() -> None:
    """SDKs go on counting after a reconnect, so a connection may begin with any id."""
    new_connection() >> connect(7, token=connection_token("ada")) << [Identify("ada"), connect_reply(7)]


def test_without_a_token_nobody_gets_in() -> None:
    """Unless the configuration opens the door."""
    new_connection() >> connect() << [Close(errors.PROTOCOL_VIOLATION)]


@pytest.mark.parametrize("door", [{"allow_anonymous": True}, {"insecure": True}])
def test_without_a_token_one_is_anonymous_where_that_is_allowed(door: dict[str, Any]) -> None:
    """Both ways of opening the door know the user as the empty name."""
    new_connection(context(**door)) >> connect() << [Identify(""), connect_reply()]


def test_a_token_without_a_subject_is_anonymous() -> None:
    """The application vouches for a connection without saying whose it is."""
    new_connection() >> connect(token=connection_token("")) << [Identify(""), connect_reply()]


@pytest.mark.parametrize(
    "token",
    [
        "garbage",
        connection_token("ada", secret="another secret, which is just as long as the right one"),
        subscription_token("ada", "news"),
        connection_token("ada", b64info="!!!"),
        connection_token("ada", channels=[""]),
        connection_token("ada", subs={"news": {"b64data": "e30x"}}),
    ],
    ids=["garbage", "foreign", "for a subscription", "bad info", "nameless channel", "bad data"],
)
def test_an_invalid_token_closes_without_a_reply(token: str) -> None:
    """Coming back with the same token would not help, so the code says don't."""
    new_connection(context(allow_anonymous=True)) >> connect(token=token) << [Close(errors.INVALID_TOKEN)]


@pytest.mark.parametrize("claims", [{"exp": NOW}, {"exp": NOW - 1}, {"nbf": NOW + 1}])
def test_a_token_out_of_its_time_is_an_error_that_a_fresh_token_mends(claims: dict[str, Any]) -> None:
    """109 makes an SDK fetch a new token and try again."""
    playbook = new_connection()
    playbook >> connect(token=connection_token("ada", **claims)) << [error(1, 109, "token expired")]


def test_a_connection_whose_expiry_has_passed_is_refused() -> None:
    """`expire_at` is decoupled from the token's own validity."""
    token = connection_token("ada", exp=NOW + 60, expire_at=NOW - 1)
    new_connection() >> connect(token=token) << [error(1, 110, "expired")]


def test_an_expiry_is_told_in_whole_seconds() -> None:
    """The client refreshes after `ttl` seconds."""
    token = connection_token("ada", exp=NOW + 60.9)
    new_connection() >> connect(token=token) << [Identify("ada"), connect_reply(expires=True, ttl=60)]


@pytest.mark.parametrize("exp", [2**53, NOW * 1_000, 1e300])
def test_an_expiry_that_nobody_will_see_is_told_as_the_longest_there_is(exp: float) -> None:
    """`ttl` has 32 bits. Milliseconds taken for seconds are a common mistake, and a harmless one."""
    playbook = new_connection()
    playbook >> connect(token=connection_token("ada", exp=exp))
    playbook << [Identify("ada"), connect_reply(expires=True, ttl=2**32 - 1)]
    playbook >> Wait(20) << [{}]


@pytest.mark.parametrize(("expire_at", "more"), [(0, {}), (NOW + 5, {"expires": True, "ttl": 5})])
def test_expire_at_decides_over_exp(expire_at: float, more: dict[str, Any]) -> None:
    """Zero means never."""
    token = connection_token("ada", exp=NOW + 60, expire_at=expire_at)
    new_connection() >> connect(token=token) << [Identify("ada"), connect_reply(**more)]


def test_an_insecure_server_drops_expiry() -> None:
    """Development is not interrupted by a token's end."""
    token = connection_token("ada", exp=NOW + 60)
    new_connection(context(insecure=True)) >> connect(token=token) << [Identify("ada"), connect_reply()]


def test_a_user_with_too_many_connections_is_turned_away() -> None:
    """The limit counts those of a named user; anonymous ones are nobody's."""
    full = context(user_connection_limit=2, connections=2, allow_anonymous=True)
    new_connection(full) >> connect(token=connection_token("ada")) << [Close(errors.CONNECTION_LIMIT)]
    new_connection(full) >> connect() << [Identify(""), connect_reply()]


def test_the_token_says_what_others_may_see_of_the_connection() -> None:
    """`info` as JSON or in base64, both as they are."""
    for claims in ({"info": {"name": "Ada"}}, {"b64info": "eyJuYW1lIjogIkFkYSJ9"}):
        playbook = new_connection()
        playbook >> connect(token=connection_token("ada", **claims))
        assert bytes(playbook.session.info.conn_info).replace(b" ", b"") == b'{"name":"Ada"}'


def test_transports_without_pings_promise_none() -> None:
    """An event stream has a keep-alive of its own, and its peer cannot answer."""
    silent = new_connection(sends_pings=False)
    silent >> connect(token=connection_token("ada")) << [Identify("ada"), connect_reply(ping=None, pong=None)]
    silent >> Wait(1000) << []
    one_way = new_connection(wants_pong=False)
    one_way >> connect(token=connection_token("ada")) << [Identify("ada"), connect_reply(pong=None)]


# ------------------------------------------------------------------------------------------ out of turn


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
def test_nothing_but_connect_may_come_first(command: dict[str, Any]) -> None:
    """Neither another command, nor one of no known kind, nor a pong."""
    new_connection(context(insecure=True)) >> command << [Close(errors.PROTOCOL_VIOLATION)]


def test_a_second_connect_closes() -> None:
    """A connection is one user's, once."""
    connected() >> connect(2, token=connection_token("ada")) << [Close(errors.PROTOCOL_VIOLATION)]


def test_a_connect_without_an_id_is_an_unsolicited_pong() -> None:
    """A command without an id is a pong, whatever else it carries (§2)."""
    new_connection(context(insecure=True)) >> {"connect": {}} << [Close(errors.PROTOCOL_VIOLATION)]


def test_the_rest_of_a_frame_is_dropped_once_connect_is_refused() -> None:
    """An SDK that pipelines its subscribes must get to fetch a new token, not be sent away for good."""
    playbook = new_connection()
    frame = [connect(token=connection_token("ada", exp=NOW - 1)), {"id": 2, "subscribe": {"channel": "news"}}]
    playbook >> frame << [error(1, 109, "token expired")]
    playbook >> {"id": 3, "subscribe": {"channel": "news"}} << [Close(errors.PROTOCOL_VIOLATION)]


def test_a_transport_s_own_commands_end_with_a_refused_connect_too() -> None:
    """A transport that speaks for its peer hands over connect and subscribes at once."""
    commands = [
        Command(id=1, connect=ConnectRequest(token=connection_token("ada", exp=NOW - 1))),
        Command(id=2, subscribe=SubscribeRequest(channel="news")),
    ]
    new_connection() >> Received(commands) << [error(1, 109, "token expired")]


def test_a_refused_connection_that_stays_is_stale() -> None:
    """An SDK closes it itself; whoever does not is closed when its time to connect is over."""
    playbook = new_connection()
    playbook >> connect(token=connection_token("ada", exp=NOW - 1))
    playbook >> Wait(9.9) << []
    playbook >> Wait(0.1) << [Close(errors.STALE)]


def test_a_pong_after_a_refused_connect_closes() -> None:
    """Any later frame does."""
    playbook = new_connection()
    playbook >> connect(token=connection_token("ada", exp=NOW - 1))
    playbook >> {} << [Close(errors.PROTOCOL_VIOLATION)]


# -------------------------------------------------------------------------------- server-side subscriptions


def test_a_token_may_subscribe_its_connection() -> None:
    """The channels of the claim are entered together before the reply, whatever clients may do there."""
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


def test_subs_win_over_channels_and_carry_info_data_and_options() -> None:
    """What the token says about one channel holds for that channel."""
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
    """The application granted what the configuration does not know."""
    token = connection_token("ada", channels=["nowhere:news"])
    new_connection() >> connect(token=token) << [error(1, 102, "unknown channel")]


def test_a_user_is_in_its_personal_channel_where_that_is_configured() -> None:
    """Anonymous users have none."""
    personal = context(personal_channel=True, allow_anonymous=True)
    new_connection(personal) >> connect(token=connection_token("17")) << [Identify("17"), Opening("#17")]
    new_connection(personal) >> connect() << [Identify(""), connect_reply()]
    spaced = context(namespaces={"me": OPEN}, personal_channel=True, personal_channel_namespace="me")
    new_connection(spaced) >> connect(token=connection_token("17")) << [Identify("17"), Opening("me:#17")]


def test_too_many_server_side_subscriptions_close() -> None:
    """The limit is the same for both sides' subscriptions; as many as it says are admitted."""
    token = connection_token("ada", channels=["a", "b", "c"])
    new_connection(context(channel_limit=2)) >> connect(token=token) << [Close(errors.CHANNEL_LIMIT)]
    (
        new_connection(context(channel_limit=3))
        >> connect(token=token)
        << [Identify("ada"), Opening("a", "b", "c")]
    )


def test_what_a_client_had_and_may_still_have_it_has_again() -> None:
    """Channels it may not subscribe to by itself are passed over, and so are names that will not do."""
    had = {name: {"recover": True} for name in ("news", "$secret", "ünïcode", "x" * 256)}
    playbook = new_connection()
    playbook >> connect(token=connection_token("ada"), subs=had) << [Identify("ada"), Opening("news")]


def test_what_a_token_grants_is_what_it_says_whatever_the_client_had() -> None:
    """Naming its channel adds a position, and takes nothing of its data and options."""
    playbook = new_connection(context(WITH_HISTORY))
    sub = {"data": {"topic": "x"}, "override": {"join_leave": {"value": True}}}
    token = connection_token("ada", subs={"news": sub})
    playbook >> connect(token=token, subs={"news": {"recover": True, "offset": 5, "epoch": EPOCH}})
    playbook >> opened(news=history_at(5))
    told = {"recoverable": True, "positioned": True, "epoch": EPOCH, "offset": 5, "data": {"topic": "x"}}
    told |= {"recovered": True, "was_recovering": True}
    playbook << [connect_reply(subs={"news": told}), GoLive("news", 5), Joining("news")]


@pytest.mark.parametrize("name", ["nowhere:news", ""])
def test_what_a_client_cannot_have_had_closes(name: str) -> None:
    """A channel of no configured namespace, or without a name."""
    playbook = new_connection(context(insecure=True))
    playbook >> connect(subs={name: {}}) << [Close(errors.PROTOCOL_VIOLATION)]


def test_server_side_subscriptions_recover() -> None:
    """Each from its own position; what cannot be recovered begins at the top and says so."""
    playbook = new_connection(context(WITH_HISTORY))
    token = connection_token("ada", channels=["here", "lost", "fresh"])
    had = {
        "here": {"recover": True, "offset": 2, "epoch": "abcdefgh"},
        "lost": {"recover": True, "offset": 1},
    }
    playbook >> connect(token=token, subs=had)
    reads = {entry.channel: entry.read for entry in playbook.effects[1].plans}  # type: ignore[union-attr]
    assert {name: what and what.since for name, what in reads.items()} == {
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


def test_joins_are_announced_after_the_connect_reply() -> None:
    """So a client sees its own join in a channel that it knows of."""
    playbook = new_connection(context(WITH_JOINS))
    playbook >> connect(token=connection_token("ada", channels=["news"]))
    playbook >> opened("news")
    playbook << [connect_reply(subs={"news": {}}), GoLive("news", receives_joins=True), Joining("news")]


# --------------------------------------------------------------------------- while the engine is being asked


def test_nothing_precedes_the_connect_reply() -> None:
    """What was pipelined behind it runs when it is through."""
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


def test_a_connection_whose_channels_cannot_be_entered_comes_back_later() -> None:
    """The engine's failure is the server's, and nothing is left entered."""
    playbook = new_connection()
    playbook >> connect(token=connection_token("ada", channels=["a", "b"]))
    playbook >> opening_failed("a", "b") << [Close(errors.SERVER_ERROR), Closing("a"), Closing("b")]


def test_an_engine_that_does_not_answer_in_time_is_not_the_client_s_fault() -> None:
    """It is told to come back, not that it was silent; what was being entered is left once it is through."""
    playbook = new_connection()
    playbook >> connect(token=connection_token("ada", channels=["a"]))
    playbook >> Wait(10) << [Close(errors.SERVER_ERROR)]
    playbook >> opened("a") << [Closing("a")]


@pytest.mark.parametrize("through", [opened("a", "b"), opening_failed("a", "b")])
def test_a_connection_lost_while_connecting_leaves_what_it_was_entering_once(through: Any) -> None:
    """However the engine's answer turns out, and only then."""
    playbook = new_connection()
    playbook >> connect(token=connection_token("ada", channels=["a", "b"]))
    playbook >> ConnectionLost() << []
    playbook >> through << [Closing("a"), Closing("b")]
    playbook >> through << []


def test_an_unsubscribe_by_the_api_while_connecting_follows_the_reply() -> None:
    """The client learns of the subscription and then of its end."""
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


def test_a_refresh_by_the_api_while_connecting_is_told_by_the_reply() -> None:
    """No push precedes it."""
    playbook = new_connection()
    playbook >> connect(token=connection_token("ada", channels=["a"]))
    playbook >> ServerRefresh(expire_at=NOW + 30) << []
    playbook >> opened("a") << [connect_reply(expires=True, ttl=30, subs={"a": {}}), GoLive("a")]


def test_other_orders_of_the_api_while_connecting() -> None:
    """A subscribe finds nobody connected yet; a disconnect is obeyed at once."""
    playbook = new_connection()
    playbook >> connect(token=connection_token("ada", channels=["a"]))
    playbook >> ServerSubscribe("b") << []
    playbook >> ServerDisconnect(errors.FORCE_DISCONNECT) << [Close(errors.FORCE_DISCONNECT)]
    playbook >> opened("a") << [Closing("a")]


def test_whoever_never_connects_is_stale() -> None:
    """An open socket that says nothing costs memory."""
    playbook = new_connection()
    playbook >> Wait(9.9) << []
    playbook >> Wait(0.1) << [Close(errors.STALE)]
