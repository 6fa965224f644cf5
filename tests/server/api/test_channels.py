"""presence, presence_stats, history, history_remove, channels, info, rpc."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.server.api.conftest import Served
from tests.support.timing import SOON, TICK
from tests.support.tokens import connection_token
from tocsin_server import __version__
from tocsin_server.api import methods, types

pytestmark = pytest.mark.asyncio(loop_scope="module")

Name = Callable[[str], str]


async def test_presence_lists_the_clients_of_a_channel(api: Served, channel: Name) -> None:
    """Clients are listed by client id, with the user and the information of their tokens."""
    name = channel("open")
    ann = connection_token("ann", info={"name": "Ann"})
    async with api.client(token=ann) as one, api.client(token=ann) as two, api.client() as anonymous:
        for client in (one, two, anonymous):
            await client.call("subscribe", channel=name)
        presence = (await api.result("presence", channel=name))["presence"]
        stats = await api.result("presence_stats", channel=name)
    info = {"user": "ann", "conn_info": {"name": "Ann"}}
    assert presence == {
        one.client: {**info, "client": one.client},
        two.client: {**info, "client": two.client},
        anonymous.client: {"user": "", "client": anonymous.client},
    }
    assert stats == {"num_clients": 3, "num_users": 2}


async def test_empty_results_have_all_their_members(api: Served, channel: Name) -> None:
    """Callers may index these members without a check."""
    name = channel("open")
    assert await api.result("presence", channel=name) == {"presence": {}}
    assert await api.result("presence_stats", channel=name) == {"num_clients": 0, "num_users": 0}
    assert await api.result("channels", pattern="none") == {"channels": {}}
    page = await api.result("history", channel=name, limit=-1)
    assert (page["publications"], page["offset"], bool(page["epoch"])) == ([], 0, True)


async def test_history_pages_both_ways(api: Served, channel: Name) -> None:
    """`limit` 0 returns the top alone, a negative one all publications. `since` is where a page begins."""
    name = channel("open")
    for n in range(1, 6):
        await api.result("publish", channel=name, data=n)

    async def offsets(**query: object) -> list[int]:
        page = await api.result("history", channel=name, **query)
        assert page["offset"] == 5
        return [publication["offset"] for publication in page["publications"]]

    assert await offsets() == []
    assert await offsets(limit=2) == [1, 2]
    assert await offsets(limit=-1, since={"offset": 3}) == [4, 5]
    assert await offsets(limit=2, since={"offset": 0}) == [1, 2]
    assert await offsets(limit=2, reverse=True) == [5, 4]
    assert await offsets(limit=-1, reverse=True, since={"offset": 3}) == [2, 1]


async def test_a_page_of_another_epoch_is_refused(api: Served, channel: Name) -> None:
    """Offsets compare only within one epoch, so the error is 112."""
    since = {"offset": 1, "epoch": "other"}
    refused = await api.error("history", channel=channel("open"), limit=1, since=since)
    assert refused == (112, "unrecoverable position")


async def test_history_has_the_client_that_published(api: Served, channel: Name) -> None:
    """`info` describes the client. A publication of the API has none. Tags are there if it has tags."""
    name = channel("open")
    async with api.client(token=connection_token("ann")) as ann:
        await ann.call("publish", channel=name, data=1)
    await api.result("publish", channel=name, data=2, tags={"a": "b"})
    first, second = (await api.result("history", channel=name, limit=-1))["publications"]
    assert first == {"data": 1, "offset": 1, "info": {"user": "ann", "client": ann.client}}
    assert second == {"data": 2, "offset": 2, "tags": {"a": "b"}}


async def test_offsets_continue_after_history_is_removed(api: Served, channel: Name) -> None:
    """History is empty, and its top stays."""
    name = channel("open")
    first = await api.result("publish", channel=name, data=1)
    assert await api.call("history_remove", channel=name) == {"result": {}}
    page = await api.result("history", channel=name, limit=-1)
    assert page == {"publications": [], **first}
    assert await api.result("publish", channel=name, data=2) == {**first, "offset": 2}


@pytest.mark.parametrize("method", ["presence", "presence_stats", "history", "history_remove"])
async def test_a_feature_that_a_channel_lacks_is_not_available(api: Served, method: str) -> None:
    """Error 108 if the feature is off, 102 if the namespace is unknown."""
    assert await api.error(method, channel="plain") == (108, "not available")
    assert await api.error(method, channel="nowhere:1") == (102, "unknown channel")


async def test_channels_with_subscribers_are_listed(api: Served, channel: Name) -> None:
    """Each has its number of subscribers. A glob filters them, and `*` also matches the colon."""
    one, two, empty = channel("open"), channel("open"), channel("open")
    await api.result("publish", channel=empty, data=1)
    async with api.client() as client, api.client() as other:
        for name in (one, two):
            await client.call("subscribe", channel=name)
        await other.call("subscribe", channel=two)
        everything = (await api.result("channels"))["channels"]
        some = (await api.result("channels", pattern=f"o*{two[-2:]}"))["channels"]
    assert everything == {one: {"num_clients": 1}, two: {"num_clients": 2}}
    assert some == {two: {"num_clients": 2}}


async def test_info_describes_each_node(api: Served, channel: Name) -> None:
    """It has the name, the version and the figures of the node, and no other member."""
    async with api.client(token=connection_token("ann")) as client:
        await client.call("subscribe", channel=channel("open"))
        (node,) = (await api.result("info"))["nodes"]
    assert node.pop("uptime") >= 0
    assert node.pop("memory_bytes") > 0
    assert node == {
        "uid": api.node.uid,
        "name": "here",
        "version": __version__,
        "num_clients": 1,
        "num_users": 1,
        "num_channels": 1,
        "num_subs": 1,
        "address": api.url.partition("://")[2],
        "state": "ready",
        "lag_seconds": 0.0,
        "warnings": [],
    }


async def test_rpc_calls_a_method_of_the_application(api: Served) -> None:
    """The method is called for the anonymous user."""
    assert await api.result("rpc", method="double", params=[1]) == {"data": {"user": "", "twice": [1, 1]}}
    assert await api.error("rpc", method="other") == (104, "not found")


async def test_an_rpc_method_whose_own_await_is_cancelled_is_an_internal_error(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_user: str, _params: Any) -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    monkeypatch.setitem(api.node.operations.rpc_methods, "fail", fail)
    with capture_logs():
        assert (await api.error("rpc", method="fail"))[0] == 100


async def test_an_rpc_method_that_ignores_its_cancellation_holds_up_no_server(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that stops cancels requests after a while. The method is left."""
    monkeypatch.setattr("tocsin_server.cancellation.CANCEL_SECONDS", TICK)
    began, released = asyncio.Event(), asyncio.Event()

    async def hang(_user: str, _params: Any) -> None:
        began.set()
        while not released.is_set():
            with suppress(asyncio.CancelledError):
                await released.wait()

    monkeypatch.setitem(api.node.operations.rpc_methods, "hang", hang)
    context: Any = SimpleNamespace(node=api.node)
    request = asyncio.create_task(methods.rpc(context, types.RpcRequest("hang")))
    with capture_logs() as lines:
        await began.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(request, SOON)
    assert [(line["event"], line["method"]) for line in lines] == [
        ("rpc_method_ignores_cancellation", "hang")
    ]
    released.set()
