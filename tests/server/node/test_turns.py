"""Turns of connections on a node: one client's commands never hold up those of another."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.server.node.fake_connection import connected, running
from tests.server.served_node import until
from tocsin_server.node.turns import OWNERS_PER_TURN, TURN_SECONDS, TurnQueue


def unknown(count: int) -> list[dict[str, Any]]:
    """Commands that are refused at once."""
    return [{"id": 100 + n, "presence": {"channel": "no:such"}} for n in range(count)]


async def test_a_client_with_one_command_is_answered_while_another_sends_hundreds() -> None:
    """The other's commands take several turns of the loop, and reading from it pauses until then."""
    async with running() as node:
        flooding, other = await connected(node), await connected(node)
        flooding.send_commands(*unknown(300))
        assert 0 < len(flooding.received) < 100
        assert flooding.pauses[-1] is True
        number = other.send_command("presence", channel="no:such")
        assert other.reply(number) is not None
        await until(lambda: len(flooding.received) == 301)
        assert [reply["id"] for reply in flooding.received[1:]] == [100 + n for n in range(300)]
        assert flooding.pauses[-1] is False


async def test_clients_with_many_commands_take_turns() -> None:
    """None of them is done before the others have had as many turns, give or take one."""
    async with running() as node:
        flooding = [await connected(node) for _ in range(3)]
        for connection in flooding:
            connection.send_commands(*unknown(200))
        await until(lambda: any(len(connection.received) == 201 for connection in flooding))
        assert all(len(connection.received) > 100 for connection in flooding)
        await until(lambda: all(len(connection.received) == 201 for connection in flooding))


async def test_a_client_that_leaves_in_between_needs_no_further_turn() -> None:
    """Its commands are dropped, and its connection is not kept."""
    async with running() as node:
        flooding = await connected(node)
        flooding.send_commands(*unknown(300))
        flooding.drop()
        received = len(flooding.received)
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(flooding.received) == received


class Owners:
    """Owners that record their turns, and a clock that each turn moves."""

    def __init__(self, turn_seconds: float = 0.0) -> None:
        self.turns: list[str] = []
        self.now = 0.0
        self._turn_seconds = turn_seconds
        self.queue = TurnQueue(self._run, lambda: self.now)

    def _run(self, owner: str) -> None:
        self.turns.append(owner)
        self.now += self._turn_seconds
        if owner.startswith("again") and self.turns.count(owner) < 3:
            self.queue.add(owner)
        if owner == "broken":
            raise ValueError("a turn that raises")


async def test_an_owner_that_needs_more_turns_is_queued_behind_the_others() -> None:
    """The order is that of a rotation."""
    owners = Owners()
    for owner in ("again 1", "once", "again 2"):
        owners.queue.add(owner)
    await until(lambda: len(owners.queue) == 0)
    assert owners.turns == ["again 1", "once", "again 2", "again 1", "again 2", "again 1", "again 2"]


async def test_an_owner_is_queued_once() -> None:
    """A second call changes nothing."""
    owners = Owners()
    owners.queue.add("once")
    owners.queue.add("once")
    await until(lambda: len(owners.queue) == 0)
    assert owners.turns == ["once"]


@pytest.mark.parametrize(("seconds", "count"), [(0.0, OWNERS_PER_TURN), (TURN_SECONDS, 1)])
async def test_a_turn_of_the_loop_has_few_turns_of_owners(seconds: float, count: int) -> None:
    """Their number is bounded, and their time."""
    owners = Owners(seconds)
    for number in range(2 * OWNERS_PER_TURN):
        owners.queue.add(f"{number}")
    await asyncio.sleep(0)
    assert len(owners.turns) == count
    await until(lambda: len(owners.queue) == 0)
    assert len(owners.turns) == 2 * OWNERS_PER_TURN


async def test_an_owner_whose_turn_raises_does_not_keep_the_others_from_theirs() -> None:
    """The queue goes on."""
    owners = Owners()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    for owner in ("broken", "once"):
        owners.queue.add(owner)
    await until(lambda: len(owners.queue) == 0)
    assert owners.turns == ["broken", "once"]
