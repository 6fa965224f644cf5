"""The PyPI package `cent`, which back ends use, against the API served in this process."""

from collections.abc import AsyncIterator, Callable

import cent
import pytest
import pytest_asyncio
from cent.exceptions import CentApiResponseError, CentUnauthorizedError

from tests.server.api.conftest import KEY, Served

pytestmark = pytest.mark.asyncio(loop_scope="module")

Name = Callable[[str], str]


@pytest_asyncio.fixture(loop_scope="module")
async def client(api: Served) -> AsyncIterator[cent.AsyncClient]:
    async with cent.AsyncClient(f"{api.url}/api", KEY) as asynchronous:
        yield asynchronous


async def test_what_cent_asks_it_understands(client: cent.AsyncClient, channel: Name) -> None:
    """Its requests are read and its results have the members it needs."""
    name = channel("open")
    published = await client.publish(cent.PublishRequest(channel=name, data={"a": 1}, tags={"b": "c"}))
    page = await client.history(cent.HistoryRequest(channel=name, limit=1))
    broadcast = await client.broadcast(cent.BroadcastRequest(channels=[name, "nowhere:1"], data=2))
    assert (published.offset, page.publications[0].data, page.publications[0].tags) == (
        1,
        {"a": 1},
        {"b": "c"},
    )
    assert [answer.error and answer.error.code for answer in broadcast.responses] == [None, 102]
    assert (await client.presence(cent.PresenceRequest(channel=name))).presence == {}
    assert (await client.channels(cent.ChannelsRequest())).channels == {}
    assert [node.name for node in (await client.info(cent.InfoRequest())).nodes] == ["here"]


async def test_a_batch_of_cent_has_typed_replies(client: cent.AsyncClient, channel: Name) -> None:
    """Each reply under its command's name."""
    requests = [
        cent.PublishRequest(channel=channel("open"), data=1),
        cent.DisconnectRequest(user="nobody"),
        cent.PresenceStatsRequest(channel=channel("open")),
    ]
    published, _, stats = (await client.batch(cent.BatchRequest(requests=requests))).replies
    assert isinstance(published, cent.PublishResult)
    assert published.offset == 1
    assert isinstance(stats, cent.PresenceStatsResult)


async def test_cent_raises_what_is_refused(api: Served, client: cent.AsyncClient) -> None:
    """With the code of the table; a wrong key as its own exception."""
    with pytest.raises(CentApiResponseError) as refused:
        await client.history(cent.HistoryRequest(channel="plain"))
    assert refused.value.code == 108
    async with cent.AsyncClient(f"{api.url}/api", "wrong") as stranger:
        with pytest.raises(CentUnauthorizedError):
            await stranger.info(cent.InfoRequest())
