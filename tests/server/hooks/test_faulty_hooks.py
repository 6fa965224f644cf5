"""A hook that raises, or whose answer is not valid, harms no client."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.server.hooks.hooked_node import FaultError, admitted, calls_of, running
from tests.server.node.fake_connection import FakeConnection
from tests.server.served_node import new_channel, until
from tocsin_server import errors
from tocsin_server.hooks.answers import Connected, Published
from tocsin_server.hooks.events import ConnectEvent, PublishEvent


@pytest.mark.parametrize("is_plain", [False, True], ids=["async", "plain"])
async def test_a_hook_that_raises_is_logged_with_its_client_and_without_what_the_client_sent(
    is_plain: bool,
) -> None:
    async def fail(event: PublishEvent) -> Published:
        raise FaultError

    def fail_plainly(event: PublishEvent) -> Published:
        raise FaultError

    async with running(lambda hooks: hooks.publish(fail_plainly if is_plain else fail)) as node:
        news = new_channel("open")
        connection = await admitted(node)
        with capture_logs() as lines:
            reply = await connection.call("publish", channel=news, data="a secret of the client")
        assert reply["error"]["code"] == errors.INTERNAL_ERROR.code
        (line,) = [line for line in lines if line["log_level"] == "error"]
        assert (line["event"], line["kind"], line["client"]) == (
            "hook_raised",
            "publish",
            connection.session.client,
        )
        assert "a secret" not in repr(lines)


async def test_a_hook_that_awaits_what_is_cancelled_refuses_the_request_at_once() -> None:
    async def fail(event: PublishEvent) -> Published:
        task = asyncio.create_task(asyncio.sleep(0, Published()))
        task.cancel()
        return await task

    async with running(lambda hooks: hooks.publish(fail)) as node:
        connection = await admitted(node)
        with capture_logs() as lines:
            reply = await connection.call("publish", channel=new_channel("open"), data=1)
        assert reply["error"]["code"] == errors.INTERNAL_ERROR.code
        assert [line["event"] for line in lines if line["log_level"] == "error"] == ["hook_raised"]
        assert calls_of(node) == {("publish", "fail", "error"): 1}


async def test_an_answer_that_is_not_valid_is_logged_and_refuses_the_request() -> None:
    async def answer(event: PublishEvent) -> Any:
        return errors.Refusal(7000, "out of range")

    async with running(lambda hooks: hooks.publish(answer)) as node:
        connection = await admitted(node)
        with capture_logs() as lines:
            reply = await connection.call("publish", channel=new_channel("open"), data=1)
        assert reply["error"] == {"code": 100, "message": "internal server error", "temporary": True}
        (line,) = [line for line in lines if line["event"] == "hook_answer_invalid"]
        assert line["error"] == "the code of an error must be from 400 to 1999, not 7000"


async def test_a_faulty_connect_hook_makes_the_client_come_back() -> None:
    async def fail(event: ConnectEvent) -> Connected:
        raise FaultError

    async with running(lambda hooks: hooks.connect(fail)) as node:
        connection = FakeConnection(node)
        connection.send_command("connect")
        await until(lambda: connection.closed_with)
        assert connection.closed_with is errors.SERVER_ERROR
        assert calls_of(node) == {("connect", "fail", "error"): 1}


async def test_a_refusal_may_be_raised() -> None:
    async def refuse(event: PublishEvent) -> Published:
        raise errors.Refused(errors.Refusal(402, "not paid"))

    async with running(lambda hooks: hooks.publish(refuse)) as node:
        connection = await admitted(node)
        reply = await connection.call("publish", channel=new_channel("open"), data=1)
        assert reply["error"] == {"code": 402, "message": "not paid"}
        assert calls_of(node) == {("publish", "refuse", "refused"): 1}
