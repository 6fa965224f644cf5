"""The client against a real node, through a proxy that can be cut."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.support.configs import API_KEY
from tests.support.proxy import Proxy
from tests.support.server import Server
from tests.support.timing import SOON
from tests.support.tokens import connection_token
from tocsin import (
    AsyncPublisher,
    CallError,
    Client,
    Disconnected,
    EventStream,
    Joined,
    PermissionDenied,
    Publication,
    Publisher,
    Subscribed,
    Unauthorized,
    api,
    backoff,
)

Name = Callable[[str], str]


@pytest.fixture(autouse=True)
def short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients reconnect quickly, to save time."""
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 0.05)


@pytest.fixture
async def publisher(server: Server) -> AsyncIterator[AsyncPublisher]:
    async with AsyncPublisher(server.url, API_KEY) as publisher:
        yield publisher


async def take(events: Any, count: int) -> list[Any]:
    async with asyncio.timeout(2 * SOON):
        return [(await anext(events)).data for _ in range(count)]


async def test_publications_arrive_once_and_in_order_through_a_link_that_is_cut(
    proxy: Proxy, publisher: AsyncPublisher, channel: Name
) -> None:
    name = channel("open")
    async with Client(proxy.url) as client, client.subscribe(name) as news:
        await publisher.batch([api.publish(name, n) for n in range(3)])
        assert await take(news, 3) == [0, 1, 2]
        for start in (3, 6, 9):
            proxy.cut()
            await publisher.batch([api.publish(name, n) for n in range(start, start + 3)])
            proxy.restore()
            assert await take(news, 3) == [start, start + 1, start + 2]
            assert news.recovered is True


async def test_a_gap_beyond_the_history_is_reported(
    proxy: Proxy, publisher: AsyncPublisher, channel: Name
) -> None:
    """The history keeps five publications."""
    name = channel("short")
    async with Client(proxy.url) as client, client.subscribe(name) as news:
        await publisher.publish(name, 0)
        assert await take(news, 1) == [0]
        proxy.cut()
        await publisher.batch([api.publish(name, n) for n in range(1, 10)])
        proxy.restore()
        events = news.events()
        async with asyncio.timeout(2 * SOON):
            event = await anext(events)
        assert isinstance(event, Subscribed)
        assert event.recovered is False
        await publisher.publish(name, 10)
        assert await take(events, 1) == [10]


async def test_an_event_stream_recovers_on_every_channel(
    proxy: Proxy, publisher: AsyncPublisher, channel: Name
) -> None:
    one, other = channel("open"), channel("long")
    async with EventStream(proxy.url, [one, other]) as stream:
        events = stream.events()
        async with asyncio.timeout(2 * SOON):
            while not isinstance(event := await anext(events), Subscribed) or event.channel != other:
                pass
        await publisher.broadcast([one, other], "a")
        assert await take(stream, 2) == ["a", "a"]
        proxy.cut()
        await publisher.broadcast([one, other], "b")
        await publisher.publish(one, "c")
        proxy.restore()
        assert sorted(await take(stream, 3)) == ["b", "b", "c"]
        assert stream.recovered is True
        assert stream.position.count("@") == 2


async def test_an_event_stream_reports_a_gap_beyond_the_history(
    server: Server, publisher: AsyncPublisher, channel: Name
) -> None:
    name = channel("short")
    for n in range(10):
        position = await publisher.publish(name, n)
    assert position is not None
    async with EventStream(server.url, name, since=f"1@{position.epoch}") as stream:
        reading = asyncio.create_task(take(stream, 1))
        while not reading.done():
            await publisher.publish(name, "live")
            await asyncio.wait([reading], timeout=0.1)
        assert reading.result() == ["live"]
        assert stream.recovered is False


async def test_client_and_api_see_the_publications_of_each_other(
    server: Server, publisher: AsyncPublisher, channel: Name
) -> None:
    name = channel("open")
    token = connection_token("ada")
    async with Client(server.url, token=token) as client, client.subscribe(name) as news:
        await client.publish(name, {"n": 1})
        [first] = [await anext(news)]
        assert first.info is not None
        assert first.info.user == "ada"
        assert await publisher.publish(name, None, tags={"k": "v"}) is not None
        page = await client.history(name, limit=10)
        assert [(one.data, one.tags) for one in page.publications] == [({"n": 1}, {}), (None, {"k": "v"})]
        assert page == await publisher.history(name)
        assert [one.user for one in (await publisher.presence(name)).values()] == ["ada"]
        assert await client.presence(name) == await publisher.presence(name)
        assert (await client.presence_stats(name)).num_users == 1
        assert (await publisher.channels())[name] == 1
        with pytest.raises(CallError, match="108"):
            await client.rpc("anything")


async def test_joins_arrive_and_a_forced_disconnect_is_raised(
    server: Server, publisher: AsyncPublisher, channel: Name
) -> None:
    name, joined = channel("open"), asyncio.Queue[Any]()
    async with Client(server.url) as watcher, Client(server.url, token=connection_token("bob")) as client:
        await watcher.subscribe(name, on_join=joined.put, on_publication=print).ready()
        news = await client.subscribe(name).ready()
        async with asyncio.timeout(2 * SOON):
            while (event := await joined.get()).info.user != "bob":
                pass
            assert isinstance(event, Joined)
            await publisher.disconnect("bob")
            with pytest.raises(Disconnected, match="force disconnect"):
                await anext(news)


async def test_each_refusal_has_its_exception(
    server: Server, token_only_server: Server, channel: Name
) -> None:
    async with Client(token_only_server.url, token="nonsense") as client:
        with pytest.raises(Unauthorized):
            await client.ready()
    async with Client(token_only_server.url, token=connection_token("ada")) as client:
        with pytest.raises(PermissionDenied):
            await client.subscribe("anything").ready()
    with pytest.raises(Unauthorized):
        await anext(EventStream(token_only_server.url, "anything"))
    with pytest.raises(PermissionDenied):
        await anext(EventStream(token_only_server.url, "anything", token=connection_token("ada")))
    with Publisher(server.url, "wrong") as publisher, pytest.raises(Unauthorized):
        publisher.publish("news", 1)


async def test_unusual_payloads_pass_through_client_server_and_history(
    server: Server, publisher: AsyncPublisher, channel: Name
) -> None:
    name = channel("open")
    odd: list[Any] = ["😀", "\u2028", "", 2**64, [], {"": None}, "line\nbreak", 1.5e300]
    async with Client(server.url) as client, client.subscribe(name) as news:
        for one in odd:
            await client.publish(name, one)
        assert await take(news, len(odd)) == odd


async def test_a_reader_far_behind_loses_no_publication_on_a_real_node(
    server: Server, publisher: AsyncPublisher, channel: Name
) -> None:
    name = channel("long")
    async with Client(server.url, inbox_bytes=30_000) as client, client.subscribe(name) as news:
        for start in range(0, 250, 50):
            await publisher.batch([api.publish(name, n) for n in range(start, start + 50)])
        received: list[Publication] = []
        async with asyncio.timeout(2 * SOON):
            while len(received) < 250:
                received.append(await anext(news))
        assert [one.data for one in received] == list(range(250))


async def test_an_address_may_hold_the_user_of_a_proxy_in_between(server: Server, channel: Name) -> None:
    """The server gets that user in ``Authorization``, and the token and API key all the same."""
    name = channel("known")
    url = server.url.replace("//", "//proxy-user:p%23w@")
    token = connection_token("ada")
    async with AsyncPublisher(url, API_KEY) as publisher, EventStream(url, name, token=token) as stream:
        async for event in stream.events():
            if isinstance(event, Subscribed):
                break
        await publisher.publish(name, 1)
        assert (await anext(stream)).data == 1
    async with Client(url, token=token) as client, client.subscribe(name):
        await client.ready()


class Readers:
    """Readers of one channel on both transports. None of them may miss a publication."""

    def __init__(self, url: str, channel: str, last: int) -> None:
        self.received: list[list[int]] = []
        self.ready = asyncio.Semaphore(0)
        self._url = url
        self._channel = channel
        self._last = last

    async def over_websocket(self) -> None:
        async with Client(self._url) as client:
            await self._read(client.subscribe(self._channel).events())

    async def over_sse(self) -> None:
        async with EventStream(self._url, self._channel) as stream:
            await self._read(stream.events())

    async def _read(self, events: Any) -> None:
        received: list[int] = []
        self.received.append(received)
        async for event in events:
            if isinstance(event, Subscribed):
                assert event.recovered is not False
                self.ready.release()
            elif isinstance(event, Publication):
                received.append(event.data)
                if event.data == self._last:
                    return


async def test_many_readers_get_every_publication_once_and_in_order_over_a_breaking_link(
    proxy: Proxy, publisher: AsyncPublisher, channel: Name
) -> None:
    """The history holds all 300 publications, so no break may lose one."""
    name, count = channel("long"), 300
    readers = Readers(proxy.url, name, count - 1)
    async with asyncio.timeout(6 * SOON), asyncio.TaskGroup() as tasks:
        for _ in range(5):
            tasks.create_task(readers.over_websocket())
            tasks.create_task(readers.over_sse())
        for _ in range(10):
            await readers.ready.acquire()
        for start in range(0, count, 20):
            if start % 100 == 40:
                proxy.cut()
            await publisher.batch([api.publish(name, n) for n in range(start, start + 20)])
            if start % 100 == 60:
                proxy.restore()
    assert readers.received == [list(range(count))] * 10
