"""Subscribing and unsubscribing (protocol §4, §12): the checks in their order, and the grants."""

from __future__ import annotations

import json
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
    Playbook,
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
from tests.support.tokens import connection_token, subscription_token
from tocsin_server import errors
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core.events import (
    Close,
    ConnectionLost,
    GoLive,
    OpenSubscriptions,
    Send,
    ServerSubscribe,
    ServerUnsubscribe,
)
from tocsin_server.core.form import PLAIN, Form
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import ClientInfo, Reply

NOW = START.unix
CLOSED = ChannelOptions()
OFFERED = ChannelOptions(
    allow_subscribe_for_client=True,
    history_size=10,
    history_ttl=60,
    allow_recovery=True,
    allow_positioning=True,
)
"""A channel with history, whose subscribers get a position on request."""
WITHOUT_HISTORY = OPEN.model_copy(update={"allow_recovery": True, "allow_positioning": True})
JOINS = ChannelOptions(
    allow_subscribe_for_client=True, presence=True, join_leave=True, allow_presence_for_subscriber=True
)


def subscribe(channel: str = "news", command_id: int = 2, **requested: Any) -> dict[str, Any]:
    return {"id": command_id, "subscribe": {"channel": channel, **requested}}


def unsubscribe(channel: str = "news", command_id: int = 3) -> dict[str, Any]:
    return {"id": command_id, "unsubscribe": {"channel": channel}}


def result(command_id: int = 2, **granted: Any) -> dict[str, Any]:
    return {"id": command_id, "subscribe": granted}


def granted_info(playbook: Playbook) -> ClientInfo:
    """Return the client info of the subscription that is being set up."""
    opening = playbook.effects[-1]
    assert isinstance(opening, OpenSubscriptions)
    return opening.plans[0].info


# ----------------------------------------------------------------------------------------------------- checks


def test_a_subscription_is_opened_then_confirmed_then_live() -> None:
    """The reply precedes every publication."""
    playbook = connected()
    playbook >> subscribe() << [Opening("news")]
    playbook >> opened("news") << [result(), GoLive("news")]


def test_a_channel_needs_a_name() -> None:
    """An empty name violates the protocol."""
    connected() >> subscribe("") << [Close(errors.PROTOCOL_VIOLATION)]


@pytest.mark.parametrize(
    ("channel", "more", "code", "message"),
    [
        ("x" * 256, {}, 107, "bad request: the channel's name is longer than 255 bytes"),
        ("nowhere:" + "x" * 256, {}, 107, "bad request: the channel's name is longer than 255 bytes"),
        ("taken", {}, 105, "already subscribed"),
        ("taken", {"token": "garbage"}, 105, "already subscribed"),
        ("nowhere:news", {}, 102, "unknown channel"),
        ("nowhere:ünïcode", {}, 102, "unknown channel"),
        ("ünïcode", {}, 107, "bad request: the channel's name has characters beyond ASCII"),
        (
            "numbers:abc",
            {"token": "garbage"},
            107,
            "bad request: the channel's name does not match channel_regex",
        ),
        ("numbers:42", {"type": 1}, 108, "not available"),
        (
            "numbers:42",
            {"tf": {"key": "a", "cmp": "ex"}},
            107,
            "bad request: the channel allows no tags filter",
        ),
        ("$news", {}, 103, "permission denied"),
        ("numbers:42", {"token": "garbage"}, 103, "permission denied"),
        ("closed:news", {}, 103, "permission denied"),
    ],
)
def test_checks_come_in_the_protocol_s_order(
    channel: str, more: dict[str, Any], code: int, message: str
) -> None:
    """Each name is wrong in one way, or in two of which the first decides."""
    digits = OPEN.model_copy(update={"channel_regex": r"^\d+$"})
    playbook = connected(context(OPEN, {"numbers": digits, "closed": CLOSED}))
    playbook >> subscribe("taken", 9) >> opened("taken")
    playbook >> subscribe(channel, **more) << [error(2, code, message)]


def test_a_name_of_exactly_the_limit_is_allowed() -> None:
    """The limit counts bytes."""
    playbook = connected()
    playbook >> subscribe("x" * 255) << [Opening("x" * 255)]
    (
        playbook
        >> subscribe("é" * 128, 3)
        << [error(3, 107, "bad request: the channel's name is longer than 255 bytes")]
    )


def test_the_number_of_subscriptions_is_limited() -> None:
    """Those being set up count. The limit is checked before the namespace."""
    playbook = connected(context(channel_limit=2))
    playbook >> subscribe("a", 2) >> opened("a")
    playbook >> subscribe("b", 3) << [Opening("b")]
    playbook >> subscribe("nowhere:c", 4) << [error(4, 106, "limit exceeded")]


def test_a_server_side_subscription_cannot_be_made_a_second_time() -> None:
    """The client is already subscribed to the channels of its token."""
    subscribed_by_token() >> subscribe() << [error(2, 105, "already subscribed")]


# ------------------------------------------------------------------------------------------------ permissions


def test_anonymous_users_need_a_permission_of_their_own() -> None:
    """A permission for users with a name does not include them."""
    for_users = ChannelOptions(allow_subscribe_for_client=True)
    for channels, effects in ((for_users, [error(2, 103, "permission denied")]), (OPEN, [Opening("news")])):
        playbook = new_connection(context(channels, allow_anonymous=True))
        playbook >> {"id": 1, "connect": {}}
        playbook >> subscribe() << effects


def test_a_user_limited_channel_is_for_the_users_in_its_name() -> None:
    """They follow the only `#`. Other users need a token, even in an open namespace."""
    limited = context(OPEN.model_copy(update={"allow_user_limited_channels": True}))
    for channel in ("dialog#ada,bob", "#ada"):
        connected(limited) >> subscribe(channel) << [Opening(channel)]
    for channel in ("dialog#bob", "dialog#ada#bob", "dialog#x#ada", "#ada,bob", "#", "dialog#ada "):
        connected(limited) >> subscribe(channel) << [error(2, 103, "permission denied")]
    token = subscription_token("ada", "dialog#bob")
    connected(limited) >> subscribe("dialog#bob", token=token) << [Opening("dialog#bob")]


def test_a_private_channel_is_open_to_clients_with_a_token() -> None:
    """A valid subscription token overrides every permission."""
    for channel in ("$news", "closed:news"):
        token = subscription_token("ada", channel)
        connected(context(OPEN, {"closed": CLOSED})) >> subscribe(channel, token=token) << [Opening(channel)]


def test_an_insecure_server_permits_every_channel() -> None:
    """Private channels included."""
    playbook = new_connection(context(CLOSED, insecure=True))
    playbook >> {"id": 1, "connect": {}}
    playbook >> subscribe("$news") << [Opening("$news")]


def test_a_pattern_applies_to_the_name_after_the_namespace() -> None:
    """A `$` before the namespace is not part of it."""
    digits = ChannelOptions(allow_subscribe_for_client=True, channel_regex=r"^\d+$")
    playbook = connected(context(digits, {"numbers": digits}))
    playbook >> subscribe("42") << [Opening("42")]
    playbook >> subscribe("numbers:42", 3) << [Opening("numbers:42")]
    (
        playbook
        >> subscribe("$numbers:4x", 4)
        << [error(4, 107, "bad request: the channel's name does not match channel_regex")]
    )
    token = subscription_token("ada", "$numbers:42")
    playbook >> subscribe("$numbers:42", 5, token=token) << [Opening("$numbers:42")]


# ----------------------------------------------------------------------------------------------------- tokens


@pytest.mark.parametrize(
    "token",
    [
        subscription_token("ada", "news", secret="another secret, which is just as long as the right one"),
        subscription_token("ada", "news", b64info="!!!"),
        connection_token("ada"),
    ],
    ids=["foreign", "bad info", "for a connection"],
)
def test_an_invalid_subscription_token_is_an_error(token: str) -> None:
    """Only an invalid connection token closes the connection."""
    connected() >> subscribe(token=token) << [error(2, 103, "permission denied")]


@pytest.mark.parametrize(
    "token",
    [
        subscription_token("ada", "other"),
        subscription_token("bob", "news"),
        subscription_token("ada", "news", client="c2"),
    ],
    ids=["channel", "user", "client"],
)
def test_the_subscription_token_of_another_client_closes(token: str) -> None:
    """The token is valid, for another channel, user or client."""
    connected() >> subscribe(token=token) << [Close(errors.INVALID_TOKEN)]


def test_a_token_bound_to_this_client_is_accepted() -> None:
    """The claim `client` binds a token to one connection."""
    connected() >> subscribe(token=subscription_token("ada", "news", client="c1")) << [Opening("news")]


def test_an_expired_subscription_token_is_an_error() -> None:
    """An SDK fetches a new token after error 109."""
    token = subscription_token("ada", "news", exp=NOW)
    connected() >> subscribe(token=token) << [error(2, 109, "token expired")]
    token = subscription_token("ada", "news", exp=NOW + 9, expire_at=NOW - 1)
    connected() >> subscribe(token=token) << [error(2, 110, "expired")]


def test_the_reply_has_the_expiry_and_data_of_the_token() -> None:
    """The client refreshes after `ttl` seconds."""
    playbook = connected()
    playbook >> subscribe(token=subscription_token("ada", "news", exp=NOW + 60, data={"topic": "x"}))
    playbook >> opened("news") << [result(expires=True, ttl=60, data={"topic": "x"}), GoLive("news")]


def test_a_subscription_token_carries_the_info_shown_in_the_channel() -> None:
    """In addition to the info of the connection token."""
    playbook = connected(info={"name": "Ada"})
    playbook >> subscribe(token=subscription_token("ada", "news", info={"seat": 1}))
    info = granted_info(playbook)
    assert (bytes(info.conn_info), bytes(info.chan_info)) == (b'{"name":"Ada"}', b'{"seat":1}')


def test_a_token_may_change_the_options_of_its_subscription() -> None:
    """Here a join is published, though the channel's options do not include joins."""
    override = {"join_leave": {"value": True}, "force_push_join_leave": {"value": True}}
    playbook = connected()
    playbook >> subscribe(token=subscription_token("ada", "news", override=override))
    playbook >> opened("news") << [result(), GoLive("news", receives_joins=True), Joining("news")]
    playbook >> unsubscribe() << [Closing("news", was_announced=True), {"id": 3, "unsubscribe": {}}]


# ---------------------------------------------------------------------------------- positions and join pushes


@pytest.mark.parametrize(
    ("channels", "requested", "granted"),
    [
        (OPEN, {"positioned": True, "recoverable": True}, {}),
        (WITHOUT_HISTORY, {"positioned": True, "recoverable": True}, {}),
        (
            WITHOUT_HISTORY,
            {"token": subscription_token("ada", "news", override={"force_recovery": {"value": True}})},
            {},
        ),
        (
            WITHOUT_HISTORY,
            {"token": subscription_token("ada", "news", override={"force_positioning": {"value": True}})},
            {},
        ),
        (OFFERED, {}, {}),
        (OFFERED, {"positioned": True}, {"positioned": True}),
        (OFFERED, {"recoverable": True}, {"positioned": True, "recoverable": True}),
        (
            OFFERED,
            {"recover": True, "offset": 7, "epoch": EPOCH},
            {"positioned": True, "recoverable": True, "was_recovering": True, "recovered": True},
        ),
        (WITH_HISTORY, {}, {"positioned": True, "recoverable": True}),
        (OFFERED.model_copy(update={"force_positioning": True}), {}, {"positioned": True}),
        (OFFERED.model_copy(update={"allow_recovery": False}), {"recoverable": True}, {}),
        (OFFERED.model_copy(update={"allow_positioning": False}), {"positioned": True}, {}),
        (
            ChannelOptions(
                allow_subscribe_for_client=True,
                allow_history_for_subscriber=True,
                history_size=1,
                history_ttl=1,
            ),
            {"recoverable": True},
            {"positioned": True, "recoverable": True},
        ),
    ],
)
def test_positions_are_granted_where_forced_or_requested_and_allowed(
    channels: ChannelOptions, requested: dict[str, Any], granted: dict[str, Any]
) -> None:
    """The permission to read history includes it; a channel without history has no positions."""
    playbook = connected(context(channels))
    playbook >> subscribe(**requested) << [Opening("news")]
    if granted:
        (
            playbook
            >> opened(news=history_at(7))
            << [result(**granted, epoch=EPOCH, offset=7), GoLive("news", 7)]
        )
    else:
        playbook >> opened("news") << [result(), GoLive("news")]


@pytest.mark.parametrize(
    ("channels", "requested", "receives_joins"),
    [
        (JOINS, {}, False),
        (JOINS, {"join_leave": True}, True),
        (JOINS.model_copy(update={"force_push_join_leave": True}), {}, True),
        (JOINS.model_copy(update={"allow_presence_for_subscriber": False}), {"join_leave": True}, False),
    ],
)
def test_joins_are_received_where_forced_or_requested_and_allowed(
    channels: ChannelOptions, requested: dict[str, Any], receives_joins: bool
) -> None:
    """The permission to read presence includes it. Publishing a join depends on the channel alone."""
    playbook = connected(context(channels))
    playbook >> subscribe(**requested)
    playbook >> opened("news") << [result(), GoLive("news", receives_joins=receives_joins), Joining("news")]


# ------------------------------------------------------------------------------------------------ unsubscribe


def test_an_unsubscribe_closes_the_subscription_before_its_reply() -> None:
    """No message of the channel follows the reply."""
    playbook = subscribed()
    playbook >> unsubscribe() << [Closing("news"), {"id": 3, "unsubscribe": {}}]
    assert playbook.session.live_channels == []


def test_an_unsubscribe_without_a_subscription_succeeds() -> None:
    """An SDK would reconnect after an error."""
    for channel in ("news", "nowhere:news", "$x", "ünïcode"):
        connected() >> unsubscribe(channel) << [{"id": 3, "unsubscribe": {}}]


def test_an_unsubscribe_needs_a_channel() -> None:
    """An empty name violates the protocol."""
    connected() >> unsubscribe("") << [Close(errors.PROTOCOL_VIOLATION)]


def test_a_client_may_end_a_server_side_subscription() -> None:
    """As it may end its own."""
    subscribed_by_token() >> unsubscribe() << [Closing("news"), {"id": 3, "unsubscribe": {}}]


def test_an_unsubscribe_waits_for_the_subscribe_before_it() -> None:
    """Both are answered in order; the subscription is opened and closed once."""
    playbook = connected()
    playbook >> [subscribe(), unsubscribe()] << [Opening("news")]
    (
        playbook
        >> opened("news")
        << [
            result(),
            GoLive("news"),
            Closing("news"),
            {"id": 3, "unsubscribe": {}},
        ]
    )


def test_an_unsubscribe_by_the_api_during_set_up_follows_the_subscribe_reply() -> None:
    """SDKs ignore the end of a subscription before its reply."""
    playbook = connected(context(JOINS))
    playbook >> subscribe()
    playbook >> ServerUnsubscribe("news") << []
    (
        playbook
        >> opened("news")
        << [
            result(),
            GoLive("news"),
            Joining("news"),
            Closing("news", was_announced=True),
            unsubscribe_push("news", 2000, "server unsubscribe"),
        ]
    )


def test_an_engine_failure_during_subscribe_is_a_temporary_error() -> None:
    """The subscription is closed, and the client may subscribe again."""
    playbook = connected()
    playbook >> subscribe()
    failure = error(2, 100, "internal server error", temporary=True)
    playbook >> opening_failed("news") << [Closing("news"), failure]
    playbook >> subscribe(command_id=3) << [Opening("news")]


@pytest.mark.parametrize("answer", [opened("news"), opening_failed("news")])
def test_a_connection_lost_during_set_up_closes_the_subscription_once(answer: Any) -> None:
    """After the engine's answer, not before: until then the engine may still add the presence entry."""
    playbook = connected()
    playbook >> subscribe()
    playbook >> ConnectionLost() << []
    playbook >> answer << [Closing("news")]
    playbook >> answer << []


# ------------------------------------------------------------------------------------ deltas and tags filters

WITH_FORMS = ChannelOptions(
    allow_subscribe_for_client=True,
    history_size=10,
    history_ttl=60,
    force_recovery=True,
    allowed_delta_types=("fossil",),
    allow_tags_filter=True,
)
TAG_A = {"key": "a", "cmp": "ex"}


def form_of(playbook: Playbook) -> Form:
    (form,) = [effect.form for effect in playbook.effects if isinstance(effect, GoLive)]
    return form


@pytest.mark.parametrize(
    ("options", "requested", "is_granted"),
    [
        (WITH_FORMS, {"delta": "fossil"}, True),
        (WITH_FORMS, {"delta": "other"}, False),
        (WITH_FORMS, {}, False),
        (WITH_FORMS, {"delta": "fossil", "tf": TAG_A}, False),
        (OPEN, {"delta": "fossil"}, False),
    ],
)
def test_deltas_are_granted_where_they_are_requested_and_allowed(
    options: ChannelOptions, requested: dict[str, Any], is_granted: bool
) -> None:
    """With a tags filter they are not granted, since publications between two may be left out."""
    playbook = connected(context(options)) >> subscribe(**requested) >> opened(news=history_at(5))
    (reply,) = [effect.message for effect in playbook.effects if isinstance(effect, Send)]
    assert isinstance(reply, Reply)
    assert reply.subscribe is not None
    assert reply.subscribe.delta is is_granted
    assert form_of(playbook).uses_delta is is_granted


def test_recovered_publications_are_quoted_for_a_client_with_deltas() -> None:
    """They are texts, and none is a delta."""
    playbook = connected(context(WITH_FORMS))
    playbook >> subscribe(delta="fossil", recover=True, offset=3, epoch=EPOCH)
    playbook >> opened(news=history_at(5, 4, 5))
    (sent,) = [json.loads(JSON.encode(one.message)) for one in playbook.effects if isinstance(one, Send)]
    assert [missed["data"] for missed in sent["subscribe"]["publications"]] == ["4", "5"]
    assert not any("delta" in missed for missed in sent["subscribe"]["publications"])


def test_a_recovery_has_only_what_the_filter_matches() -> None:
    """The recovery itself is decided by all publications. The position advances over those left out."""
    history = history_at(6, 4, 5, 6)
    for publication in history.publications[:2]:
        publication.tags = {"a": "x"}
    playbook = connected(context(WITH_FORMS))
    playbook >> subscribe(tf=TAG_A, recover=True, offset=3, epoch=EPOCH) >> opened(news=history)
    (sent,) = [json.loads(JSON.encode(one.message)) for one in playbook.effects if isinstance(one, Send)]
    result = sent["subscribe"]
    assert (result["recovered"], result["offset"]) == (True, 3)
    assert [publication["offset"] for publication in result["publications"]] == [4, 5]
    assert [effect.start for effect in playbook.effects if isinstance(effect, GoLive)] == [6]


def test_where_the_filter_leaves_everything_out_the_position_is_the_top() -> None:
    """Nothing else would advance the client."""
    playbook = connected(context(WITH_FORMS))
    playbook >> subscribe(tf=TAG_A, recover=True, offset=3, epoch=EPOCH)
    playbook >> opened(news=history_at(6, 4, 5, 6))
    (sent,) = [json.loads(JSON.encode(one.message)) for one in playbook.effects if isinstance(one, Send)]
    result = sent["subscribe"]
    assert (result["recovered"], result["offset"], result.get("publications")) == (True, 6, None)


def test_a_filter_that_is_not_valid_is_refused() -> None:
    """With what is wrong about it."""
    playbook = connected(context(WITH_FORMS)) >> subscribe(tf={"key": "a", "cmp": "eq"})
    problem = "bad request: the tags filter is not valid: eq takes val, not vals"
    playbook << [error(2, 107, problem)]


def test_clients_with_the_same_filter_share_it() -> None:
    """So the channel compares each publication once for all of them."""
    shared = context(WITH_FORMS)
    forms = [
        form_of(connected(shared) >> subscribe(tf=TAG_A) >> opened(news=history_at(5))) for _ in range(2)
    ]
    assert forms[0].tags_filter is forms[1].tags_filter is not None


def test_server_side_subscriptions_are_plain() -> None:
    """A client cannot request anything else for them."""
    playbook = connected(context(WITH_FORMS)) >> ServerSubscribe("news") >> opened(news=history_at(5))
    assert form_of(playbook) is PLAIN
