"""The API methods and the command for webhooks: status, and dead letters shown, sent again and discarded."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
from msgspec import Raw

from tests.server.hooks.lifecycle_events import event
from tests.server.served_node import ServedNode, serve_node, until
from tests.support.server import TOCSIN
from tests.support.timing import STARTED
from tests.support.webhook_receiver import Receiver, Request
from tocsin_server.core.delivery import FailingDelivery
from tocsin_server.engine.deliveries import DeadLetter, DeadLetterLimits

LIMITS = DeadLetterLimits(1000, 3600)


class Webhooks:
    """A served node with the webhook `app`, its receiver, and calls of its API."""

    def __init__(self, served: ServedNode, receiver: Receiver, http: httpx.AsyncClient) -> None:
        self.served = served
        self.receiver = receiver
        self._http = http

    async def call(self, method: str, **params: Any) -> Any:
        return (await self._http.post(f"/api/{method}", json=params)).json()

    async def letters(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.call("dead_letters", webhook="app"))["result"][
            "dead_letters"
        ]
        return found

    async def add_letters(self, numbers: Sequence[int]) -> list[str]:
        """Add dead letters of the events with these numbers. Returns their ids."""
        letters = [
            DeadLetter(Raw(msgspec.json.encode(event(number))), "d1", "status 422", 2, 422, 1_700_000_000.5)
            for number in numbers
        ]
        await self.served.node.delivery_store.add_dead_letters("webhooks.app", letters, LIMITS)
        return [letter["id"] for letter in await self.letters()]

    async def tocsin(self, *arguments: str) -> tuple[int, str, str]:
        """Run `tocsin webhooks`. Returns the exit code, standard output and standard error."""
        process = await asyncio.create_subprocess_exec(
            *(str(TOCSIN), "webhooks", *arguments, "--url", self.served.url),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"COLUMNS": "200", "NO_COLOR": "1", "PATH": "/usr/bin:/bin"},
        )
        async with asyncio.timeout(STARTED):
            out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()


@asynccontextmanager
async def serving_webhooks(**options: Any) -> AsyncIterator[Webhooks]:
    receiver = Receiver()
    async with receiver.serving() as url:
        section = {"url": f"{url}?key=hunter2", "batch_size": 4, "batch_delay": 0, **options}
        events = {"types": ["connected", "disconnected"]}
        async with (
            serve_node(webhooks={"app": section}, events=events) as served,
            served.http() as http,
        ):
            await until(lambda: len(next(iter(served.node.services))._running))  # type: ignore[attr-defined]
            yield Webhooks(served, receiver, http)


@pytest.fixture
async def webhooks() -> AsyncIterator[Webhooks]:
    async with serving_webhooks() as found:
        yield found


async def test_the_status_says_whether_deliveries_fail(webhooks: Webhooks) -> None:
    """Without the query of the address, which may hold a secret."""
    (status,) = (await webhooks.call("webhooks"))["result"]["webhooks"]
    assert status["name"] == "webhooks.app"
    assert status["url"].endswith("/events")
    assert (status["failing_parts"], status["dead_letters"], status["error"]) == (0, 0, "")
    now = time.time()
    failing = FailingDelivery("d1", 3, 5, now - 90, now + 30, now - 95, 500, "status 500")
    await webhooks.served.node.delivery_store.set_failing("webhooks.app", 2, failing)
    await webhooks.add_letters(range(3))
    (status,) = (await webhooks.call("webhooks"))["result"]["webhooks"]
    assert (status["failing_parts"], status["dead_letters"], status["error"]) == (1, 3, "status 500")
    assert status["failing_since"] == now - 90
    code, out, _ = await webhooks.tocsin()
    assert code == 0
    assert "webhooks.app" in out
    assert "parts: 1, status 500" in out


async def test_dead_letters_are_read_page_by_page(webhooks: Webhooks) -> None:
    ids = await webhooks.add_letters(range(3))
    first = (await webhooks.call("dead_letters", webhook="webhooks.app", limit=2))["result"]["dead_letters"]
    rest = (await webhooks.call("dead_letters", webhook="app", after=ids[1]))["result"]["dead_letters"]
    assert [letter["event"]["id"] for letter in (*first, *rest)] == ["e0", "e1", "e2"]
    assert first[0]["reason"] == "status 422"
    assert (first[0]["attempts"], first[0]["status"], first[0]["delivery"]) == (2, 422, "d1")


async def test_what_does_not_exist_is_refused(webhooks: Webhooks) -> None:
    """With error 104; with 107 where the request itself is wrong."""
    for method in ("dead_letters", "replay_dead_letters", "discard_dead_letters"):
        assert (await webhooks.call(method, webhook="other"))["error"]["code"] == 104
        assert (await webhooks.call(method))["error"]["code"] == 107
    for params in ({"after": "x"}, {"limit": 0}, {"limit": 1001}):
        assert (await webhooks.call("dead_letters", webhook="app", **params))["error"]["code"] == 107
    answer = await webhooks.call("discard_dead_letters", webhook="app", ids=["x"])
    assert answer["error"]["code"] == 107


async def test_a_replay_sends_at_most_a_batch_and_removes_what_is_taken(webhooks: Webhooks) -> None:
    ids = await webhooks.add_letters(range(6))
    answer = await webhooks.call("replay_dead_letters", webhook="app", ids=[*ids[1:3], "999"])
    assert answer["result"] == {"replayed": 2, "outcome": "delivered", "error": ""}
    answer = await webhooks.call("replay_dead_letters", webhook="app")
    assert answer["result"]["replayed"] == 4
    assert [request.ids for request in webhooks.receiver.requests] == [["e1", "e2"], ["e0", "e3", "e4", "e5"]]
    assert webhooks.receiver.requests[0].delivery != "d1"
    assert await webhooks.letters() == []


async def test_dead_letters_that_are_refused_again_stay(webhooks: Webhooks) -> None:
    webhooks.receiver.answer = lambda _: 500
    await webhooks.add_letters(range(2))
    answer = await webhooks.call("replay_dead_letters", webhook="app")
    assert answer["result"] == {"replayed": 0, "outcome": "failed", "error": "status 500"}
    assert len(await webhooks.letters()) == 2


async def test_the_command_sends_all_that_the_receiver_takes(webhooks: Webhooks) -> None:
    """Also those in one batch with an event that it never takes, which stays a dead letter."""

    def answer(request: Request) -> int:
        return 422 if "e5" in request.ids else 204

    webhooks.receiver.answer = answer
    await webhooks.add_letters(range(11))
    code, out, err = await webhooks.tocsin("replay", "app")
    assert (code, out) == (1, "sent again: 10\n")
    assert "status 422" in err
    assert [letter["event"]["id"] for letter in await webhooks.letters()] == ["e5"]
    assert sorted(webhooks.receiver.ids) == sorted(f"e{number}" for number in range(11) if number != 5)


async def test_the_command_stops_at_a_receiver_that_is_not_there(webhooks: Webhooks) -> None:
    webhooks.receiver.answer = lambda _: 503
    await webhooks.add_letters(range(9))
    code, out, err = await webhooks.tocsin("replay", "app")
    assert (code, out) == (1, "sent again: 0\n")
    assert "status 503" in err
    assert len(webhooks.receiver.requests) == 1
    assert len(await webhooks.letters()) == 9


async def test_the_command_shows_and_discards_dead_letters(webhooks: Webhooks) -> None:
    """Without ids only with --all."""
    ids = await webhooks.add_letters(range(5))
    _, out, _ = await webhooks.tocsin("dead-letters", "app", "--json")
    assert [json.loads(line)["event"]["id"] for line in out.splitlines()] == [f"e{n}" for n in range(5)]
    assert await webhooks.tocsin("discard", "app", ids[0], ids[1]) == (0, "discarded: 2\n", "")
    _, out, _ = await webhooks.tocsin("dead-letters", "app")
    assert [line.partition(" ")[0] for line in out.splitlines()] == ids[2:]
    assert "2 attempts, status 422" in out
    assert (await webhooks.tocsin("discard", "app"))[0] == 1
    assert await webhooks.tocsin("discard", "app", "--all") == (0, "discarded: 3\n", "")
    assert await webhooks.letters() == []


async def test_a_mistake_is_explained_in_one_sentence(webhooks: Webhooks) -> None:
    code, _, err = await webhooks.tocsin("replay", "other")
    assert code == 1
    assert "this node has no webhook 'other'" in err
