"""Several calls in one request: batch, and the legacy endpoint."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.server.api.conftest import Served
from tocsin_server import loop_turns
from tocsin_server.api.methods import COMMANDS
from tocsin_server.api.types import CALLS_LIMIT, BatchCommand, BatchReply

pytestmark = pytest.mark.asyncio(loop_scope="module")

Name = Callable[[str], str]


@pytest.mark.parametrize("parallel", [False, True])
async def test_a_batch_has_one_reply_for_each_command_in_order(
    api: Served, channel: Name, parallel: bool
) -> None:
    """Each reply is under the method's name. The result is not wrapped. Errors do not stop other calls."""
    name = channel("open")
    commands: list[Any] = [
        {"publish": {"channel": name, "data": 1}},
        {"nothing": {}},
        {},
        None,
        {"publish": {"channel": "nowhere:1", "data": 1}},
        {"publish": {"channel": "plain", "data": 1}},
        {"history": {"channel": name, "limit": 1}},
        {"unsubscribe": {"user": "absent"}},
    ]
    answer = await api.call("batch", commands=commands, parallel=parallel)
    epoch = answer["replies"][0]["publish"]["epoch"]
    assert answer == {
        "replies": [
            {"publish": {"offset": 1, "epoch": epoch}},
            {"error": {"code": 104, "message": "not found"}},
            {"error": {"code": 104, "message": "not found"}},
            {"error": {"code": 107, "message": "bad request: a command is null"}},
            {"error": {"code": 102, "message": "unknown channel"}},
            {"publish": {}},
            {"history": {"publications": [{"data": 1, "offset": 1}], "epoch": epoch, "offset": 1}},
            {"unsubscribe": {}},
        ]
    }


async def test_an_empty_batch_has_no_replies(api: Served) -> None:
    """An empty list is a valid batch."""
    assert await api.call("batch", commands=[]) == {"replies": []}


async def test_a_wrong_type_anywhere_refuses_the_batch(api: Served, channel: Name) -> None:
    """No command of it runs."""
    name = channel("open")
    commands = [{"publish": {"channel": name, "data": 1}}, {"presence": {"channel": 1}}]
    code, message = await api.error("batch", commands=commands)
    assert (code, message[-30:]) == (107, "at `$.commands[1].presence.channel`"[-30:])
    assert (await api.result("history", channel=name))["offset"] == 0


@pytest.mark.parametrize("parallel", [False, True])
async def test_a_batch_of_thousands_keeps_their_order(api: Served, channel: Name, parallel: bool) -> None:
    """It runs over several turns of the event loop."""
    name = channel("open")
    commands = [{"publish": {"channel": name, "data": n}} for n in range(1200)]
    replies = (await api.call("batch", commands=commands, parallel=parallel))["replies"]
    assert [reply["publish"]["offset"] for reply in replies] == list(range(1, 1201))


def legacy(*commands: Any) -> bytes:
    """The body of a request to the legacy endpoint."""
    return b"".join(json.dumps(command).encode() for command in commands)


@pytest.mark.parametrize("kind", ["legacy", "in turn", "parallel"])
async def test_thousands_of_calls_yield_to_other_work(
    api: Served, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The event loop turns in between, although the engine in memory never yields to it."""
    turn = 0
    calls_in_turn: Counter[int] = Counter()

    async def note(_user: str, _params: Any) -> None:
        calls_in_turn[turn] += 1

    async def count_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(loop_turns, "TURN_SECONDS", 0)
    monkeypatch.setitem(api.node.operations.rpc_methods, "note", note)
    other = asyncio.create_task(count_turns())
    try:
        if kind == "legacy":
            response = await api.post(
                "/api", legacy(*[{"method": "rpc", "params": {"method": "note"}}] * 1500)
            )
            assert response.text.split("\n") == ['{"result":{"data":null}}'] * 1500
        else:
            commands = [{"rpc": {"method": "note"}}] * 1500
            await api.call("batch", commands=commands, parallel=kind == "parallel")
    finally:
        other.cancel()
        await asyncio.wait([other])
    assert calls_in_turn.total() == 1500
    assert max(calls_in_turn.values()) <= 2


async def test_a_request_with_more_calls_than_the_limit_is_refused(api: Served, channel: Name) -> None:
    """Commands and channels of broadcasts count together. One more than the limit refuses them all."""
    name = channel("open")
    commands: list[Any] = [{"publish": {"channel": name, "data": 1}}] + [None] * (CALLS_LIMIT - 1)
    assert len((await api.call("batch", commands=commands))["replies"]) == CALLS_LIMIT
    expected = f"bad request: expected `array` of length <= {CALLS_LIMIT} at "
    assert await api.error("batch", commands=[*commands, None]) == (107, expected + "`$.commands`")
    channels = [name] * (CALLS_LIMIT + 1)
    assert await api.error("broadcast", channels=channels, data=1) == (107, expected + "`$.channels`")
    half = {"broadcast": {"channels": [name] * (CALLS_LIMIT // 2), "data": 1}}
    expected = f"bad request: more than {CALLS_LIMIT} calls, each channel of a broadcast being one"
    assert await api.error("batch", commands=[half, half, {}]) == (107, expected)
    assert (await api.result("history", channel=name))["offset"] == 1


async def test_the_legacy_endpoint_refuses_too_many_commands(api: Served, channel: Name) -> None:
    """The response is one line, and no command runs."""
    name = channel("open")
    command = legacy({"method": "publish", "params": {"channel": name, "data": 1}})
    assert len((await api.post("/api", command + b"{}" * (CALLS_LIMIT - 1))).text.split("\n")) == CALLS_LIMIT
    response = await api.post("/api", command + b"{}" * CALLS_LIMIT)
    expected = {"code": 107, "message": f"bad request: more than {CALLS_LIMIT} commands"}
    assert (response.status_code, response.json()) == (200, {"error": expected})
    assert (await api.result("history", channel=name))["offset"] == 1


async def test_a_batch_accepts_every_command() -> None:
    """The types of its commands and replies are those of the methods."""
    commands = BatchCommand.__annotations__
    replies = {name: kind for name, kind in BatchReply.__annotations__.items() if name != "error"}
    assert commands == {name: f"{method.request.__name__} | None" for name, method in COMMANDS.items()}
    assert replies == {name: f"{method.result.__name__} | None" for name, method in COMMANDS.items()}


@pytest.mark.parametrize("separator", ["\n", "", " \r\n\t"])
async def test_the_legacy_endpoint_has_one_line_for_each_reply(
    api: Served, channel: Name, separator: str
) -> None:
    """Commands have whitespace between them or none. A reply has the `id` of its command."""
    name = channel("open")
    commands: list[Any] = [
        {"id": 1, "method": "publish", "params": {"channel": name, "data": "}{"}},
        {"method": "publish", "params": {"channel": "nowhere:1", "data": 1}},
        {"id": 3, "method": "nothing", "params": {}},
        {"id": 4, "method": "presence", "params": {"channel": 1}},
        {"id": 5, "params": {}},
        {"id": 6, "method": "history_remove", "params": {"channel": name}},
        {"method": "channels"},
    ]
    response = await api.post("/api", (separator.join(map(json.dumps, commands)) + separator).encode())
    replies = [json.loads(line) for line in response.text.split("\n")]
    assert replies[0] == {"id": 1, "result": {"offset": 1, "epoch": replies[0]["result"]["epoch"]}}
    assert replies[1] == {"error": {"code": 102, "message": "unknown channel"}}
    assert [(reply.get("id"), reply["error"]["code"]) for reply in replies[2:5]] == [
        (3, 104),
        (4, 107),
        (None, 107),
    ]
    assert replies[5:] == [{"id": 6, "result": {}}, {"result": {"channels": {}}}]


async def test_no_command_runs_if_a_later_one_is_broken(api: Served, channel: Name) -> None:
    """The whole body is parsed before the first command runs."""
    name = channel("open")
    command = json.dumps({"method": "publish", "params": {"channel": name, "data": 1}})
    assert (await api.post("/api", f"{command}\n{{".encode())).status_code == 400
    assert (await api.result("history", channel=name))["offset"] == 0
