"""Recovery (protocol §10): the publications that a client gets, and the resets that it is told of."""

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
from tocsin_server.config.channel_options import ChannelOptions
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
    """Return the reply to a subscribe that recovers from `offset`."""
    playbook = connected(context(channels))
    playbook >> subscribe(recover=True, offset=offset, **request) << [Opening("news")]
    playbook >> opened(news=history)
    reply = playbook.effects[0]
    assert isinstance(reply, Send)
    message: dict[str, Any] = json.loads(JSON.encode(reply.message))
    return message


GRANTED: dict[str, Any] = {"recoverable": True, "positioned": True, "epoch": EPOCH, "was_recovering": True}


def test_a_recovered_subscription_gets_the_missed_publications_and_its_own_offset() -> None:
    """The publications advance the client; live delivery begins after the last of them."""
    playbook = connected(context(WITH_HISTORY))
    playbook >> subscribe(recover=True, offset=2, epoch=EPOCH)
    publications = [{"data": 3, "offset": 3}, {"data": 4, "offset": 4}]
    playbook >> opened(news=history_at(4, 3, 4))
    playbook << [result(**GRANTED, offset=2, recovered=True, publications=publications), GoLive("news", 4)]


def test_history_is_read_from_the_client_s_position_up_to_the_limit() -> None:
    """Without recovery only the top is read; without a position nothing is."""
    cases: dict[str, tuple[ChannelOptions, dict[str, Any], HistoryRead | None]] = {
        "stream": (
            WITH_HISTORY,
            {"recover": True, "offset": 2, "epoch": EPOCH},
            HistoryRead(Position(2, EPOCH), 5),
        ),
        "cache": (
            WITH_HISTORY.model_copy(update={"force_recovery_mode": "cache"}),
            {"recover": True, "offset": 2},
            HistoryRead(Position(2, ""), is_latest=True),
        ),
        "top": (WITH_HISTORY, {}, HistoryRead()),
        "nothing": (OPEN, {"recover": True}, None),
    }
    for channels, request, read in cases.values():
        playbook = connected(context(channels, history_limit=5))
        playbook >> subscribe(**request)
        opening = playbook.effects[0]
        assert isinstance(opening, OpenSubscriptions)
        assert opening.plans[0].read == read


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
def test_a_subscription_that_cannot_recover_begins_at_the_top(
    offset: int, history: History, epoch: str
) -> None:
    """It gets no missed publication at all, so the application knows to load its state again."""
    assert recovering(offset, history, epoch=epoch) == result(**GRANTED, offset=9)


def test_a_client_that_missed_nothing_recovers_without_publications() -> None:
    """With the epoch and without it."""
    requests: tuple[dict[str, Any], ...] = ({}, {"epoch": EPOCH})
    for request in requests:
        assert recovering(9, history_at(9), **request) == result(**GRANTED, offset=9, recovered=True)


def test_a_recovery_from_offset_0_returns_the_whole_history() -> None:
    """Without an epoch, if no publication was trimmed."""
    publications = [{"data": 1, "offset": 1}, {"data": 2, "offset": 2}]
    message = recovering(0, history_at(2, 1, 2))
    assert message == result(**GRANTED, recovered=True, publications=publications)


def test_a_client_may_prefer_an_error_to_an_unrecovered_subscription() -> None:
    """Bit 2 of the flag. The subscription is closed again, and no join is published."""
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


def test_the_flag_affects_only_recoveries() -> None:
    """Bit 1, which every SDK sends, has no effect; bit 2 has none without a recovery."""
    requests: tuple[dict[str, Any], ...] = ({"flag": 1, "recover": True, "offset": 1}, {"flag": 2})
    for request in requests:
        playbook = connected(context(WITH_HISTORY))
        playbook >> subscribe(**request)
        playbook >> opened(news=history_at(9))
        assert playbook.session.live_channels == ["news"]


def test_a_channel_without_recovery_confirms_only_the_request() -> None:
    """`was_recovering` does not depend on the channel."""
    playbook = connected()
    playbook >> subscribe(recover=True, offset=3)
    playbook >> opened("news") << [result(was_recovering=True), GoLive("news")]


def test_in_cache_mode_only_the_newest_publication_is_recovered() -> None:
    """The client gets it unless it has it already."""
    cache = WITH_HISTORY.model_copy(update={"force_recovery_mode": "cache"})
    newest: dict[str, Any] = {"recovered": True, "publications": [{"data": 9, "offset": 9}]}
    assert recovering(2, history_at(9, 9), cache) == result(**GRANTED, offset=2, **newest)
    assert recovering(9, history_at(9, 9), cache, epoch=EPOCH) == result(**GRANTED, offset=9, recovered=True)
    assert recovering(2, history_at(9), cache) == result(**GRANTED, offset=9)


def test_in_cache_mode_the_position_precedes_the_newest_publication() -> None:
    """The history was replaced, and the client's offset is beyond the end of the new one."""
    cache = WITH_HISTORY.model_copy(update={"force_recovery_mode": "cache"})
    newest: dict[str, Any] = {"recovered": True, "publications": [{"data": 2, "offset": 2}]}
    for offset in (2, 9):
        message = recovering(offset, history_at(2, 2), cache, epoch="replaced")
        assert message == result(**GRANTED, offset=1, **newest)


def test_a_channel_may_recover_every_subscription_from_its_cache() -> None:
    """As if the client had requested it."""
    cache = WITH_HISTORY.model_copy(update={"force_recovery_mode": "cache", "auto_cache_recover": True})
    playbook = connected(context(cache))
    playbook >> subscribe()
    playbook >> opened(news=history_at(9, 9))
    publications = [{"data": 9, "offset": 9}]
    playbook << [result(**GRANTED, recovered=True, publications=publications), GoLive("news", 9)]


def test_a_reset_makes_the_client_subscribe_again() -> None:
    """An SDK subscribes again with its position after code 2500, and so learns what it can recover."""
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


def test_a_reset_of_a_server_side_subscription_makes_the_client_reconnect() -> None:
    """A client cannot subscribe to it by itself."""
    playbook = new_connection(context(WITH_HISTORY))
    playbook >> {"id": 1, "connect": {"token": connection_token("ada", channels=["news"])}}
    playbook >> opened(news=history_at(9))
    playbook >> ChannelReset("news") << [Close(errors.INSUFFICIENT_STATE), Closing("news")]


def test_a_reset_does_not_affect_a_subscription_without_a_position() -> None:
    """It has no guarantee that it could break."""
    subscribed() >> ChannelReset("news") << []
    subscribed() >> ChannelReset("other") << []
