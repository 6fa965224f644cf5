"""Every method of the HTTP API that the PyPI package `cent` has, against a real server (protocol §14)."""

import asyncio
from collections.abc import AsyncIterator, Callable

import cent
import pytest
from cent.exceptions import CentApiResponseError, CentTransportError, CentUnauthorizedError

from tests.support.configs import API_KEY
from tests.support.server import Server
from tests.support.tokens import connection_token
from tests.support.wire_client import Close, connect_wire, open_wire

Name = Callable[[str], str]


@pytest.fixture
async def client(server: Server) -> AsyncIterator[cent.AsyncClient]:
    async with cent.AsyncClient(server.api_url, API_KEY) as asynchronous:
        yield asynchronous


async def test_publish_returns_a_position(client: cent.AsyncClient, channel: Name) -> None:
    """Offsets count 1, 2, 3 within one epoch."""
    news = channel("open")
    results = [await client.publish(cent.PublishRequest(channel=news, data={"n": n})) for n in range(3)]
    assert [result.offset for result in results] == [1, 2, 3]
    assert len({result.epoch for result in results}) == 1
    assert results[0].epoch


async def test_publish_without_history_returns_no_position(client: cent.AsyncClient, channel: Name) -> None:
    result = await client.publish(cent.PublishRequest(channel=channel("plain"), data={}))
    assert (result.offset, result.epoch) == (0, "")


async def test_publish_can_skip_history(server: Server, client: cent.AsyncClient, channel: Name) -> None:
    """With `skip_history` subscribers receive the publication, and history does not keep it."""
    news = channel("open")
    async with connect_wire(server) as subscriber:
        await subscriber.call("subscribe", channel=news)
        await client.publish(cent.PublishRequest(channel=news, data="gone", skip_history=True))
        assert (await subscriber.push("pub", news))["data"] == "gone"
    page = await client.history(cent.HistoryRequest(channel=news, limit=-1))
    assert (page.publications, page.offset) == ([], 0)


async def test_a_repeated_publish_is_one_publication(client: cent.AsyncClient, channel: Name) -> None:
    """The same idempotency key returns the first result again, and nothing is published."""
    news = channel("open")
    request = cent.PublishRequest(channel=news, data="once", idempotency_key="key")
    first, other, again = [
        await client.publish(request),
        await client.publish(cent.PublishRequest(channel=news, data="between")),
        await client.publish(request),
    ]
    assert (first.offset, other.offset, again.offset) == (1, 2, 1)
    assert (await client.history(cent.HistoryRequest(channel=news))).offset == 2


async def test_an_idempotency_key_holds_for_one_channel(client: cent.AsyncClient, channel: Name) -> None:
    """The same key in another channel is another publication."""
    channels = [channel("open"), channel("open")]
    for name in channels:
        await client.publish(cent.PublishRequest(channel=name, data=1, idempotency_key="key"))
    pages = [await client.history(cent.HistoryRequest(channel=name)) for name in channels]
    assert [page.offset for page in pages] == [1, 1]


async def test_broadcast_returns_a_result_for_each_channel(client: cent.AsyncClient, channel: Name) -> None:
    """Results come in the order of the channels. A refused channel does not stop the others."""
    one, two = channel("open"), channel("open")
    request = cent.BroadcastRequest(channels=[one, "nowhere:1", two], data={"to": "all"})
    first, refused, last = (await client.broadcast(request)).responses
    assert [answer.result and answer.result.offset for answer in (first, refused, last)] == [1, None, 1]
    assert refused.error is not None
    assert refused.error.code == 102
    page = await client.history(cent.HistoryRequest(channel=two, limit=1))
    assert page.publications[0].data == {"to": "all"}


async def test_batch_executes_several_commands_in_one_request(
    client: cent.AsyncClient, channel: Name
) -> None:
    """Each command has its reply, in order."""
    news = channel("open")
    commands = [
        cent.PublishRequest(channel=news, data=1),
        cent.PresenceStatsRequest(channel=news),
        cent.HistoryRequest(channel=news, limit=10),
    ]
    published, stats, page = (await client.batch(cent.BatchRequest(requests=commands))).replies
    assert isinstance(published, cent.PublishResult)
    assert published.offset == 1
    assert isinstance(stats, cent.PresenceStatsResult)
    assert stats.num_clients == 0
    assert isinstance(page, cent.HistoryResult)
    assert [publication.data for publication in page.publications] == [1]


async def test_presence_lists_connections_and_counts_users(
    server: Server, client: cent.AsyncClient, channel: Name
) -> None:
    """Presence and its stats of two connections of one user."""
    news = channel("open")
    token = connection_token("ann", info={"name": "Ann"})
    async with connect_wire(server, token=token) as one, connect_wire(server, token=token) as two:
        for wire in (one, two):
            await wire.call("subscribe", channel=news)
        clients = (await client.presence(cent.PresenceRequest(channel=news))).presence
        stats = await client.presence_stats(cent.PresenceStatsRequest(channel=news))
    assert set(clients) == {one.client, two.client}
    assert [(info.user, info.conn_info) for info in clients.values()] == [("ann", {"name": "Ann"})] * 2
    assert (stats.num_clients, stats.num_users) == (2, 1)


async def test_history_is_read_in_pages(client: cent.AsyncClient, channel: Name) -> None:
    """`limit`, `since` and `reverse` work as on a client's connection."""
    news = channel("open")
    for n in range(1, 6):
        await client.publish(cent.PublishRequest(channel=news, data=n, tags={"n": str(n)}))
    first = await client.history(cent.HistoryRequest(channel=news, limit=2))
    since = cent.StreamPosition(offset=2, epoch=first.epoch)
    after = await client.history(cent.HistoryRequest(channel=news, limit=-1, since=since))
    newest = await client.history(cent.HistoryRequest(channel=news, limit=2, reverse=True))
    assert [publication.offset for publication in first.publications] == [1, 2]
    assert [publication.data for publication in after.publications] == [3, 4, 5]
    assert [publication.tags for publication in newest.publications] == [{"n": "5"}, {"n": "4"}]
    assert (first.offset, after.offset, newest.offset) == (5, 5, 5)


async def test_removed_history_keeps_the_position(client: cent.AsyncClient, channel: Name) -> None:
    """After `history_remove` the history is empty, and offsets continue."""
    news = channel("open")
    first = await client.publish(cent.PublishRequest(channel=news, data=1))
    await client.history_remove(cent.HistoryRemoveRequest(channel=news))
    page = await client.history(cent.HistoryRequest(channel=news, limit=-1))
    assert (page.publications, page.offset, page.epoch) == ([], 1, first.epoch)
    assert (await client.publish(cent.PublishRequest(channel=news, data=2))).offset == 2


async def test_channels_with_subscribers_are_listed(
    server: Server, client: cent.AsyncClient, channel: Name
) -> None:
    """The list has the number of subscribers of each channel, and can be filtered by a glob."""
    news, empty = channel("open"), channel("open")
    await client.publish(cent.PublishRequest(channel=empty, data=1))
    async with connect_wire(server) as wire:
        await wire.call("subscribe", channel=news)
        everything = (await client.channels(cent.ChannelsRequest())).channels
        some = (await client.channels(cent.ChannelsRequest(pattern=news[:-1] + "?"))).channels
        none = (await client.channels(cent.ChannelsRequest(pattern="other:*"))).channels
    assert everything[news].num_clients == some[news].num_clients == 1
    assert empty not in everything
    assert none == {}


async def test_info_describes_the_node(server: Server, client: cent.AsyncClient) -> None:
    """The one node counts its clients, channels and users."""
    async with connect_wire(server, token=connection_token("ann")) as wire:
        await wire.call("subscribe", channel="open:info")
        (node,) = (await client.info(cent.InfoRequest())).nodes
    assert node.uid
    assert node.name
    assert node.version
    assert min(node.num_clients, node.num_users, node.num_channels) >= 1


async def test_subscribe_and_unsubscribe_reach_the_client(
    server: Server, client: cent.AsyncClient, channel: Name
) -> None:
    """The user's connections get pushes; `unsubscribe` has code 2000."""
    user, news = channel("user"), channel("closed")
    async with connect_wire(server, token=connection_token(user)) as wire:
        await client.subscribe(cent.SubscribeRequest(user=user, channel=news, info={"seat": 1}))
        assert await wire.push("subscribe", news) == {}
        presence = (await client.presence(cent.PresenceRequest(channel=news))).presence
        assert presence[wire.client].chan_info == {"seat": 1}
        await client.unsubscribe(cent.UnsubscribeRequest(user=user, channel=news))
        assert (await wire.push("unsubscribe", news))["code"] == 2000


async def test_subscribe_can_name_one_client(server: Server, client: cent.AsyncClient, channel: Name) -> None:
    """`client` limits a command to one of the user's connections."""
    user, news = channel("user"), channel("plain")
    token = connection_token(user)
    async with connect_wire(server, token=token) as one, connect_wire(server, token=token) as two:
        await client.subscribe(cent.SubscribeRequest(user=user, channel=news, client=two.client))
        await client.publish(cent.PublishRequest(channel=news, data=1))
        assert (await two.push("pub", news))["data"] == 1
        assert await one.is_quiet()


async def test_disconnect_ends_all_connections_of_a_user(
    server: Server, client: cent.AsyncClient, channel: Name
) -> None:
    """Except those on the whitelist. Other users stay connected. The code is the given one."""
    user = channel("user")
    token = connection_token(user)
    async with (
        connect_wire(server, token=token) as kept,
        connect_wire(server, token=token) as gone,
        connect_wire(server, token=connection_token(user + "0")) as other,
    ):
        why = cent.Disconnect(code=4242, reason="because")
        await client.disconnect(cent.DisconnectRequest(user=user, whitelist=[kept.client], disconnect=why))
        assert await gone.closed() == Close(4242, "because")
        for wire in (kept, other):
            await wire.call("publish", channel="open:still", data={})
        await client.disconnect(cent.DisconnectRequest(user=user))
        assert await kept.closed() == Close(3503, "force disconnect")


async def test_refresh_can_expire_a_connection(
    server: Server, client: cent.AsyncClient, channel: Name
) -> None:
    """`expired` closes with 3005. Otherwise the client gets its new time to live."""
    user = channel("user")
    async with connect_wire(server, token=connection_token(user)) as wire:
        await client.refresh(cent.RefreshRequest(user=user, expired=True))
        assert await wire.closed() == Close(3005, "connection expired")


async def test_commands_for_absent_users_succeed(client: cent.AsyncClient, channel: Name) -> None:
    """The result is empty."""
    user = channel("user")
    await client.subscribe(cent.SubscribeRequest(user=user, channel=channel("open")))
    await client.unsubscribe(cent.UnsubscribeRequest(user=user, channel=channel("open")))
    await client.disconnect(cent.DisconnectRequest(user=user))
    await client.refresh(cent.RefreshRequest(user=user, expired=True))


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (cent.PublishRequest(channel="nowhere:1", data={}), 102),
        (cent.PublishRequest(channel="", data={}), 107),
        (cent.PresenceRequest(channel="plain:1"), 108),
        (cent.PresenceStatsRequest(channel="plain:1"), 108),
        (cent.HistoryRequest(channel="plain:1"), 108),
        (cent.HistoryRemoveRequest(channel="plain:1"), 108),
        (cent.BroadcastRequest(channels=[], data={}), 107),
        (
            cent.HistoryRequest(
                channel="open:1", limit=1, since=cent.StreamPosition(offset=1, epoch="elsewhen")
            ),
            112,
        ),
    ],
    ids=lambda value: value.api_method if isinstance(value, cent.CentRequest) else str(value),
)
async def test_a_refusal_has_the_code_of_the_protocol(
    client: cent.AsyncClient, request_: "cent.CentRequest[cent.CentResult]", code: int
) -> None:
    """The error is in a response with status 200."""
    with pytest.raises(CentApiResponseError) as refused:
        await client._send(request_)
    assert refused.value.code == code


async def test_a_wrong_key_is_unauthorized(server: Server) -> None:
    """The status is 401, which cent turns into its own exception."""
    async with cent.AsyncClient(server.api_url, "wrong") as unauthorized:
        with pytest.raises(CentUnauthorizedError):
            await unauthorized.info(cent.InfoRequest())


async def test_methods_that_the_server_lacks_are_not_found(client: cent.AsyncClient) -> None:
    """The status is 404, which cent reports."""
    with pytest.raises(CentTransportError) as refused:
        await client.connections(cent.ConnectionsRequest(user="ann", expression=""))
    assert refused.value.status_code == 404


async def test_the_synchronous_client_works_too(server: Server, channel: Name) -> None:
    """The client based on `requests` publishes, and a subscriber receives it."""
    news = channel("open")
    synchronous = cent.Client(server.api_url, API_KEY)

    def publish() -> cent.PublishResult:
        return synchronous.publish(cent.PublishRequest(channel=news, data="hello"))

    async with open_wire(server) as subscriber:
        await subscriber.connect()
        await subscriber.call("subscribe", channel=news)
        assert (await asyncio.to_thread(publish)).offset == 1
        assert (await subscriber.push("pub", news))["data"] == "hello"
