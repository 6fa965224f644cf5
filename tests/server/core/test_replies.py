"""The effects that answer a command, each with the result under the key of its method."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw, Struct

from tocsin_server.core.events import EngineRequest, Send
from tocsin_server.core.replies import answer, refuse, send_push
from tocsin_server.errors import Refusal
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import (
    EMPTY,
    HistoryRequest,
    HistoryResult,
    PresenceRequest,
    PresenceResult,
    PresenceStatsRequest,
    PresenceStatsResult,
    PublishRequest,
    Push,
    RpcRequest,
    RpcResult,
)


def sent(effect: Send) -> Any:
    return json.loads(JSON.encode(effect.message))


@pytest.mark.parametrize(
    ("request_", "result", "key"),
    [
        (PublishRequest(), EMPTY, "publish"),
        (PresenceRequest(), PresenceResult({}), "presence"),
        (PresenceStatsRequest(), PresenceStatsResult(0, 0), "presence_stats"),
        (HistoryRequest(), HistoryResult([], "", 0), "history"),
        (RpcRequest(), RpcResult(Raw(b"1")), "rpc"),
    ],
)
def test_a_result_is_sent_under_the_key_of_its_method(
    request_: EngineRequest, result: Struct, key: str
) -> None:
    reply = sent(answer(3, request_, result))
    assert (reply["id"], set(reply)) == (3, {"id", key})


def test_a_result_that_does_not_answer_the_request_is_a_defect() -> None:
    with pytest.raises(TypeError, match="Empty does not answer HistoryRequest"):
        answer(3, HistoryRequest(), EMPTY)


def test_a_refusal_is_sent_with_its_code_message_and_whether_it_is_temporary() -> None:
    assert sent(refuse(3, Refusal(1000, "not today"))) == {
        "id": 3,
        "error": {"code": 1000, "message": "not today"},
    }
    assert sent(refuse(3, Refusal(1000, "later", temporary=True)))["error"]["temporary"] is True


def test_a_push_is_sent_in_its_envelope() -> None:
    assert sent(send_push(Push("news"))) == {"push": {"channel": "news"}}
