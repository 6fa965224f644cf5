"""Events of the HTTP API for one connection (protocol §14): subscribe, unsubscribe, disconnect, refresh."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from tests.server.core.playbook import (
    EPOCH,
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
    subscribed,
    subscribed_by_token,
    unsubscribe_push,
)
from tests.support.tokens import connection_token
from tocsin_server import errors
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core.events import (
    Close,
    ConnectionLost,
    Execute,
    Executed,
    GoLive,
    OpenSubscriptions,
    ServerDisconnect,
    ServerRefresh,
    ServerSubscribe,
    ServerUnsubscribe,
)
from tocsin_server.core.tokens import Flag, Override
from tocsin_server.errors import Disconnect, Unsubscribed
from tocsin_server.protocol.messages import EMPTY, ClientInfo, Position, PublishRequest

NOW = START.unix
CLOSED = ChannelOptions()


def pushed(channel: str, **kind: Any) -> dict[str, Any]:
    return {"push": {"channel": channel, **kind}}


# -------------------------------------------------------------------------------------------------- subscribe


def test_the_api_may_subscribe_a_connection_to_any_channel() -> None:
    """The permissions of clients do not apply. The push that announces it comes first."""
    playbook = connected(context(CLOSED))
    playbook >> ServerSubscribe("$news", data=Raw(b'{"topic":"x"}')) << [Opening("$news")]
    playbook >> opened("$news")
    playbook << [pushed("$news", subscribe={"data": {"topic": "x"}}), GoLive("$news")]


def test_an_api_subscription_may_have_info_and_options_of_its_own() -> None:
    """They apply to this subscription alone."""
    playbook = connected(context(CLOSED))
    override = Override(join_leave=Flag(True), force_push_join_leave=Flag(True), presence=Flag(True))
    playbook >> ServerSubscribe("news", info=Raw(b'{"seat":1}'), override=override)
    opening = playbook.effects[0]
    assert isinstance(opening, OpenSubscriptions)
    assert bytes(opening.plans[0].info.chan_info) == b'{"seat":1}'
    assert opening.plans[0].options.presence
    playbook >> opened("news")
    playbook << [pushed("news", subscribe={}), GoLive("news", receives_joins=True), Joining("news")]


def test_an_api_subscription_recovers_by_pushes() -> None:
    """The subscribe push has no room for publications, so they follow it, before every live one."""
    playbook = connected(context(WITH_HISTORY))
    playbook >> ServerSubscribe("news", since=Position(2, EPOCH)) << [Opening("news")]
    (
        playbook
        >> opened(news=history_at(4, 3, 4))
        << [
            pushed("news", subscribe={"recoverable": True, "positioned": True, "epoch": EPOCH, "offset": 2}),
            pushed("news", pub={"data": 3, "offset": 3}),
            pushed("news", pub={"data": 4, "offset": 4}),
            GoLive("news", 4),
        ]
    )


def test_an_api_subscription_that_cannot_recover_begins_at_the_top() -> None:
    """The push carries that position."""
    playbook = connected(context(WITH_HISTORY))
    playbook >> ServerSubscribe("news", since=Position(2, EPOCH)) << [Opening("news")]
    at_top = {"recoverable": True, "positioned": True, "epoch": EPOCH, "offset": 9}
    playbook >> opened(news=history_at(9, 8, 9)) << [pushed("news", subscribe=at_top), GoLive("news", 9)]


def test_an_impossible_api_subscription_is_ignored() -> None:
    """The client is subscribed already, the namespace is unknown, or the limit is reached."""
    for session_context, channel in (
        (None, "news"),
        (None, "nowhere:news"),
        (context(channel_limit=1), "more"),
    ):
        subscribed(session_context) >> ServerSubscribe(channel) << []


def test_a_client_s_commands_do_not_wait_for_an_api_subscription() -> None:
    """The client has not requested it."""
    playbook = connected()
    playbook >> ServerSubscribe("news") << [Opening("news")]
    playbook >> {"id": 2, "subscribe": {"channel": "more"}} << [Opening("more")]
    playbook >> {"id": 3, "unsubscribe": {"channel": "x"}} << []
    (
        playbook
        >> opened("more")
        << [
            {"id": 2, "subscribe": {}},
            GoLive("more"),
            {"id": 3, "unsubscribe": {}},
        ]
    )
    playbook >> {"id": 4, "subscribe": {"channel": "news"}} << [error(4, 105, "already subscribed")]


def test_an_api_subscription_has_no_effect_before_its_push() -> None:
    """Until then the client has neither the permissions of a subscriber nor the subscription's info."""
    for_all = ChannelOptions(allow_publish_for_client=True)
    for_subscribers = ChannelOptions(allow_publish_for_subscriber=True)
    command = {"id": 2, "publish": {"channel": "news", "data": 1}}
    request = PublishRequest("news", Raw(b"1"))
    for channels, effect in (
        (for_all, Execute(2, request, ClientInfo("ada", "c1"))),
        (for_subscribers, error(2, 103, "permission denied")),
    ):
        playbook = connected(context(channels))
        playbook >> ServerSubscribe("news", info=Raw(b'{"seat":1}')) << [Opening("news")]
        playbook >> command << [effect]
        playbook >> Executed(2, EMPTY)
        playbook >> opened("news") << [pushed("news", subscribe={}), GoLive("news")]
        playbook >> command << [Execute(2, request, ClientInfo("ada", "c1", chan_info=Raw(b'{"seat":1}')))]


def test_an_api_subscription_that_fails_is_not_announced() -> None:
    """The client never knew of it."""
    playbook = connected()
    playbook >> ServerSubscribe("news") << [Opening("news")]
    playbook >> opening_failed("news") << [Closing("news")]
    playbook >> ServerSubscribe("news") << [Opening("news")]


# ------------------------------------------------------------------------------------------------ unsubscribe


def test_the_api_unsubscribes_from_one_channel() -> None:
    """From client-side and server-side subscriptions. The code forbids to subscribe again."""
    for playbook in (subscribed(), subscribed_by_token()):
        playbook >> ServerUnsubscribe("other") << []
        (
            playbook
            >> ServerUnsubscribe("news")
            << [Closing("news"), unsubscribe_push("news", 2000, "server unsubscribe")]
        )
        assert playbook.session.live_channels == []


def test_the_api_unsubscribes_from_all_channels() -> None:
    """Where the event names none."""
    playbook = subscribed()
    playbook >> {"id": 3, "subscribe": {"channel": "more"}} >> opened("more")
    (
        playbook
        >> ServerUnsubscribe()
        << [
            Closing("news"),
            unsubscribe_push("news", 2000, "server unsubscribe"),
            Closing("more"),
            unsubscribe_push("more", 2000, "server unsubscribe"),
        ]
    )


def test_the_api_may_send_its_own_code_and_reason() -> None:
    """An application's code can carry a meaning for its client."""
    why = Unsubscribed(2100, "moved")
    (
        subscribed()
        >> ServerUnsubscribe("news", why)
        << [Closing("news"), unsubscribe_push("news", 2100, "moved")]
    )


def test_an_api_subscription_may_be_ended_during_set_up() -> None:
    """The client gets both pushes, in order."""
    playbook = connected()
    playbook >> ServerSubscribe("news") << [Opening("news")]
    playbook >> ServerUnsubscribe() << []
    (
        playbook
        >> opened("news")
        << [
            pushed("news", subscribe={}),
            GoLive("news"),
            Closing("news"),
            unsubscribe_push("news", 2000, "server unsubscribe"),
        ]
    )


def test_an_api_subscription_of_a_lost_connection_is_closed() -> None:
    """After the engine's answer."""
    playbook = connected()
    playbook >> ServerSubscribe("news") << [Opening("news")]
    playbook >> ConnectionLost() << []
    playbook >> opened("news") << [Closing("news")]


# ------------------------------------------------------------------------------------- disconnect and refresh


@pytest.mark.parametrize("why", [errors.FORCE_DISCONNECT, Disconnect(4100, "go elsewhere"), errors.SHUTDOWN])
def test_the_api_disconnects_with_any_code(why: Disconnect) -> None:
    """An application's own codes included."""
    subscribed() >> ServerDisconnect(why) << [Close(why), Closing("news")]


def test_the_api_moves_a_connection_s_expiry() -> None:
    """The client gets a push, which SDKs ignore; the connection is closed at the new expiry."""
    playbook = connected(context(ping_interval=1_000))
    playbook >> ServerRefresh(expire_at=NOW + 60) << [{"push": {"refresh": {"expires": True, "ttl": 60}}}]
    playbook >> Wait(84.9) << []
    playbook >> ServerRefresh() << [{"push": {"refresh": {}}}]
    playbook >> Wait(100) << []
    playbook >> ServerRefresh(is_expired=True) << [Close(errors.CONNECTION_EXPIRED)]


def test_the_api_replaces_the_info_of_a_connection() -> None:
    """Without new info the old one stays."""
    playbook = connected(info={"name": "Ada"})
    playbook >> ServerRefresh()
    assert bytes(playbook.session.info.conn_info) == b'{"name":"Ada"}'
    playbook >> ServerRefresh(info=Raw(b'{"name":"Ada Lovelace"}'))
    assert bytes(playbook.session.info.conn_info) == b'{"name":"Ada Lovelace"}'


def test_a_subscribe_from_the_server_during_the_connect_follows_its_reply() -> None:
    """The API finds the connection as soon as it has a user, and has answered with success."""
    token = connection_token("ada", channels=["news"])
    playbook = new_connection() >> {"id": 1, "connect": {"token": token}}
    playbook >> ServerSubscribe("other") << []
    playbook >> opened("news")
    playbook << [connect_reply(subs={"news": {}}), GoLive("news"), Opening("other")]


@pytest.mark.parametrize("channel", ["other", ""], ids=["one", "all"])
def test_an_unsubscribe_from_the_server_during_the_connect_takes_the_subscribe_before_it_back(
    channel: str,
) -> None:
    playbook = new_connection() >> {"id": 1, "connect": {"token": connection_token("ada", channels=["news"])}}
    playbook >> ServerSubscribe("other") >> ServerUnsubscribe(channel) >> ServerSubscribe("third") << []
    playbook >> opened("news")
    opening = [effect for effect in playbook.effects if isinstance(effect, OpenSubscriptions)]
    assert [plan.channel for effect in opening for plan in effect.plans] == ["third"]
