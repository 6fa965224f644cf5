"""Deadlines (protocol §4, §6): pings and pongs, expiry and refresh of connections and subscriptions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from tests.server.core.playbook import (
    OPEN,
    START,
    Closing,
    Opening,
    Playbook,
    Wait,
    connect_reply,
    connected,
    context,
    error,
    new_connection,
    opened,
    subscribed_by_token,
    unsubscribe_push,
)
from tests.support.tokens import connection_token, subscription_token
from tocsin_server import errors
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core.events import (
    Authorized,
    Close,
    ConnectionLost,
    DeadlineReached,
    Executed,
    GoLive,
    Identify,
    ServerSubscribe,
)
from tocsin_server.protocol.messages import PublishRequest

NOW = START.unix
PING: dict[str, Any] = {}
PONG: dict[str, Any] = {}
RARE_PINGS: dict[str, Any] = {"ping_interval": 10_000, "pong_timeout": 9_000}
"""Pings are so rare that only other deadlines come."""


def refresh(token: str, command_id: int = 3) -> dict[str, Any]:
    return {"id": command_id, "refresh": {"token": token}}


def sub_refresh(token: str = "", channel: str = "news", command_id: int = 3) -> dict[str, Any]:
    return {"id": command_id, "sub_refresh": {"channel": channel, "token": token}}


def expiring(seconds: float, session_context: Any = None, **claims: Any) -> Playbook:
    """Return a connection whose subscription to `news` expires in so many seconds."""
    playbook = connected(session_context or context(**RARE_PINGS))
    token = subscription_token("ada", "news", exp=NOW + seconds, **claims)
    playbook >> {"id": 2, "subscribe": {"channel": "news", "token": token}} << [Opening("news")]
    playbook >> opened("news")
    return playbook


# ---------------------------------------------------------------------------------------------- ping and pong


@pytest.mark.parametrize(("phase", "first"), [(0.5, 12.5), (0.75, 18.75), (0.99, 24.75)])
def test_the_first_ping_falls_in_the_interval_as_ping_phase_says(phase: float, first: float) -> None:
    """So clients that connected together are not pinged together. The next pings follow at the interval."""
    playbook = new_connection(ping_phase=phase)
    playbook >> {"id": 1, "connect": {"token": connection_token("ada")}}
    playbook >> Wait(first - 0.01) << []
    playbook >> Wait(0.01) << [PING]
    playbook >> PONG << []
    playbook >> Wait(24.99) << []
    playbook >> Wait(0.01) << [PING]


def test_a_client_that_sends_no_pong_is_disconnected() -> None:
    """Its connection is probably dead. The code lets it reconnect."""
    playbook = connected()
    playbook >> Wait(18.75) << [PING]
    assert playbook.session.awaits_pong
    playbook >> Wait(7.9) << []
    playbook >> Wait(0.1) << [Close(errors.NO_PONG)]


def test_a_command_does_not_replace_a_pong() -> None:
    """An SDK answers every ping."""
    playbook = connected()
    playbook >> Wait(18.75) << [PING]
    playbook >> {"id": 2, "unsubscribe": {"channel": "x"}} << [{"id": 2, "unsubscribe": {}}]
    playbook >> Wait(8) << [Close(errors.NO_PONG)]


def waiting(kind: type | None, **command: Any) -> Playbook:
    """Return a connection of which one command runs, and two wait. Hooks decide about this kind."""
    options = OPEN.model_copy(update={"allow_publish_for_client": True})
    session_context = replace(
        context(options, rpc_methods=frozenset({"now"})),
        needs_authorization=lambda request: type(request) is kind,
        authorization_seconds=40,
    )
    playbook = connected(session_context)
    return playbook >> [{"id": number, **command} for number in (2, 3, 4)]


def test_no_pong_is_missing_while_a_hook_decides_and_commands_wait() -> None:
    """The transport reads no further, so that the pongs may be unread. Afterwards each of them counts."""
    playbook = waiting(PublishRequest, publish={"channel": "news", "data": 1}) >> Wait(18.75) << [PING]
    playbook >> Wait(20) << []
    playbook >> Authorized(1, errors.PERMISSION_DENIED)
    playbook >> Wait(4.9) << []
    playbook >> Wait(10) << [PING]
    playbook >> Authorized(2, errors.PERMISSION_DENIED)
    assert not playbook.session.has_waiting_commands
    playbook >> PONG >> PONG << []
    playbook >> Wait(15.1) << [PING]
    playbook >> Wait(8) << [Close(errors.NO_PONG)]


def test_after_a_hook_has_decided_the_time_for_a_pong_begins_again() -> None:
    playbook = waiting(PublishRequest, publish={"channel": "news", "data": 1}) >> Wait(38) << [PING]
    playbook >> Authorized(1, errors.PERMISSION_DENIED)
    playbook >> Authorized(2, errors.PERMISSION_DENIED) >> Authorized(3, errors.PERMISSION_DENIED)
    playbook >> Wait(5) << []
    playbook >> Wait(3) << [PING]
    playbook >> Wait(8) << [Close(errors.NO_PONG)]


def test_no_pong_is_missing_while_a_command_is_executed_and_others_wait() -> None:
    """A method of the application may take longer than `pong_timeout`. Afterwards the pongs count again."""
    playbook = waiting(None, rpc={"method": "now"}) >> Wait(18.75) << [PING]
    playbook >> Wait(20) >> Executed(2, errors.INTERNAL_ERROR) >> Wait(20) << [PING]
    playbook >> Executed(3, errors.INTERNAL_ERROR)
    assert not playbook.session.has_waiting_commands
    playbook >> PONG >> PONG << []
    playbook >> Wait(10) << [PING]
    playbook >> Wait(8) << [Close(errors.NO_PONG)]


def test_a_command_that_is_executed_does_not_replace_a_pong() -> None:
    """While no other command waits, the transport reads, so that a pong would have come."""
    playbook = connected(context(OPEN, rpc_methods=frozenset({"now"})))
    playbook >> {"id": 2, "rpc": {"method": "now"}} >> Wait(18.75) << [PING]
    playbook >> Wait(8) << [Close(errors.NO_PONG)]


def test_a_pong_without_a_ping_closes() -> None:
    """It violates the protocol."""
    connected() >> PONG << [Close(errors.PROTOCOL_VIOLATION)]
    playbook = connected()
    playbook >> Wait(18.75) << [PING]
    playbook >> [PONG, PONG] << [Close(errors.PROTOCOL_VIOLATION)]


def test_a_command_without_an_id_is_a_pong() -> None:
    """Its content does not matter."""
    playbook = connected()
    playbook >> Wait(18.75) << [PING]
    playbook >> {"subscribe": {"channel": "news"}} << []
    playbook >> Wait(20) << []


def test_pings_are_sent_while_a_subscription_is_set_up() -> None:
    """The client's own timer runs meanwhile."""
    playbook = connected()
    playbook >> {"id": 2, "subscribe": {"channel": "news"}} << [Opening("news")]
    playbook >> Wait(18.75) << [PING]


def test_a_client_that_cannot_send_pongs_is_pinged() -> None:
    """The session expects no pong of it."""
    playbook = new_connection(wants_pong=False)
    playbook >> {"id": 1, "connect": {"token": connection_token("ada")}}
    playbook >> Wait(70) << [PING, PING, PING]


def test_the_announced_ping_interval_is_at_least_one_second() -> None:
    """It is in whole seconds; zero would mean that no pings come."""
    for interval, announced in ((0.2, 1), (1.4, 1), (25.6, 26)):
        playbook = new_connection(context(ping_interval=interval, pong_timeout=0.1))
        playbook >> {"id": 1, "connect": {"token": connection_token("ada")}}
        playbook << [Identify("ada"), connect_reply(ping=announced)]


# ------------------------------------------------------------------------------------- expiry of a connection


def test_a_connection_without_a_refresh_is_closed_some_time_after_its_expiry() -> None:
    """The delay leaves time for a refresh in flight."""
    playbook = connected(context(**RARE_PINGS), exp=NOW + 60)
    playbook >> Wait(84.9) << []
    playbook >> Wait(0.1) << [Close(errors.CONNECTION_EXPIRED)]


def test_a_refresh_moves_the_expiry() -> None:
    """Also after the expiry, within the delay."""
    playbook = connected(context(**RARE_PINGS), exp=NOW + 60)
    playbook >> Wait(70) << []
    playbook >> refresh(connection_token("ada", exp=NOW + 170))
    playbook << [{"id": 3, "refresh": {"client": "c1", "version": "1.0", "expires": True, "ttl": 100}}]
    playbook >> Wait(124.9) << []
    playbook >> Wait(0.1) << [Close(errors.CONNECTION_EXPIRED)]


def test_a_refresh_without_an_expiry_ends_expiry() -> None:
    """The new token has no `exp`."""
    playbook = connected(context(**RARE_PINGS), exp=NOW + 60)
    playbook >> refresh(connection_token("ada"))
    playbook << [{"id": 3, "refresh": {"client": "c1", "version": "1.0"}}]
    playbook >> Wait(1_000) << []


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("", errors.PROTOCOL_VIOLATION),
        ("garbage", errors.INVALID_TOKEN),
        (connection_token("bob"), errors.INVALID_TOKEN),
        (subscription_token("ada", "news"), errors.INVALID_TOKEN),
        (connection_token("ada", exp=NOW), errors.CONNECTION_EXPIRED),
        (connection_token("ada", exp=NOW + 60, expire_at=NOW - 1), errors.CONNECTION_EXPIRED),
        (connection_token("ada", channels=["news"]), errors.INSUFFICIENT_STATE),
    ],
    ids=["empty", "garbage", "another user", "for a subscription", "expired", "ended", "other channels"],
)
def test_an_invalid_refresh_closes(token: str, why: errors.Disconnect) -> None:
    """After a change of server-side channels the client reconnects, and gets the new ones."""
    connected(exp=NOW + 60) >> refresh(token) << [Close(why)]


def test_a_refresh_with_the_same_channels_keeps_them() -> None:
    """Also in another order, or as `subs`."""
    playbook = subscribed_by_token(context(**RARE_PINGS), exp=NOW + 60)
    playbook >> refresh(connection_token("ada", subs={"news": {}}))
    playbook << [{"id": 3, "refresh": {"client": "c1", "version": "1.0"}}]


def test_a_refresh_replaces_the_info() -> None:
    """Other clients see it from then on."""
    playbook = connected(info={"name": "Ada"})
    playbook >> refresh(connection_token("ada", info={"name": "Ada Lovelace"}))
    assert bytes(playbook.session.info.conn_info) == b'{"name":"Ada Lovelace"}'


def test_an_insecure_server_ignores_a_refresh_s_expiry() -> None:
    """As it does at connect."""
    playbook = connected(context(insecure=True, **RARE_PINGS))
    playbook >> refresh(connection_token("ada", exp=NOW + 60))
    playbook << [{"id": 3, "refresh": {"client": "c1", "version": "1.0"}}]
    playbook >> Wait(1_000) << []


# ----------------------------------------------------------------------------------- expiry of a subscription


def test_a_subscription_without_a_refresh_ends_some_time_after_its_expiry() -> None:
    """The client subscribes again by itself, with a fresh token."""
    playbook = expiring(60)
    playbook >> Wait(84.9) << []
    playbook >> Wait(0.1) << [Closing("news"), unsubscribe_push("news", 2501, "subscription expired")]
    assert playbook.session.deadline is not None


def test_a_subscription_that_expires_during_set_up_ends_after_its_reply() -> None:
    """The client must know of the subscription before it ends."""
    playbook = connected(context(**RARE_PINGS))
    token = subscription_token("ada", "news", exp=NOW + 60)
    playbook >> {"id": 2, "subscribe": {"channel": "news", "token": token}} << [Opening("news")]
    playbook >> Wait(100) << []
    (
        playbook
        >> opened("news")
        << [
            {"id": 2, "subscribe": {}},
            GoLive("news"),
            Closing("news"),
            unsubscribe_push("news", 2501, "subscription expired"),
        ]
    )


def test_a_server_side_subscription_that_expires_closes_the_connection() -> None:
    """Only a new connection can make it again."""
    playbook = connected(context(**RARE_PINGS))
    playbook >> ServerSubscribe("news", expire_at=NOW + 60) << [Opening("news")]
    playbook >> opened("news")
    playbook >> Wait(85) << [Close(errors.SUBSCRIPTION_EXPIRED), Closing("news")]


def test_a_server_side_subscription_that_expired_before_it_was_set_up_is_told_first() -> None:
    """The client gets the push, however long the set-up takes, and is then disconnected."""
    playbook = connected(context(**RARE_PINGS))
    playbook >> ServerSubscribe("news", expire_at=NOW - 60) << [Opening("news")]
    playbook >> Wait(50) << []
    playbook >> opened("news")
    playbook >> Wait(0) << [Close(errors.SUBSCRIPTION_EXPIRED), Closing("news")]


def test_a_sub_refresh_moves_the_expiry() -> None:
    """To the new token's expiry, or to none."""
    playbook = expiring(60)
    playbook >> sub_refresh(subscription_token("ada", "news", exp=NOW + 100))
    playbook << [{"id": 3, "sub_refresh": {"expires": True, "ttl": 100}}]
    playbook >> Wait(124.9) << []
    playbook >> sub_refresh(subscription_token("ada", "news"), command_id=4)
    playbook << [{"id": 4, "sub_refresh": {}}]
    playbook >> Wait(1_000) << []


@pytest.mark.parametrize(
    ("command", "effect"),
    [
        (sub_refresh("x", ""), Close(errors.PROTOCOL_VIOLATION)),
        (sub_refresh("x", "other"), error(3, 103, "permission denied")),
        (sub_refresh(""), error(3, 107, "bad request: there is no token")),
        (sub_refresh(subscription_token("ada", "news", exp=NOW)), error(3, 109, "token expired")),
        (
            sub_refresh(subscription_token("ada", "news", exp=NOW + 9, expire_at=NOW - 1)),
            error(3, 110, "expired"),
        ),
        (sub_refresh("garbage"), Close(errors.INVALID_TOKEN)),
        (sub_refresh(subscription_token("ada", "other")), Close(errors.INVALID_TOKEN)),
        (sub_refresh(subscription_token("bob", "news")), Close(errors.INVALID_TOKEN)),
    ],
    ids=["nameless", "not in it", "empty", "expired", "ended", "garbage", "another channel", "another user"],
)
def test_an_invalid_sub_refresh_is_refused_or_closes(command: dict[str, Any], effect: Any) -> None:
    """An expired token is an error, a wrong one a close. Neither prolongs the subscription."""
    playbook = expiring(60)
    playbook >> command
    playbook << ([effect] if isinstance(effect, dict) else [effect, Closing("news")])
    playbook >> Wait(85)
    assert playbook.session.live_channels == []


def test_a_server_side_subscription_cannot_be_refreshed_during_set_up() -> None:
    """The client does not know of it yet."""
    playbook = connected()
    playbook >> ServerSubscribe("news") << [Opening("news")]
    playbook >> sub_refresh("x") << [error(3, 103, "permission denied")]


def test_a_refresh_does_not_change_the_options_of_a_subscription() -> None:
    """Otherwise a presence entry that was added would never be removed."""
    options = ChannelOptions(allow_subscribe_for_client=True, presence=True, join_leave=True)
    playbook = expiring(60, context(options))
    override = {"presence": {"value": False}, "join_leave": {"value": False}}
    playbook >> sub_refresh(subscription_token("ada", "news", override=override))
    playbook >> ConnectionLost() << [Closing("news", was_announced=True)]
    closing = playbook.effects[0]
    assert closing.options.presence  # type: ignore[union-attr]


def test_an_insecure_server_ignores_a_subscription_s_expiry() -> None:
    """As it does a connection's."""
    playbook = connected(context(OPEN, insecure=True, **RARE_PINGS))
    token = subscription_token("ada", "news", exp=NOW + 60)
    playbook >> {"id": 2, "subscribe": {"channel": "news", "token": token}}
    playbook >> opened("news") << [{"id": 2, "subscribe": {}}, GoLive("news")]
    playbook >> Wait(1_000) << []


def test_one_deadline_serves_all_purposes() -> None:
    """A subscription, a ping and the connection are due in their own order."""
    playbook = connected(context(expired_close_delay=0), exp=NOW + 30)
    token = subscription_token("ada", "news", exp=NOW + 10)
    playbook >> {"id": 2, "subscribe": {"channel": "news", "token": token}} >> opened("news")
    playbook >> Wait(10) << [Closing("news"), unsubscribe_push("news", 2501, "subscription expired")]
    playbook >> Wait(10) << [PING]
    playbook >> PONG << []
    playbook >> Wait(10) << [Close(errors.CONNECTION_EXPIRED)]


def test_a_deadline_within_the_delay_ends_no_expired_subscription() -> None:
    """A ping falls between an expiry and its end; a refresh may still come."""
    playbook = connected(exp=NOW + 10)
    token = subscription_token("ada", "news", exp=NOW + 15)
    playbook >> {"id": 2, "subscribe": {"channel": "news", "token": token}} >> opened("news")
    playbook >> Wait(20) << [PING]
    playbook >> PONG << []
    playbook >> Wait(15) << [Close(errors.CONNECTION_EXPIRED), Closing("news")]


def test_a_late_deadline_handles_all_that_is_due() -> None:
    """One `DeadlineReached` after several deadlines: the subscription ends, and a ping is sent."""
    playbook = expiring(20, context(OPEN, ping_interval=100, pong_timeout=50))
    assert playbook.session.deadline == START.monotonic + 45
    late = structs.replace(START, monotonic=START.monotonic + 90, unix=NOW + 90)
    playbook.now = late
    (
        playbook
        >> DeadlineReached()
        << [Closing("news"), unsubscribe_push("news", 2501, "subscription expired"), PING]
    )
    assert playbook.session.deadline == late.monotonic + 50
