"""Recoveries and histories in pages: what a node holds for a client that does not read, and for all."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from tests.server.node.fake_connection import FakeConnection, connected, running
from tests.server.node.faulty_engine import FaultyEngine
from tests.server.served_node import new_channel, publish, serve_node, until
from tests.server.transports.sse.stream_server import stream_server
from tests.server.transports.websocket.raw_session import connect, read_messages
from tests.support.raw_connection import commands
from tocsin_server.core.positions import History
from tocsin_server.node import session_tasks
from tocsin_server.node.connection import BEHIND_BYTES
from tocsin_server.node.slots import OWNER_SLOTS

PAYLOAD = b'"' + b"x" * 20_000 + b'"'
PAGE = 100_000
CLIENT = {
    "history_limit_bytes": PAGE,
    "recovery_page_bytes": PAGE,
    "send_timeout": 600,
    "ping_interval": 600,
}
SINCE = {"recover": True, "offset": 0, "epoch": ""}
CHANNELS = 20
COUNT = 30
"""Together 12 MB, in recoveries of 600 KB."""


def subscribes(channels: list[str], **request: Any) -> list[dict[str, Any]]:
    return [
        {"id": number, "subscribe": {"channel": channel, **request}}
        for number, channel in enumerate(channels, start=2)
    ]


async def test_recoveries_hold_one_page_for_a_client_that_does_not_read() -> None:
    """Once it reads, it gets every publication of every channel in order, and what follows."""
    channels = [new_channel("log") for _ in range(CHANNELS)]
    async with serve_node(client=CLIENT) as served_node:
        for channel in channels:
            await publish(served_node.node, channel, *[PAYLOAD] * COUNT)
        async with served_node.tcp(receive_buffer=8192) as (connection, _):
            await connect(connection)
            await connection.send(commands(*subscribes(channels, **SINCE)))
            found = served_node.node.hub.channels
            await until(lambda: len(found) == CHANNELS and all(map(len, found.values())))
            await until(lambda: served_node.connection.is_behind)
            await asyncio.sleep(0.1)
            assert served_node.queued_bytes <= 2 * PAGE + BEHIND_BYTES
            received: dict[str, list[int]] = {channel: [] for channel in channels}
            names = dict(enumerate(channels, start=2))
            async for message in connection.messages():
                if "id" in message:
                    missed = message["subscribe"].get("publications", [])
                    received[names[message["id"]]] += [one["offset"] for one in missed]
                else:
                    received[message["push"]["channel"]].append(message["push"]["pub"]["offset"])
                if sum(map(len, received.values())) == CHANNELS * COUNT:
                    break
            assert received == {channel: list(range(1, COUNT + 1)) for channel in channels}
            await publish(served_node.node, channels[0], b"1")
            (push,) = await read_messages(connection, 1)
            assert push["push"]["pub"]["offset"] == COUNT + 1
        await served_node.until_empty()


async def test_all_replies_to_a_client_behind_share_one_page() -> None:
    """Each reply reads at least one publication. What else has room is read for few replies at once."""
    channels = [new_channel("log") for _ in range(CHANNELS)]
    async with serve_node(client=CLIENT) as served_node:
        for channel in channels:
            await publish(served_node.node, channel, *[PAYLOAD] * COUNT)
        read: list[int] = []
        broker = served_node.node._session_io._engine.broker
        read_history = broker.read_history

        async def read_and_count(*arguments: Any) -> History:
            history = await read_history(*arguments)
            read.append(len(history.publications))
            return history

        broker.read_history = read_and_count  # type: ignore[method-assign, assignment]
        async with served_node.tcp(receive_buffer=8192) as (connection, _):
            await connect(connection)
            await connection.send(commands(*subscribes(channels[:2], **SINCE)))
            await until(lambda: len(read) >= 2 and served_node.connection.is_behind)
            read.clear()
            await connection.send(commands(*subscribes(channels[2:], **SINCE)))
            await until(lambda: len(read) >= CHANNELS - 2)
            assert sum(max(0, count - 1) for count in read) <= OWNER_SLOTS * PAGE // len(PAYLOAD)
        await served_node.until_empty()


async def test_an_event_stream_holds_one_page_before_it_opens_and_afterwards() -> None:
    """All of its channels recover, also those whose first page had no room."""
    channels = [f"history:{number}" for number in range(CHANNELS)]
    async with stream_server(client=CLIENT) as server:
        for channel in channels:
            await publish(server.node, channel, *[PAYLOAD] * 10)
        ids = ",".join(["0@"] * CHANNELS)
        async with server.stream(*channels, last_event_id=ids) as stream:
            received: dict[str, list[int]] = {channel: [] for channel in channels}
            for _ in range(CHANNELS * 10):
                (connection,) = server.node.state.connections
                assert connection.queued_bytes <= 2 * PAGE + BEHIND_BYTES
                message = await stream.message()
                received[message["channel"]].append(message["pub"]["offset"])
        assert received == {channel: list(range(1, 11)) for channel in channels}


async def test_publications_during_a_recovery_follow_it() -> None:
    """They are published while the client has taken only a part of its recovery."""
    channel = new_channel("log")
    async with serve_node(client=CLIENT) as served_node:
        await publish(served_node.node, channel, *[PAYLOAD] * COUNT)
        async with served_node.tcp(receive_buffer=8192) as (connection, _):
            _, reply = await connect(connection, *subscribes([channel], **SINCE))
            offsets = [one["offset"] for one in reply["subscribe"]["publications"]]
            await publish(served_node.node, channel, *[PAYLOAD] * COUNT)
            pushes = await read_messages(connection, 2 * COUNT - len(offsets))
            offsets += [push["push"]["pub"]["offset"] for push in pushes]
        assert offsets == list(range(1, 2 * COUNT + 1))
        await served_node.until_empty()


async def test_a_recovery_that_history_outruns_is_told_as_a_gap() -> None:
    """The client reads so slowly that history no longer holds what it misses."""
    async with serve_node(
        client=CLIENT,
        namespaces={"short": {**SHORT, "history_size": COUNT}},
    ) as served_node:
        await publish(served_node.node, "short:1", *[PAYLOAD] * COUNT)
        async with served_node.tcp(receive_buffer=8192) as (connection, _):
            await connect(connection)
            await connection.send(commands(*subscribes(["short:1"], **SINCE)))
            await until(
                lambda: served_node.node._session_io._catch_ups._channels and served_node.connection.is_behind
            )
            await publish(served_node.node, "short:1", *[PAYLOAD] * 2 * COUNT)
            async for message in connection.messages():
                if "unsubscribe" in message.get("push", {}):
                    break
            assert message["push"]["unsubscribe"]["code"] == 2500
        await served_node.until_empty()


SHORT = {
    "allow_subscribe_for_client": True,
    "allow_subscribe_for_anonymous": True,
    "history_ttl": "300s",
    "force_recovery": True,
}


async def test_histories_wait_until_the_client_has_taken_the_one_before() -> None:
    """However many it asks for."""
    channel = new_channel("log")
    async with serve_node(client=CLIENT) as served_node:
        await publish(served_node.node, channel, *[PAYLOAD] * COUNT)
        async with served_node.tcp(receive_buffer=8192) as (connection, _):
            await connect(connection)
            histories = [{"id": 2 + n, "history": {"channel": channel, "limit": -1}} for n in range(100)]
            await connection.send(commands(*histories))
            await until(lambda: served_node.connection.is_behind)
            await asyncio.sleep(0.1)
            assert served_node.queued_bytes <= 2 * PAGE + BEHIND_BYTES
            replies = await read_messages(connection, 100)
            assert [reply["id"] for reply in replies] == list(range(2, 102))
            assert all(0 < len(json.dumps(reply)) <= PAGE for reply in replies)
        await served_node.until_empty()


async def test_a_slot_is_kept_for_a_while_after_a_large_history(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that requests histories without end leaves time for the others."""
    slept: list[float] = []
    is_over = asyncio.Event()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await is_over.wait()

    monkeypatch.setattr(session_tasks, "SLOT_BYTES_PER_SECOND", 5 * len(PAYLOAD))
    monkeypatch.setattr(session_tasks, "asyncio", SimpleNamespace(**vars(asyncio) | {"sleep": sleep}))
    channel = new_channel("log")
    async with serve_node(client=CLIENT) as served_node:
        await publish(served_node.node, channel, PAYLOAD)
        async with served_node.tcp() as (connection, _):
            await connect(connection)
            await connection.send(commands({"id": 2, "history": {"channel": channel, "limit": -1}}))
            await read_messages(connection, 1)
            assert len(served_node.node._session_io._read_slots) == 1
            assert slept == [pytest.approx(0.2, rel=0.1)]
            is_over.set()
            await until(lambda: not len(served_node.node._session_io._read_slots))


@pytest.mark.parametrize(
    ("method", "request_"), [("subscribe", SINCE), ("history", {"limit": 1}), ("presence", {})]
)
async def test_a_command_that_gets_no_slot_is_refused(
    method: str, request_: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 111, which is temporary. The limit is exact: another command has the only slot."""
    monkeypatch.setattr(session_tasks, "WAIT_SECONDS", 0.05)
    monkeypatch.setattr("tocsin_server.node.history_reads.WAIT_SECONDS", 0.05)
    channel = new_channel("open")
    engine = FaultyEngine()
    async with running(engine, limits={"recovery_bytes": 1}) as node:
        waiting: list[FakeConnection] = [await connected(node) for _ in range(2)]
        async with node._session_io._read_slots.slot(waiting[0]):
            reply = await waiting[1].call(method, channel=channel, **request_)
            assert reply["error"] == {
                "code": 111,
                "message": "too many requests: too many histories and presences are read at once",
                "temporary": True,
            }
        assert method in await waiting[1].call(method, channel=channel, **request_)
        page = node.metrics.page().decode()
        assert 'tocsin_limits_reached_total{limit="limits.recovery_bytes"} 1.0' in page
