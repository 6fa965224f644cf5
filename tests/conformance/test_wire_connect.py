"""Connect, refresh and close at the level of messages (protocol §1, §3, §4, §8)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import websockets

from tests.support.api import Api
from tests.support.configs import STANDARD, TRUSTED_ORIGIN
from tests.support.protobuf_client import protobuf_client
from tests.support.refusal import Refused
from tests.support.server import Server, run_server
from tests.support.tokens import connection_token, seconds_from_now
from tests.support.wire_client import Close, connect_wire, open_wire

Name = Callable[[str], str]


async def test_the_connect_reply_has_what_sdks_need(server: Server) -> None:
    """An id, a version, the ping interval and that pongs are expected. Empty fields are absent."""
    async with open_wire(server) as wire:
        result = await wire.connect()
    assert result.pop("client")
    assert result.pop("version")
    for welcome in ("time", "node"):
        result.pop(welcome, None)
    assert result == {"ping": 25, "pong": True}


async def test_every_connection_has_an_id_of_its_own(server: Server) -> None:
    async with connect_wire(server) as one, connect_wire(server) as two:
        assert one.client != two.client


async def test_commands_in_one_frame_are_answered_in_order(server: Server, channel: Name) -> None:
    """Pipelined as by centrifuge-js. A push never precedes the reply to its subscribe."""
    news = channel("open")
    async with open_wire(server) as wire:
        await wire.send(
            {"connect": {"name": "js"}, "id": 1},
            {"subscribe": {"channel": news, "flag": 1}, "id": 2},
            {"publish": {"channel": news, "data": 1}, "id": 3},
            {"history": {"channel": news}, "id": 4},
        )
        await wire.reply(4)
        await wire.push("pub", news)
    replies = [message["id"] for message in wire.received if "id" in message]
    first_push = next(index for index, message in enumerate(wire.received) if "push" in message)
    assert replies == [1, 2, 3, 4]
    assert first_push >= 2


async def test_empty_results_keep_their_key(server: Server) -> None:
    """SDKs index the reply by the method's name, also when the result is empty."""
    async with connect_wire(server) as wire:
        await wire.send({"id": 7, "publish": {"channel": "open:keys", "data": 1}})
        assert await wire.reply(7) == {"id": 7, "publish": {}}
        await wire.send({"id": 8, "unsubscribe": {"channel": "open:keys"}})
        assert await wire.reply(8) == {"id": 8, "unsubscribe": {}}


async def test_errors_have_code_and_message(server: Server) -> None:
    """SDKs index both."""
    async with connect_wire(server) as wire:
        await wire.send({"id": 7, "publish": {"channel": "closed:1", "data": 1}})
        assert await wire.reply(7) == {"id": 7, "error": {"code": 103, "message": "permission denied"}}


async def test_whitespace_in_data_does_not_break_the_framing(server: Server, api: Api, channel: Name) -> None:
    """A back end may send JSON with line breaks. A newline still ends a message of the protocol."""
    news = channel("open")
    async with connect_wire(server) as wire:
        await wire.call("subscribe", channel=news)
        body = json.dumps({"channel": news, "data": {"a": [1, {"b": "c\nd"}]}}, indent=2).encode()
        await api.post("publish", body)
        assert (await wire.push("pub", news))["data"] == {"a": [1, {"b": "c\nd"}]}
        commands = f'{{"id": 50,\t"publish": {{"channel": "{news}", "data":\r {{ "a" : 1 }} }} }}'
        await wire.send_text(commands)
        assert (await wire.push("pub", news))["data"] == {"a": 1}


async def test_a_trailing_newline_is_tolerated(server: Server) -> None:
    async with open_wire(server) as wire:
        await wire.send_text('{"id": 1, "connect": {}}\n')
        assert "connect" in await wire.reply(1)


async def test_json_may_come_in_a_binary_frame(server: Server) -> None:
    """The reply is a text frame."""
    async with open_wire(server) as wire:
        await wire.send_text(b'{"id": 1, "connect": {}}')
        assert "connect" in await wire.reply(1)


async def test_after_a_refused_connect_every_command_closes(server: Server) -> None:
    """The rest of the frame is ignored. The next command closes the connection."""
    expired = connection_token("ann", exp=seconds_from_now(-10))
    async with open_wire(server) as wire:
        await wire.send({"id": 1, "connect": {"token": expired}}, {"id": 2, "publish": {"channel": "open:1"}})
        assert (await wire.reply(1))["error"]["code"] == 109
        assert await wire.is_quiet()
        await wire.send({"id": 3, "connect": {}})
        assert (await wire.closed()).code == 3501


async def test_a_connection_that_is_not_refreshed_is_closed(short_timeouts_server: Server) -> None:
    """Some time after its token expired: 3005, after which SDKs reconnect."""
    async with connect_wire(
        short_timeouts_server, token=connection_token("ann", exp=seconds_from_now(3))
    ) as wire:
        assert await wire.closed() == Close(3005, "connection expired")


async def test_the_connect_reply_has_the_tokens_time_to_live(server: Server) -> None:
    """`expires` and `ttl` are present only if the connection expires. `expire_at` decouples it from `exp`."""
    in_a_minute = seconds_from_now(60)
    lives: list[tuple[dict[str, Any], bool]] = [
        ({"exp": in_a_minute}, True),
        ({"expire_at": in_a_minute}, True),
        ({"exp": in_a_minute, "expire_at": 0}, False),
        ({}, False),
    ]
    for claims, expires in lives:
        async with open_wire(server) as wire:
            result = await wire.connect(token=connection_token("ann", **claims))
        assert result.get("expires", False) is expires
        assert (50 < result.get("ttl", 0) <= 60) is expires


async def test_refresh_renews_the_connection(server: Server, api: Api, channel: Name) -> None:
    """The reply has the new time to live. The token's info replaces the connection's."""
    news = channel("open")
    short, long = (seconds_from_now(life) for life in (30, 90))
    async with connect_wire(server, token=connection_token("ann", exp=short, info=1)) as wire:
        result = await wire.call("refresh", token=connection_token("ann", exp=long, info=2))
        assert result["expires"] is True
        assert 80 < result["ttl"] <= 90
        await wire.call("subscribe", channel=news)
        (entry,) = (await api.call("presence", channel=news))["presence"].values()
    assert entry["conn_info"] == 2


@pytest.mark.parametrize(
    ("token", "close"),
    [
        ("", Close(3501, "bad request")),
        ("garbage", Close(3500, "invalid token")),
        (connection_token("bob"), Close(3500, "invalid token")),
        (connection_token("ann", exp=seconds_from_now(-10)), Close(3005, "connection expired")),
        (connection_token("ann", channels=["open:1"]), Close(3010, "insufficient state")),
    ],
    ids=["empty", "garbage", "another user's", "expired", "other channels"],
)
async def test_an_invalid_refresh_closes_the_connection(server: Server, token: str, close: Close) -> None:
    async with connect_wire(server, token=connection_token("ann", exp=seconds_from_now(60))) as wire:
        await wire.send({"id": 2, "refresh": {"token": token}})
        assert await wire.closed() == close


async def test_server_side_positions_recover_in_the_connect_reply(
    server: Server, api: Api, channel: Name
) -> None:
    """`subs` of the connect command are positions. `subs` of its reply have the missed publications."""
    one, two = channel("open"), channel("open")
    epoch = (await api.publish(one, {"n": 1}))["epoch"]
    await api.publish_numbers(one, range(2, 4))
    token = connection_token("ann", channels=[one, two])
    positions = {
        one: {"recover": True, "offset": 1, "epoch": epoch},
        two: {"recover": True, "offset": 9, "epoch": "elsewhen"},
    }
    async with open_wire(server) as wire:
        subs = (await wire.connect(token=token, subs=positions))["subs"]
    assert subs[one]["recovered"] is True
    assert [publication["offset"] for publication in subs[one]["publications"]] == [2, 3]
    assert (subs[two].get("recovered", False), subs[two].get("offset", 0)) == (False, 0)


async def test_the_connect_command_may_name_channels(server: Server, channel: Name) -> None:
    """Permitted channels are subscribed, the others are skipped."""
    news = channel("open")
    async with open_wire(server) as wire:
        result = await wire.connect(token=connection_token("ann"), subs={news: {}, channel("closed"): {}})
    assert list(result["subs"]) == [news]


async def test_a_token_with_too_many_channels_is_refused(few_channels_server: Server, channel: Name) -> None:
    """More server-side channels than the limit close with 3505."""
    token = connection_token("", channels=[channel("open") for _ in range(11)])
    async with open_wire(few_channels_server) as wire:
        await wire.send({"id": 1, "connect": {"token": token}})
        assert await wire.closed() == Close(3505, "channel limit")


async def test_a_token_with_an_unknown_namespace_is_an_error(server: Server) -> None:
    """The connect command gets error 102."""
    async with open_wire(server) as wire:
        with pytest.raises(Refused) as refused:
            await wire.connect(token=connection_token("ann", channels=["nowhere:1"]))
    assert refused.value.code == 102


async def test_send_is_not_available(server: Server) -> None:
    """The server has no receiver for it: 3508."""
    async with connect_wire(server) as wire:
        await wire.send({"send": {"data": {}}})
        assert await wire.closed() == Close(3508, "not available")


async def test_rpc_is_not_available(server: Server) -> None:
    async with connect_wire(server) as wire:
        with pytest.raises(Refused) as refused:
            await wire.call("rpc", method="anything", data={})
    assert (refused.value.code, refused.value.message) == (108, "not available")


async def test_a_silent_connection_is_closed(short_timeouts_server: Server) -> None:
    """A WebSocket without a command is closed after the stale timeout: 3502."""
    async with open_wire(short_timeouts_server) as wire:
        assert await wire.closed() == Close(3502, "stale")


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "https://app.example.evil", "null", "http://localhost"]
)
async def test_other_origins_are_refused(server: Server, origin: str) -> None:
    """A page of an origin that is not allowed gets a 403 instead of a WebSocket."""
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with open_wire(server, additional_headers={"Origin": origin}):
            pass
    assert refused.value.response.status_code == 403


async def test_allowed_origins_are_served(server: Server) -> None:
    for origin in (TRUSTED_ORIGIN, "http://127.0.0.1:12345"):
        async with open_wire(server, additional_headers={"Origin": origin}) as wire:
            assert await wire.connect()


async def test_without_allowed_origins_every_origin_is_refused(token_only_server: Server) -> None:
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with open_wire(token_only_server, additional_headers={"Origin": token_only_server.url}):
            pass
    assert refused.value.response.status_code == 403


async def test_the_json_subprotocol_may_be_named(server: Server) -> None:
    async with open_wire(server, subprotocols=["centrifuge-json"]) as wire:
        assert await wire.connect()


async def test_an_unknown_format_is_refused(server: Server) -> None:
    """The connection opens, so that a page learns the code."""
    async with open_wire(server, server.websocket_url + "?format=avro") as wire:
        assert await wire.closed() == Close(3506, "inappropriate protocol")


@pytest.mark.parametrize("query", ["", "?format=protobuf", "?cf_protocol=protobuf"])
async def test_protobuf_may_be_chosen(server: Server, query: str) -> None:
    """By the subprotocol or in the query."""
    async with protobuf_client(server.websocket_url + query, subprotocol=not query) as client:
        assert (await client.call("connect")).client


async def test_a_server_that_drains_disconnects_its_clients(tmp_path: Path) -> None:
    """On SIGTERM each connection is closed with 3001, and nothing is lost. The exit code is 0."""
    with run_server(STANDARD, tmp_path) as leaving:
        async with connect_wire(leaving) as one, open_wire(leaving) as silent:
            leaving.process.terminate()
            assert await one.closed() == Close(3001, "shutdown")
            assert await silent.closed() == Close(3001, "shutdown")
