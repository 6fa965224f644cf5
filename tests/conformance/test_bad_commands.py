"""Invalid commands close the connection with the protocol's code, and harm no other client (§1, §7)."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.refusal import Refused
from tests.support.server import Server
from tests.support.wire_client import Close, connect_wire, open_wire

pytestmark = pytest.mark.usefixtures("other_clients_are_unharmed")

Name = Callable[[str], str]
BAD_REQUEST = Close(3501, "bad request")


def publish(data: str) -> str:
    """A publish command with this text as its data."""
    return f'{{"id": 2, "publish": {{"channel": "open:1", "data": {data}}}}}'


NO_COMMANDS = {
    "nothing": "",
    "a newline": "\n",
    "an empty line": '{"id": 2, "publish": {"channel": "open:1", "data": 1}}\n\n{}',
    "no JSON": "hello",
    "half of an object": '{"id": 2, "publish": {"channel": ',
    "two objects without a newline": '{"id": 2}{"id": 3}',
    "trailing comma": '{"id": 2,}',
    "single quotes": "{'id': 2}",
    "a byte order mark": '\ufeff{"id": 2, "publish": {"channel": "open:1", "data": 1}}',
    "a list": "[]",
    "a list of commands": '[{"id": 2, "publish": {"channel": "open:1", "data": 1}}]',
    "a string": '"connect"',
    "a number": "1",
    "null": "null",
    "an unknown method": '{"id": 2, "shout": {"channel": "open:1"}}',
    "an id and no method": '{"id": 2}',
    "a method and no id": '{"publish": {"channel": "open:1", "data": 1}}',
    "id 0": '{"id": 0, "publish": {"channel": "open:1", "data": 1}}',
    "a negative id": '{"id": -1, "publish": {"channel": "open:1", "data": 1}}',
    "an id of text": '{"id": "2", "publish": {"channel": "open:1", "data": 1}}',
    "an id with a fraction": '{"id": 1.5, "publish": {"channel": "open:1", "data": 1}}',
    "an id of 33 bits": '{"id": 4294967296, "publish": {"channel": "open:1", "data": 1}}',
    "an id of a thousand digits": f'{{"id": {"9" * 1000}, "publish": {{"channel": "open:1", "data": 1}}}}',
    "an id beyond any float": '{"id": 1e400, "publish": {"channel": "open:1", "data": 1}}',
    "a method that is a list": '{"id": 2, "publish": []}',
    "a method that is text": '{"id": 2, "publish": "open:1"}',
    "a channel that is a number": '{"id": 2, "publish": {"channel": 1, "data": 1}}',
    "a channel that is an object": '{"id": 2, "subscribe": {"channel": {}}}',
    "an offset below zero": '{"id": 2, "subscribe": {"channel": "open:1", "recover": true, "offset": -1}}',
    "an offset of 65 bits": f'{{"id": 2, "subscribe": {{"channel": "open:1", "offset": {2**64}}}}}',
    "recover that is text": '{"id": 2, "subscribe": {"channel": "open:1", "recover": "yes"}}',
    "an epoch that is a number": '{"id": 2, "subscribe": {"channel": "open:1", "recover": true, "epoch": 5}}',
    "a limit of 33 bits": '{"id": 2, "history": {"channel": "open:1", "limit": 4294967296}}',
    "a limit that is text": '{"id": 2, "history": {"channel": "open:1", "limit": "all"}}',
    "a position that is a list": '{"id": 2, "history": {"channel": "open:1", "since": [1]}}',
    "a token that is a number": '{"id": 2, "refresh": {"token": 1}}',
    "an unfinished text as data": publish('"text'),
    "data that is not a number": publish("NaN"),
    "data that is infinite": publish("Infinity"),
    "data with a leading zero": publish("01"),
    "data with a bare word": publish("{a: 1}"),
    "data with a trailing comma": publish("[1,]"),
    "data with a control character in a text": publish('"\x01"'),
    "data with an unknown escape": publish(r'"\x41"'),
    "data with half an escape": publish(r'"\u12"'),
    "lists without end": "[" * 60_000,
    "objects without end": '{"a":' * 12_000,
    "data without end": publish("[" * 60_000),
    "an empty channel to subscribe to": '{"id": 2, "subscribe": {"channel": ""}}',
    "no channel to subscribe to": '{"id": 2, "subscribe": {}}',
    "no channel to unsubscribe from": '{"id": 2, "unsubscribe": {}}',
    "no channel to publish into": '{"id": 2, "publish": {"data": 1}}',
    "no channel to read": '{"id": 2, "history": {"limit": 1}}',
    "presence without a channel": '{"id": 2, "presence": {}}',
    "no channel to count": '{"id": 2, "presence_stats": {}}',
}


@pytest.mark.parametrize("text", NO_COMMANDS.values(), ids=NO_COMMANDS)
async def test_an_invalid_command_closes_the_connection(server: Server, text: str) -> None:
    """The code is 3501, without an error reply, for text and for binary frames."""
    for message in (text, text.encode()):
        async with connect_wire(server) as wire:
            await wire.send_text(message)
            assert await wire.closed() == BAD_REQUEST
        assert not any("error" in reply for reply in wire.received)


@pytest.mark.parametrize(
    "command",
    [
        {"subscribe": {"channel": "open:1"}},
        {"publish": {"channel": "open:1", "data": 1}},
        {"history": {"channel": "open:1"}},
        {"presence": {"channel": "open:1"}},
        {"refresh": {"token": "x"}},
        {"rpc": {"method": "x"}},
        {"unsubscribe": {"channel": "open:1"}},
    ],
    ids=lambda command: next(iter(command)),
)
async def test_a_command_before_connect_closes_the_connection(
    server: Server, command: dict[str, Any]
) -> None:
    """The code is 3501, also when connect follows in the same frame."""
    for later in ([], [{"id": 2, "connect": {}}]):
        async with open_wire(server) as wire:
            await wire.send({"id": 1, **command}, *later)
            assert await wire.closed() == BAD_REQUEST
            assert wire.received == []


async def test_a_pong_before_connect_closes_the_connection(server: Server) -> None:
    async with open_wire(server) as wire:
        await wire.send({})
        assert await wire.closed() == BAD_REQUEST


async def test_a_second_connect_closes_the_connection(server: Server) -> None:
    """The code is 3501, in the same frame or later."""
    async with open_wire(server) as wire:
        await wire.send({"id": 1, "connect": {}}, {"id": 2, "connect": {}})
        assert await wire.closed() == BAD_REQUEST
    async with connect_wire(server) as wire:
        await wire.send({"id": 2, "connect": {}})
        assert await wire.closed() == BAD_REQUEST


async def test_command_ids_may_be_repeated(server: Server) -> None:
    """Each command gets a reply with the id it came with. The server does not check ids for uniqueness."""
    async with connect_wire(server) as wire:
        await wire.send(*[{"id": 5, "publish": {"channel": "plain:1", "data": n}} for n in range(3)])
        for _ in range(3):
            assert await wire.reply(5) == {"id": 5, "publish": {}}


async def test_the_largest_command_id_is_accepted(server: Server) -> None:
    async with connect_wire(server) as wire:
        await wire.send({"id": 2**32 - 1, "unsubscribe": {"channel": "plain:1"}})
        assert (await wire.reply(2**32 - 1))["unsubscribe"] == {}


@pytest.mark.parametrize(
    "name",
    [
        "x" * 256,
        "x" * 300,
        "open:" + "x" * 295,
        "x" * 60_000,
        "größe",
        "open:größe",
        "open:\u2028",
        "open:\ud800",
    ],
    ids=lambda name: ascii(name[:12]) + f" of {len(name)}",
)
@pytest.mark.parametrize("method", ["subscribe", "publish", "history", "presence", "presence_stats"])
async def test_invalid_channel_names_are_refused(server: Server, method: str, name: str) -> None:
    """A name that is too long or not ASCII is error 107. The connection stays open."""
    async with connect_wire(server) as wire:
        with pytest.raises(Refused) as refused:
            await wire.call(method, channel=name, data=1)
        assert refused.value.code == 107
        await wire.call("publish", channel="open:1", data=1)


@pytest.mark.parametrize(
    "params",
    [
        {"connect": {"name": "\ud800", "version": "\ud800", "data": "\ud800"}},
        {"connect": {"name": "x" * 10_000, "version": "x" * 10_000}},
        {"connect": {"headers": {"\ud800": "\ud800"}, "data": [[[{}]]], "novelty": {"a": 1}}},
        {"connect": {"subs": {"\ud800": {}, "open:" + "x" * 300: {}, "": {}}}},
    ],
)
async def test_an_unusual_connect_command_causes_no_server_error(
    server: Server, params: dict[str, Any]
) -> None:
    """It is accepted or refused. The server neither closes with 3004 nor stays silent."""
    async with open_wire(server) as wire:
        await wire.send({"id": 1, **params})
        await wire.send({"id": 2, "publish": {"channel": "plain:1", "data": 1}})
        await wire.send({"id": 3, "connect": {}})
        assert (await wire.closed()).code == 3501


async def test_half_a_surrogate_in_data_is_delivered(server: Server, channel: Name) -> None:
    """JSON permits it. It is delivered as it was written, or as U+FFFD."""
    news = channel("open")
    async with connect_wire(server) as wire:
        await wire.call("subscribe", channel=news)
        await wire.call("publish", channel=news, data={"half": "\ud800"})
        assert (await wire.push("pub", news))["data"]["half"] in "\ud800\ufffd"


async def test_numbers_in_data_are_delivered_unchanged(server: Server, channel: Name) -> None:
    """A number with more digits than any number type holds is delivered as it was written."""
    news = channel("open")
    digits = "1234567890" * 50
    async with connect_wire(server) as wire:
        await wire.call("subscribe", channel=news)
        command = f'{{"id": 50, "publish": {{"channel": "{news}", "data": [{digits}, 1e400, -0.0]}}}}'
        await wire.send_text(command)
        await wire.push("pub", news)
    assert any(f"[{digits},1e400,-0.0]" in text.replace(" ", "") for text in wire.frames)


async def test_subscriptions_beyond_the_channel_limit_are_refused(server: Server, channel: Name) -> None:
    """128 subscriptions are accepted and work. Each further one is error 106."""
    prefix = channel("plain")
    names = [f"{prefix}:{n}" for n in range(900)]  # a thousand commands are permitted at once
    async with connect_wire(server) as wire:
        for start in range(0, 900, 200):
            batch = names[start : start + 200]
            await wire.send(
                *[{"id": start + n, "subscribe": {"channel": x}} for n, x in enumerate(batch, 10)]
            )
        replies = [await wire.reply(number) for number in range(10, 910)]
        assert [reply.get("error", {}).get("code") for reply in replies] == [None] * 128 + [106] * 772
        await wire.call("unsubscribe", channel=names[0])
        await wire.call("subscribe", channel=names[899])
        await wire.call("publish", channel=names[127], data=1)
        assert await wire.push("pub", names[127])


async def test_a_thousand_commands_in_one_frame_are_answered(server: Server) -> None:
    """The replies come in the order of the commands."""
    async with connect_wire(server) as wire:
        await wire.send(*[{"id": n, "unsubscribe": {"channel": "plain:1"}} for n in range(10, 1010)])
        await wire.reply(1009)
    assert [message["id"] for message in wire.received[1:]] == list(range(10, 1010))
