"""Bodies that are valid JSON and unusual: huge numbers, repeated names, thousands of members, long lists."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.server.api.conftest import Served
from tocsin_server import loop_turns
from tocsin_server.api.methods import METHODS
from tocsin_server.api.types import CALLS_LIMIT
from tocsin_server.loop_turns import LoopTurns
from tocsin_server.protocol.json_text import compact

pytestmark = pytest.mark.asyncio(loop_scope="module")

Name = Callable[[str], str]
DIGITS = 900_000
MEMBERS = 60_000
NO_OBJECT = "expected `object | null`, got `int`"
TOO_MANY = f"expected `array` of length <= {CALLS_LIMIT} at `$.commands`"


def _of_a_channel(name: str, rest: str) -> bytes:
    return f'{{"channel":"{name}",{rest}}}'.encode()


@pytest.mark.parametrize(
    "payload",
    ["1" * DIGITS, f"0.{'1' * DIGITS}", f"1e{'9' * DIGITS}", f'"{"x" * DIGITS}"', f"[{'1,' * 400_000}1]"],
    ids=["digits", "fraction", "exponent", "text", "list"],
)
@pytest.mark.parametrize("path", ["/api/publish", "/api"])
async def test_a_payload_is_passed_on_unread(api: Served, channel: Name, path: str, payload: str) -> None:
    """Also where its numbers mean nothing to a parser."""
    name = channel("open")
    params = f'{{"channel":"{name}","data":{payload}}}'
    body = params if path != "/api" else f'{{"method":"publish","params":{params}}}'
    response = await api.post(path, body.encode())
    assert response.json()["result"]["offset"] == 1
    stored = (await api.post("/api/history", {"channel": name, "limit": 1})).text
    assert f'"data":{payload}' in stored


@pytest.mark.parametrize(
    ("number", "is_accepted"),
    [
        (f"1.{'0' * DIGITS}", True),
        ("1e0", True),
        ("-0.0", True),
        ("20e-1", True),
        ("1" * DIGITS, False),
        (f"1e{'9' * DIGITS}", False),
        (f"1e-{'9' * DIGITS}", False),
        (f"0.{'0' * DIGITS}1", False),
        ("1.5", False),
        ("9007199254740993.0", False),
    ],
    ids=lambda value: str(value)[:12],
)
async def test_a_whole_number_may_be_written_in_every_way(
    api: Served, channel: Name, number: str, is_accepted: bool
) -> None:
    """Of any length, and only if it is a whole one within the limits of the member."""
    answer = (await api.post("/api/history", _of_a_channel(channel("open"), f'"limit":{number}'))).json()
    assert ("result" in answer) is is_accepted
    assert is_accepted or answer["error"]["code"] == 107


async def test_the_last_of_repeated_members_counts_everywhere(api: Served, channel: Name) -> None:
    """As for the check of the name, so for the publication: no two readers of a request disagree."""
    name = channel("open")
    for rest in (f'"channel":"{name}","data":1,"data":2', f'"channel":"{name}","data":2,"version":null'):
        body = f'{{"channel":"nowhere:1",{rest}}}'.encode()
        assert (await api.post("/api/publish", body)).json()["result"]["epoch"]
    page = await api.result("history", channel=name, limit=-1)
    assert [entry["data"] for entry in page["publications"]] == [2, 2]


@pytest.mark.parametrize(
    ("rest", "is_accepted"),
    [
        (f'"data":1,{",".join(f"{json.dumps(str(n))}:1" for n in range(MEMBERS))}', True),
        (f'"data":{{{",".join(f"{json.dumps(str(n))}:1" for n in range(MEMBERS))}}}', True),
        (f'"data":1,"tags":{{{",".join(f"{json.dumps(str(n))}:1" for n in range(MEMBERS))}}}', False),
        (",".join(['"data":1'] * MEMBERS), True),
        (",".join(['"version":null'] * MEMBERS) + ',"data":1', True),
    ],
    ids=["unknown", "payload", "tags", "repeated", "null"],
)
async def test_thousands_of_members_are_read(
    api: Served, channel: Name, rest: str, is_accepted: bool
) -> None:
    """Names cannot be made to collide, since Python's hashes of texts are secret."""
    answer = (await api.post("/api/publish", _of_a_channel(channel("open"), rest))).json()
    assert ("result" in answer) is is_accepted


async def test_a_batch_in_another_form_is_decoded_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Command by command. The event loop turns in between."""
    monkeypatch.setattr(loop_turns, "TURN_SECONDS", 0)
    commands = [{"publish": {"channel": "a", "data": 1, "tags": None, "version": 1.0}}] * 500
    body = compact(json.dumps({"commands": [*commands, None], "parallel": None}).encode())
    turn_count = 0

    async def count() -> None:
        nonlocal turn_count
        while True:
            turn_count += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    decoded: Any = await METHODS["batch"].decode_in_turns(body, LoopTurns())
    counting.cancel()
    assert turn_count >= 400
    assert (len(decoded.commands), decoded.commands[-1], decoded.parallel) == (501, None, False)
    assert (decoded.commands[0].publish.version, decoded.commands[0].publish.tags) == (1, None)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            {"commands": [{}, {"publish": 1}]},
            f"{NO_OBJECT} at `$.commands[1].publish`",
        ),
        ({"commands": [{}, 7]}, f"{NO_OBJECT} at `$.commands[1]`"),
        (
            {"commands": [{"info": None}, {"publish": {}}]},
            "object missing required field `channel` at `$.commands[1].publish`",
        ),
        (
            {"commands": [{}] * (CALLS_LIMIT + 1)},
            f"expected `array` of length <= {CALLS_LIMIT} at `$.commands`",
        ),
        ({"commands": 1}, "expected `array`, got `int` at `$.commands`"),
        ({"commands": [], "parallel": 1}, "expected `bool | null`, got `int` at `$.parallel`"),
        ({}, "object missing required field `commands`"),
    ],
)
async def test_the_message_names_the_place_in_the_batch(api: Served, body: Any, message: str) -> None:
    code, text = await api.error("batch", **body)
    assert (code, text) == (107, f"bad request: {message}")
