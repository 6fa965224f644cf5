"""Who may listen: connection tokens by query, header or cookie, and tokens for single channels."""

from collections.abc import Callable

import pytest

from tests.server.transports.sse.streams import Event, Served, served
from tests.support.tokens import connection_token, seconds_from_now, subscription_token

Name = Callable[[str], str]

ANN = connection_token("ann")
BAD = "not.a.token"


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ({"token": ANN}, {}),
        ({}, {"Authorization": f"Bearer {ANN}"}),
        ({}, {"Authorization": f"bearer  {ANN}"}),
        ({}, {"Cookie": f"theme=dark; tocsin_token={ANN}"}),
        ({"token": ANN}, {"Authorization": f"Bearer {BAD}"}),
        ({}, {"Authorization": f"Bearer {ANN}", "Cookie": f"tocsin_token={BAD}"}),
        ({"token": ""}, {"Authorization": "Basic YTpi", "Cookie": f"tocsin_token={ANN}"}),
    ],
)
async def test_a_token_comes_by_query_header_or_cookie(
    tocsin: Served, channel: Name, query: dict[str, str], headers: dict[str, str]
) -> None:
    """The nearest to the request counts: the query's, else the header's, else the cookie's."""
    club = channel("named")
    async with tocsin.stream(club, headers=headers, query=query) as stream:
        await tocsin.publish(club, 1)
        assert await stream.numbers(1) == [1]
        assert list(tocsin.node.hub.users) == ["ann"]


@pytest.mark.parametrize("user", ["ann", ""])
async def test_a_channel_token_opens_the_channel_it_names(tocsin: Served, user: str) -> None:
    """One for each channel that needs it, in any order; each says itself for which it is."""
    first, second = subscription_token(user, "closed:1"), subscription_token(user, "$log:2")
    token = connection_token(user)
    path = tocsin.path("closed:1", "lobby", "$log:2", token=token)
    assert (await tocsin.http.head(f"{path}&sub_token={second}&sub_token={first}")).status_code == 200
    async with tocsin.stream("closed:1", sub_token=first, token=token) as stream:
        await tocsin.publish("closed:1", 1)
        assert await stream.numbers(1) == [1]


@pytest.mark.parametrize(
    ("token", "status", "code"),
    [
        (subscription_token("ann", "closed:1", secret="another secret, also long enough"), 403, 103),
        (subscription_token("bob", "closed:1"), 403, 3500),
        (subscription_token("ann", "closed:1", exp=seconds_from_now(-9)), 401, 109),
        (subscription_token("ann", "closed:2"), 400, 107),
        ("rubbish", 400, 107),
        ("a.b.c", 400, 107),
        (ANN, 400, 107),
    ],
)
async def test_a_channel_token_that_is_not_good_refuses_the_stream(
    tocsin: Served, token: str, status: int, code: int
) -> None:
    """Wrongly signed or somebody else's: 403; expired: 401; for no channel of the query: a mistake, 400."""
    response = await tocsin.http.get(tocsin.path("closed:1", token=ANN, sub_token=token))
    assert (response.status_code, response.json()["code"]) == (status, code)
    await tocsin.is_empty()


async def test_a_channel_may_be_named_that_the_token_subscribes_by_itself(
    tocsin: Served, channel: Name
) -> None:
    """It is heard once, has its position in the id, and recovers from it."""
    granted, news = channel("closed"), channel("log")
    token = connection_token("ann", channels=[granted])
    async with tocsin.stream(granted, news, token=token) as stream:
        await tocsin.publish(granted, 1)
        assert await stream.numbers(1) == [1]
    await tocsin.is_empty()
    await tocsin.publish(granted, 2)
    await tocsin.publish(news, 3)
    async with tocsin.stream(granted, news, token=token, last_event_id=stream.last_id) as stream:
        assert await stream.numbers(2) == [2, 3]
        assert stream.last_id.startswith("2@")
        await tocsin.publish(granted, 4)
        assert await stream.numbers(1) == [4]
        assert await stream.is_quiet()


async def test_a_subscription_that_expires_leaves_the_stream() -> None:
    """Its token cannot be refreshed here: the client is told, and keeps its other channels."""
    async with served(client={"expired_close_delay": "10ms"}) as tocsin:
        token = subscription_token("", "closed:1", exp=seconds_from_now(3))
        async with tocsin.stream("closed:1", "lobby", sub_token=token) as stream:
            event = await stream.next()
            assert event == Event(
                "unsubscribe", {"channel": "closed:1", "code": 2501, "reason": "subscription expired"}
            )
            await tocsin.publish("closed:1", 1)
            await tocsin.publish("lobby", 2)
            assert await stream.numbers(1) == [2]


async def test_a_connection_that_expires_ends_its_stream_and_needs_a_fresh_token() -> None:
    """The client comes back; with the same token it is 401 then, which ends an EventSource."""
    async with served(client={"expired_close_delay": "10ms"}) as tocsin:
        token = connection_token("ann", exp=seconds_from_now(3))
        async with tocsin.stream("lobby", token=token) as stream:
            (last,) = await stream.rest()
        assert (last.kind, last.data) == ("disconnect", {"code": 3005, "reason": "connection expired"})
        response = await tocsin.http.get(tocsin.path("lobby", token=token))
        assert (response.status_code, response.json()["code"]) == (401, 109)
