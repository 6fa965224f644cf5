"""Connect, refresh and close, as the frames say it (protocol §1, §3, §4, §8)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import websockets

from tests.support.api import Api
from tests.support.configs import STANDARD, TRUSTED_ORIGIN
from tests.support.refusal import Refused
from tests.support.server import Server, run_server
from tests.support.tokens import connection_token, seconds_from_now
from tests.support.wire_client import Close, connect_wire, open_wire

Name = Callable[[str], str]


class ConnectedAnyway(Exception):
    """The handshake was completed; the argument is how the server closed."""


async def test_the_connect_reply_has_what_sdks_need(server: Server) -> None:
    """An id, a version, the interval of pings and that they want a pong; nothing that is empty."""
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
    """Pipelined as centrifuge-js does it: replies in the order asked, no push before its subscribe reply."""
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
    """SDKs index the reply by the method's name, also when there is nothing to say."""
    async with connect_wire(server) as wire:
        await wire.send({"id": 7, "publish": {"channel": "open:keys", "data": 1}})
        assert await wire.reply(7) == {"id": 7, "publish": {}}
        await wire.send({"id": 8, "unsubscribe": {"channel": "open:keys"}})
        assert await wire.reply(8) == {"id": 8, "unsubscribe": {}}


async def test_errors_have_code_and_message(server: Server) -> None:
    """Both are indexed by SDKs."""
    async with connect_wire(server) as wire:
        await wire.send({"id": 7, "publish": {"channel": "closed:1", "data": 1}})
        assert await wire.reply(7) == {"id": 7, "error": {"code": 103, "message": "permission denied"}}


async def test_whitespace_in_data_does_not_break_the_framing(server: Server, api: Api, channel: Name) -> None:
    """A back end may send its JSON on several lines: a newline still ends a message on the wire."""
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
    """Only what is said counts; the answer is text."""
    async with open_wire(server) as wire:
        await wire.send_text(b'{"id": 1, "connect": {}}')
        assert "connect" in await wire.reply(1)


async def test_an_error_to_connect_leaves_the_connection_useless(server: Server) -> None:
    """The rest of the frame is dropped, and whatever comes next closes."""
    expired = connection_token("ann", exp=seconds_from_now(-10))
    async with open_wire(server) as wire:
        await wire.send({"id": 1, "connect": {"token": expired}}, {"id": 2, "publish": {"channel": "open:1"}})
        assert (await wire.reply(1))["error"]["code"] == 109
        assert await wire.is_quiet()
        await wire.send({"id": 3, "connect": {}})
        assert (await wire.closed()).code == 3501


async def test_a_connection_nobody_refreshes_is_closed(impatient: Server) -> None:
    """A while after its token's time: 3005, which invites back."""
    async with connect_wire(impatient, token=connection_token("ann", exp=seconds_from_now(3))) as wire:
        assert await wire.closed() == Close(3005, "connection expired")


async def test_a_token_tells_its_time_to_live(server: Server) -> None:
    """`expires` and `ttl` only where there is something to refresh; `expire_at` decouples it from `exp`."""
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


async def test_refresh_renews_what_the_token_says(server: Server, api: Api, channel: Name) -> None:
    """A refresh answers with the new time to live, and replaces the connection's info."""
    news = channel("open")
    short, long = (seconds_from_now(life) for life in (30, 90))
    async with connect_wire(server, token=connection_token("ann", exp=short, info=1)) as wire:
        result = await wire.call("refresh", token=connection_token("ann", exp=long, info=2))
        assert result["expires"] is True
        assert 80 < result["ttl"] <= 90
        await wire.call("subscribe", channel=news)
        (person,) = (await api.call("presence", channel=news))["presence"].values()
    assert person["conn_info"] == 2


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
async def test_a_refresh_that_cannot_be_closes(server: Server, token: str, close: Close) -> None:
    async with connect_wire(server, token=connection_token("ann", exp=seconds_from_now(60))) as wire:
        await wire.send({"id": 2, "refresh": {"token": token}})
        assert await wire.closed() == close


async def test_server_side_positions_recover_in_the_connect_reply(
    server: Server, api: Api, channel: Name
) -> None:
    """`subs` of the connect command are positions; `subs` of its reply what was missed since."""
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


async def test_channels_a_client_names_itself_are_its_own_if_permitted(server: Server, channel: Name) -> None:
    """Of the channels in the connect command those permitted are subscribed, the others skipped."""
    news = channel("open")
    async with open_wire(server) as wire:
        result = await wire.connect(token=connection_token("ann"), subs={news: {}, channel("closed"): {}})
    assert list(result["subs"]) == [news]


async def test_a_token_with_too_many_channels_is_refused(impatient: Server, channel: Name) -> None:
    """More server-side channels than the limit: 3505."""
    token = connection_token("", channels=[channel("open") for _ in range(11)])
    async with open_wire(impatient) as wire:
        await wire.send({"id": 1, "connect": {"token": token}})
        assert await wire.closed() == Close(3505, "channel limit")


async def test_a_token_with_an_unknown_namespace_is_an_error(server: Server) -> None:
    """102 on the connect command."""
    async with open_wire(server) as wire:
        with pytest.raises(Refused) as refused:
            await wire.connect(token=connection_token("ann", channels=["nowhere:1"]))
    assert refused.value.code == 102


async def test_send_is_not_available(server: Server) -> None:
    """There is nobody to send to: 3508."""
    async with connect_wire(server) as wire:
        await wire.send({"send": {"data": {}}})
        assert await wire.closed() == Close(3508, "not available")


async def test_rpc_is_not_available(server: Server) -> None:
    async with connect_wire(server) as wire:
        with pytest.raises(Refused) as refused:
            await wire.call("rpc", method="anything", data={})
    assert (refused.value.code, refused.value.message) == (108, "not available")


async def test_silence_is_not_waited_for(impatient: Server) -> None:
    """A WebSocket on which nothing is said is closed after the stale timeout: 3502."""
    async with open_wire(impatient) as wire:
        assert await wire.closed() == Close(3502, "stale")


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "https://app.example.evil", "null", "http://localhost"]
)
async def test_other_origins_are_refused(server: Server, origin: str) -> None:
    """A page of an origin not allowed gets a 403 instead of a WebSocket."""
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with open_wire(server, additional_headers={"Origin": origin}):
            pass
    assert refused.value.response.status_code == 403


async def test_allowed_origins_are_served(server: Server) -> None:
    for origin in (TRUSTED_ORIGIN, "http://127.0.0.1:12345"):
        async with open_wire(server, additional_headers={"Origin": origin}) as wire:
            assert await wire.connect()


async def test_without_allowed_origins_no_page_is_served(cautious: Server) -> None:
    """Where none are configured, whoever sends an Origin is refused."""
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with open_wire(cautious, additional_headers={"Origin": cautious.url}):
            pass
    assert refused.value.response.status_code == 403


async def test_the_json_subprotocol_may_be_named(server: Server) -> None:
    async with open_wire(server, subprotocols=["centrifuge-json"]) as wire:
        assert await wire.connect()


async def test_protobuf_is_refused_at_the_door(server: Server) -> None:
    """A client that would speak protobuf is turned away before it sends any, or told 3506."""
    options: dict[str, Any] = {"subprotocols": ["centrifuge-protobuf"]}
    for url, more in ((server.websocket_url, options), (server.websocket_url + "?format=protobuf", {})):
        with pytest.raises((websockets.InvalidStatus, ConnectedAnyway)) as refused:
            async with open_wire(server, url, **more) as wire:
                raise ConnectedAnyway(await wire.closed())
        if isinstance(refused.value, ConnectedAnyway):
            assert refused.value.args == (Close(3506, "inappropriate protocol"),)


async def test_a_server_that_leaves_sends_its_clients_back(tmp_path: Path) -> None:
    """On SIGTERM each connection is closed with 3001, nothing is lost, and the process ends well."""
    with run_server(STANDARD, tmp_path) as leaving:
        async with connect_wire(leaving) as one, open_wire(leaving) as silent:
            leaving.process.terminate()
            assert await one.closed() == Close(3001, "shutdown")
            assert await silent.closed() == Close(3001, "shutdown")
