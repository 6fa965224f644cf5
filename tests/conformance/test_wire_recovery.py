"""Whether a position is recovered, case by case (protocol §10)."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.api import Api
from tests.support.refusal import Refused
from tests.support.server import Server
from tests.support.wire_client import WireClient, connect_wire

Name = Callable[[str], str]

NOT_RECOVERED = None


async def recover(wire: WireClient, channel: str, offset: int, epoch: str, **params: Any) -> dict[str, Any]:
    """Subscribe from a position, written as SDKs write it: zero and empty fields are absent."""
    position = {name: value for name, value in (("offset", offset), ("epoch", epoch)) if value}
    return await wire.call("subscribe", channel=channel, recover=True, **position, **params)


@pytest.mark.parametrize(
    ("offset", "epoch", "missed"),
    [
        (5, "right", [6, 7, 8, 9, 10]),
        (6, "right", [7, 8, 9, 10]),
        (9, "right", [10]),
        (10, "right", []),
        (4, "right", NOT_RECOVERED),
        (0, "right", NOT_RECOVERED),
        (11, "right", NOT_RECOVERED),
        (2**60, "right", NOT_RECOVERED),
        (8, "wrong", NOT_RECOVERED),
        (10, "_", NOT_RECOVERED),
        (8, "", [9, 10]),
        (0, "", NOT_RECOVERED),
    ],
)
async def test_a_position_is_recovered_only_completely(
    server: Server, api: Api, channel: Name, offset: int, epoch: str, missed: list[int] | None
) -> None:
    """Ten published, five kept: each position gets everything it missed, or `recovered` is false."""
    short = channel("short")
    right = (await api.publish(short, {"n": 1}))["epoch"]
    await api.publish_numbers(short, range(2, 11))
    async with connect_wire(server) as wire:
        result = await recover(wire, short, offset, epoch.replace("right", right))
        assert result["was_recovering"] is True
        assert result.get("recovered", False) is (missed is not NOT_RECOVERED)
        assert [pub["offset"] for pub in result.get("publications", [])] == (missed or [])
        assert (result["offset"], result["epoch"]) == (10 if missed is NOT_RECOVERED else offset, right)
        await api.publish(short, {"n": 11})
        assert await wire.offsets(short, 1) == [11]


async def test_recovered_publications_are_complete(server: Server, api: Api, channel: Name) -> None:
    """They have the data, the tags and the publisher's info."""
    news = channel("open")
    await api.publish(news, [1], tags={"a": "b"})
    async with connect_wire(server) as publisher, connect_wire(server) as wire:
        await publisher.call("publish", channel=news, data="mine")
        first, second = (await recover(wire, news, 0, ""))["publications"]
    time = {"time"}
    assert {key: first[key] for key in first.keys() - time} == {"data": [1], "offset": 1, "tags": {"a": "b"}}
    assert second["info"] == {"user": "", "client": publisher.client}


async def test_a_first_subscription_can_replay_everything(server: Server, api: Api, channel: Name) -> None:
    """`recover` without a position returns the whole history, if it is complete."""
    news = channel("open")
    await api.publish_numbers(news, range(5))
    async with connect_wire(server) as wire:
        result = await recover(wire, news, 0, "")
    assert [pub["offset"] for pub in result["publications"]] == [1, 2, 3, 4, 5]
    assert (result["recovered"], result.get("offset", 0)) == (True, 0)


@pytest.mark.parametrize(("offset", "recovered"), [(9, False), (10, True)])
async def test_a_recovery_is_capped(
    server: Server, api: Api, channel: Name, offset: int, recovered: bool
) -> None:
    """300 publications can be recovered at once. With more, `recovered` is false."""
    long = channel("long")
    await api.post("batch", {"commands": [{"publish": {"channel": long, "data": n}} for n in range(310)]})
    async with connect_wire(server) as wire:
        result = await recover(wire, long, offset, "")
    assert result.get("recovered", False) is recovered
    assert len(result.get("publications", [])) == (300 if recovered else 0)


@pytest.mark.parametrize(("offset", "epoch"), [(1, "elsewhen"), (2**60, "")])
async def test_a_client_may_prefer_an_error(
    server: Server, api: Api, channel: Name, offset: int, epoch: str
) -> None:
    """With bit 2 of `flag`, an impossible recovery is error 112, and the client is not subscribed."""
    news = channel("open")
    await api.publish(news, {})
    async with connect_wire(server) as wire:
        with pytest.raises(Refused) as refused:
            await recover(wire, news, offset, epoch, flag=3)
        assert refused.value.code == 112
        assert "recovered" not in await wire.call("subscribe", channel=news, flag=3)


async def test_a_channel_without_history_recovers_nothing(server: Server, channel: Name) -> None:
    """`was_recovering` is set, `recovered` is not."""
    async with connect_wire(server) as wire:
        result = await recover(wire, channel("plain"), 1, "any")
    assert result == {"was_recovering": True}


async def test_removed_history_cannot_be_recovered(server: Server, api: Api, channel: Name) -> None:
    """After `history_remove` only a client that missed nothing is recovered."""
    news = channel("open")
    epoch = (await api.publish(news, {}))["epoch"]
    await api.publish(news, {})
    await api.call("history_remove", channel=news)
    for offset, recovered in ((1, False), (2, True)):
        async with connect_wire(server) as wire:
            assert (await recover(wire, news, offset, epoch)).get("recovered", False) is recovered


@pytest.mark.parametrize(
    ("offset", "epoch", "given"),
    [
        (0, "", [3]),
        (1, "right", [3]),
        (2, "right", [3]),
        (3, "right", []),
        (1, "wrong", [3]),
        (3, "wrong", [3]),
    ],
)
async def test_a_cache_recovers_its_newest_publication(
    server: Server, api: Api, channel: Name, offset: int, epoch: str, given: list[int]
) -> None:
    """In cache mode this is the only one, unless the client already has it."""
    cache = channel("cache")
    right = (await api.publish(cache, {"n": 1}))["epoch"]
    await api.publish_numbers(cache, range(2, 4))
    async with connect_wire(server) as wire:
        result = await recover(wire, cache, offset, epoch.replace("right", right))
        assert result["recovered"] is True
        assert [pub["offset"] for pub in result.get("publications", [])] == given
        await api.publish(cache, {"n": 4})
        assert await wire.offsets(cache, 1) == [4]


async def test_an_empty_cache_recovers_a_client_at_the_top(server: Server, api: Api, channel: Name) -> None:
    """Other clients are not recovered."""
    cache = channel("cache")
    epoch = (await api.publish(cache, {}))["epoch"]
    await api.call("history_remove", channel=cache)
    for offset, recovered in ((1, True), (0, False)):
        async with connect_wire(server) as wire:
            assert (await recover(wire, cache, offset, epoch)).get("recovered", False) is recovered


async def test_a_cache_can_be_delivered_without_recovery(server: Server, api: Api, channel: Name) -> None:
    """With `auto_cache_recover` a plain subscribe starts with the newest publication."""
    cache = channel("autocache")
    await api.publish_numbers(cache, range(1, 4))
    async with connect_wire(server) as wire:
        result = await wire.call("subscribe", channel=cache)
    assert result["recovered"] is True
    assert [pub["data"] for pub in result["publications"]] == [{"n": 3}]


async def test_no_publication_is_lost_around_the_subscribe_reply(
    server: Server, api: Api, channel: Name
) -> None:
    """Clients that recover while many publications arrive get each offset once, in order."""
    news = channel("long")
    await api.publish(news, {"n": 1})
    commands = [{"publish": {"channel": news, "data": {"n": n}}} for n in range(2, 12)]

    async def receive(wire: WireClient) -> list[int]:
        result = await recover(wire, news, 0, "")
        offsets = [pub["offset"] for pub in result.get("publications", [])]
        return offsets + await wire.offsets(news, 101 - len(offsets))

    async with connect_wire(server) as one, connect_wire(server) as two, asyncio.TaskGroup() as tasks:
        receiving = [tasks.create_task(receive(wire)) for wire in (one, two)]
        for _ in range(10):
            await api.post("batch", {"commands": commands})
    for task in receiving:
        assert task.result() == list(range(1, 102))
