"""Setting up subscriptions: what leaves together, and what is read again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tests.server.node.fake_connection import FakeConnection, connected, running
from tests.server.node.faulty_engine import FaultyEngine
from tests.server.served_node import new_channel, publish, until
from tocsin_server.errors import EngineError
from tocsin_server.protocol.messages import ServerMessage

SINCE = {"recover": True, "offset": 0, "epoch": ""}


class CountingConnection(FakeConnection):
    """Notes how many messages each write had."""

    def send(self, messages: Sequence[ServerMessage]) -> None:
        self.writes = [*getattr(self, "writes", []), len(messages)]
        super().send(messages)


async def test_replies_of_subscriptions_that_are_read_together_leave_in_one_write() -> None:
    """The client's own joins follow them."""
    names = [new_channel("open") for _ in range(3)]
    async with running() as node:
        client = CountingConnection(node)
        await client.call("connect")
        client.writes.clear()
        client.send_commands(
            *({"id": 10 + n, "subscribe": {"channel": name}} for n, name in enumerate(names))
        )
        await until(lambda: len(client.pushes("join")) == 3)
        assert client.writes == [3]
        assert [message.get("id") for message in client.received[1:4]] == [10, 11, 12]


async def test_a_subscription_that_fails_does_not_end_those_beside_it() -> None:
    """One of the same message has no room in its channel's presence."""
    full, other = new_channel("open"), new_channel("plain")
    async with running(limits={"presence_entries": 1}) as node:
        await connected(node, full)
        client = await connected(node)
        client.send_commands(
            {"id": 10, "subscribe": {"channel": full}}, {"id": 11, "subscribe": {"channel": other}}
        )
        await until(lambda: client.reply(10) and client.reply(11))
        assert "error" in (client.reply(10) or {})
        assert "subscribe" in (client.reply(11) or {})
        assert not len(node._session_io._read_slots)


async def test_a_publication_that_is_larger_than_a_page_is_recovered() -> None:
    """It is read again, in a larger slot."""
    engine, channel = FaultyEngine(), new_channel("short")
    async with running(engine, client={"recovery_page_bytes": 1000, "history_limit_bytes": 1000}) as node:
        await publish(node, channel, b'"' + b"x" * 5000 + b'"', b"2")
        client = await connected(node)
        engine.calls.clear()
        reply = await client.call("subscribe", channel=channel, **SINCE)
        assert reply["subscribe"]["recovered"]
        assert engine.calls["read_history"] >= 2
        recovered = [one["offset"] for one in reply["subscribe"].get("publications", [])]
        await until(lambda: len(recovered) + len(client.pushes("pub")) == 2)
        assert recovered + [one["offset"] for one in client.pushes("pub")] == [1, 2]
        await until(lambda: not len(node._session_io._read_slots))


async def test_presence_that_fails_while_history_is_read_gives_the_slot_back() -> None:
    engine, channel = FaultyEngine(), new_channel("open")
    async with running(engine) as node:
        await publish(node, channel, b"1")
        client = await connected(node)
        engine.failures["add"] = EngineError("broken")
        assert "error" in await client.call("subscribe", channel=channel, **SINCE)
        assert not len(node._session_io._read_slots)
        engine.failures.clear()
        reply = await client.call("subscribe", channel=channel, **SINCE)
        assert reply["subscribe"]["recovered"]


async def test_a_crowd_recovers_with_few_reads() -> None:
    """Each of its clients gets every publication once."""
    engine, channel = FaultyEngine(turns=lambda: 2), new_channel("short")
    async with running(engine) as node:
        await publish(node, channel, b"1", b"2", b"3")
        clients = [FakeConnection(node) for _ in range(50)]
        for client in clients:
            client.send_commands(
                {"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": channel, **SINCE}}
            )
        await asyncio.sleep(0)
        await publish(node, channel, b"4")
        await until(lambda: all(client.reply(2) for client in clients))
        await publish(node, channel, b"5")
        for client in clients:
            reply = (client.reply(2) or {})["subscribe"]
            recovered = [one["data"] for one in reply["publications"]]
            await until(lambda: 5 in client.data)  # noqa: B023 - awaited here
            assert reply["recovered"]
            assert recovered + client.data == [1, 2, 3, 4, 5]
        assert engine.calls["read_history"] <= 10


async def test_a_subscription_needs_no_task_if_the_engine_answers_at_once() -> None:
    """It is confirmed in the same step."""
    async with running() as node:
        client = await connected(node)
        tasks = asyncio.all_tasks()
        client.send_commands({"id": 10, "subscribe": {"channel": new_channel("plain")}})
        assert asyncio.all_tasks() == tasks
        assert "subscribe" in (client.reply(10) or {})


async def test_the_last_client_that_leaves_unsubscribes_without_a_task() -> None:
    channel = new_channel("plain")
    async with running() as node:
        client = await connected(node, channel)
        tasks = asyncio.all_tasks()
        client.send_commands({"id": 11, "unsubscribe": {"channel": channel}})
        assert asyncio.all_tasks() == tasks
        assert channel not in node.engine.broker._subscribed  # type: ignore[attr-defined]
