"""The PyPI package `cent`, which back ends use, with the API of a node in this process."""

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


async def test_the_calls_of_cent_work(client: cent.AsyncClient, channel: Name) -> None:
    """Its requests are accepted, and results have the members that it needs."""
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
    """Each reply is under the name of its command."""
    requests = [
        cent.PublishRequest(channel=channel("open"), data=1),
        cent.DisconnectRequest(user="absent"),
        cent.PresenceStatsRequest(channel=channel("open")),
    ]
    published, _, stats = (await client.batch(cent.BatchRequest(requests=requests))).replies
    assert isinstance(published, cent.PublishResult)
    assert published.offset == 1
    assert isinstance(stats, cent.PresenceStatsResult)


async def test_cent_raises_the_refusal_of_a_call(api: Served, client: cent.AsyncClient) -> None:
    """The exception has the code. A wrong key has an exception of its own."""
    with pytest.raises(CentApiResponseError) as refused:
        await client.history(cent.HistoryRequest(channel="plain"))
    assert refused.value.code == 108
    async with cent.AsyncClient(f"{api.url}/api", "wrong") as other:
        with pytest.raises(CentUnauthorizedError):
            await other.info(cent.InfoRequest())
