"""Recovery (protocol §10): what a returning subscriber is given, and when it is told of a loss."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.server.core.playbook import (
    EPOCH,
    OPEN,
    WITH_HISTORY,
    Closing,
    Opening,
    connected,
    context,
    error,
    history_at,
    new_connection,
    opened,
    subscribed,
    unsubscribe_push,
)
from tests.support.tokens import connection_token
from tocsin_server import errors
from tocsin_server.config.options import ChannelOptions
from tocsin_server.core.events import ChannelReset, Close, GoLive, HistoryRead, OpenSubscriptions, Send
from tocsin_server.core.positions import History
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import Position


def subscribe(command_id: int = 2, **request: Any) -> dict[str, Any]:
    return {"id": command_id, "subscribe": {"channel": "news", **request}}


def result(command_id: int = 2, **granted: Any) -> dict[str, Any]:
    return {"id": command_id, "subscribe": granted}


def recovering(
    offset: int, history: History, channels: ChannelOptions = WITH_HISTORY, **request: Any
) -> dict[str, Any]:
    """The reply to a subscribe that recovers from `offset`."""
    playbook = connected(context(channels))
    playbook >> subscribe(recover=True, offset=offset, **request) << [Opening("news")]
    playbook >> opened(news=history)
    reply = playbook.effects[0]
    assert isinstance(reply, Send)
    replied: dict[str, Any] = json.loads(JSON.encode(reply.message))
    return replied


GRANTED: dict[str, Any] = {"recoverable": True, "positioned": True, "epoch": EPOCH, "was_recovering": True}


def test_a_recovered_subscription_gets_what_it_missed_and_its_own_offset() -> None:
    """The client advances by the publications; what it hears live begins after the last of them."""
    playbook = connected(context(WITH_HISTORY))
    playbook >> subscribe(recover=True, offset=2, epoch=EPOCH)
    publications = [{"data": 3, "offset": 3}, {"data": 4, "offset": 4}]
    playbook >> opened(news=history_at(4, 3, 4))
    playbook << [result(**GRANTED, offset=2, recovered=True, publications=publications), GoLive("news", 4)]


def test_the_log_is_read_from_the_client_s_position_up_to_the_limit() -> None:
    """Without a recovery only the top is read, and without a position nothing."""
    asked: dict[str, tuple[ChannelOptions, dict[str, Any], HistoryRead | None]] = {
        "stream": (
            WITH_HISTORY,
            {"recover": True, "offset": 2, "epoch": EPOCH},
            HistoryRead(Position(2, EPOCH), 5),
        ),
        "cache": (
            WITH_HISTORY.model_copy(update={"force_recovery_mode": "cache"}),
            {"recover": True, "offset": 2},
            HistoryRead(is_latest=True),
        ),
        "top": (WITH_HISTORY, {}, HistoryRead()),
        "nothing": (OPEN, {"recover": True}, None),
    }
    for channels, request, wanted in asked.values():
        playbook = connected(context(channels, history_limit=5))
        playbook >> subscribe(**request)
        enter = playbook.effects[0]
        assert isinstance(enter, OpenSubscriptions)
        assert enter.plans[0].read == wanted


@pytest.mark.parametrize(
    ("offset", "history", "epoch"),
    [
        (2, history_at(9, 8, 9), EPOCH),
        (2, history_at(9, 3, 4), EPOCH),
        (2, history_at(9), EPOCH),
        (10, history_at(9), EPOCH),
        (9, history_at(9), "replaced"),
    ],
    ids=["trimmed", "limited", "expired", "beyond the top", "other epoch"],
)
def test_what_cannot_be_recovered_whole_begins_at_the_top_and_says_so(
    offset: int, history: History, epoch: str
) -> None:
    """No part of what was missed is given, so that the application knows to load its state anew."""
    assert recovering(offset, history, epoch=epoch) == result(**GRANTED, offset=9)


def test_whoever_missed_nothing_is_recovered_without_publications() -> None:
    """With and without naming the epoch."""
    either: tuple[dict[str, Any], ...] = ({}, {"epoch": EPOCH})
    for request in either:
        assert recovering(9, history_at(9), **request) == result(**GRANTED, offset=9, recovered=True)


def test_a_first_recovery_from_nothing_replays_the_log() -> None:
    """Offset 0 without an epoch, if nothing was trimmed yet."""
    publications = [{"data": 1, "offset": 1}, {"data": 2, "offset": 2}]
    replied = recovering(0, history_at(2, 1, 2))
    assert replied == result(**GRANTED, recovered=True, publications=publications)


def test_a_client_may_prefer_an_error_to_an_unrecovered_subscription() -> None:
    """Flag bit 2; what was entered is left again, unannounced."""
    playbook = connected(context(WITH_HISTORY))
    playbook >> subscribe(recover=True, offset=1, flag=3)
    playbook >> opened(news=history_at(9)) << [error(2, 112, "unrecoverable position"), Closing("news")]
    playbook >> subscribe(command_id=3, recover=True, offset=9, flag=3) << [Opening("news")]
    (
        playbook
        >> opened(news=history_at(9))
        << [
            result(3, **GRANTED, offset=9, recovered=True),
            GoLive("news", 9),
        ]
    )


def test_the_flag_concerns_only_recoveries() -> None:
    """Bit 1, which every SDK sends, means nothing here; bit 2 nothing without a recovery."""
    either: tuple[dict[str, Any], ...] = ({"flag": 1, "recover": True, "offset": 1}, {"flag": 2})
    for request in either:
        playbook = connected(context(WITH_HISTORY))
        playbook >> subscribe(**request)
        playbook >> opened(news=history_at(9))
        assert playbook.session.live_channels == ["news"]


def test_a_channel_without_recovery_says_only_that_it_was_asked() -> None:
    """`was_recovering` is there whatever the channel can do."""
    playbook = connected()
    playbook >> subscribe(recover=True, offset=3)
    playbook >> opened("news") << [result(was_recovering=True), GoLive("news")]


def test_in_cache_mode_the_newest_publication_is_all_there_is_to_recover() -> None:
    """It is given unless the client has it already."""
    cache = WITH_HISTORY.model_copy(update={"force_recovery_mode": "cache"})
    newest: dict[str, Any] = {"recovered": True, "publications": [{"data": 9, "offset": 9}]}
    assert recovering(2, history_at(9, 9), cache) == result(**GRANTED, offset=2, **newest)
    assert recovering(9, history_at(9, 9), cache, epoch=EPOCH) == result(**GRANTED, offset=9, recovered=True)
    assert recovering(2, history_at(9), cache) == result(**GRANTED, offset=9)


def test_a_channel_may_recover_everybody_from_its_cache() -> None:
    """As if the client had asked."""
    cache = WITH_HISTORY.model_copy(update={"force_recovery_mode": "cache", "auto_cache_recover": True})
    playbook = connected(context(cache))
    playbook >> subscribe()
    playbook >> opened(news=history_at(9, 9))
    publications = [{"data": 9, "offset": 9}]
    playbook << [result(**GRANTED, recovered=True, publications=publications), GoLive("news", 9)]


def test_a_broken_stream_makes_the_client_subscribe_again() -> None:
    """2500 tells an SDK to come back with its position, and so to learn what it can still have."""
    playbook = connected(context(WITH_HISTORY))
    playbook >> subscribe()
    playbook >> opened(news=history_at(9))
    (
        playbook
        >> ChannelReset("news")
        << [Closing("news"), unsubscribe_push("news", 2500, "insufficient state")]
    )
    playbook >> ChannelReset("news") << []
    playbook >> subscribe(command_id=3) << [Opening("news")]


def test_a_broken_stream_of_a_server_side_subscription_makes_the_client_reconnect() -> None:
    """It cannot subscribe again by itself."""
    playbook = new_connection(context(WITH_HISTORY))
    playbook >> {"id": 1, "connect": {"token": connection_token("ada", channels=["news"])}}
    playbook >> opened(news=history_at(9))
    playbook >> ChannelReset("news") << [Close(errors.INSUFFICIENT_STATE), Closing("news")]


def test_a_broken_stream_concerns_nobody_without_a_position() -> None:
    """It was never promised to be whole."""
    subscribed() >> ChannelReset("news") << []
    subscribed() >> ChannelReset("other") << []
