"""Connection tokens by query, header or cookie, and subscription tokens for single channels."""

from collections.abc import Callable

import pytest

from tests.server.transports.sse.stream_server import Event, StreamServer, stream_server
from tests.support.tokens import connection_token, seconds_from_now, subscription_token
from tocsin_server.core.revocations import Revocation

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
async def test_a_token_is_read_from_query_header_or_cookie(
    server: StreamServer, channel: Name, query: dict[str, str], headers: dict[str, str]
) -> None:
    """The query's token is used first, then the header's, then the cookie's."""
    club = channel("named")
    async with server.stream(club, headers=headers, query=query) as stream:
        await server.publish(club, 1)
        assert await stream.numbers(1) == [1]
        assert list(server.node.hub.users) == ["ann"]


@pytest.mark.parametrize("user", ["ann", ""])
async def test_a_subscription_token_permits_the_channel_it_names(server: StreamServer, user: str) -> None:
    """The query has one for each channel that needs it, in any order."""
    first, second = subscription_token(user, "closed:1"), subscription_token(user, "$history:2")
    token = connection_token(user)
    path = server.path("closed:1", "lobby", "$history:2", token=token)
    assert (await server.http.head(f"{path}&sub_token={second}&sub_token={first}")).status_code == 200
    async with server.stream("closed:1", sub_token=first, token=token) as stream:
        await server.publish("closed:1", 1)
        assert await stream.numbers(1) == [1]


@pytest.mark.parametrize(
    ("token", "status", "code"),
    [
        (subscription_token("ann", "closed:1", secret="another secret, also long enough"), 403, 103),
        (subscription_token("bob", "closed:1"), 403, 3500),
        (subscription_token("ann", "closed:1", exp=seconds_from_now(-9)), 401, 109),
        (subscription_token("ann", "closed:2"), 400, 107),
        ("not-a-token", 400, 107),
        ("a.b.c", 400, 107),
        (ANN, 400, 107),
    ],
)
async def test_an_invalid_subscription_token_refuses_the_stream(
    server: StreamServer, token: str, status: int, code: int
) -> None:
    """A wrong signature or another user is 403, an expired token 401, a channel not in the query 400."""
    response = await server.http.get(server.path("closed:1", token=ANN, sub_token=token))
    assert (response.status_code, response.json()["code"]) == (status, code)
    await server.until_empty()


async def test_the_query_may_name_a_channel_that_the_token_subscribes_by_itself(
    server: StreamServer, channel: Name
) -> None:
    """Its publications come once, with a position in the id, and recover from it."""
    granted, news = channel("closed"), channel("history")
    token = connection_token("ann", channels=[granted])
    async with server.stream(granted, news, token=token) as stream:
        await server.publish(granted, 1)
        assert await stream.numbers(1) == [1]
    await server.until_empty()
    await server.publish(granted, 2)
    await server.publish(news, 3)
    async with server.stream(granted, news, token=token, last_event_id=stream.last_id) as stream:
        assert await stream.numbers(2) == [2, 3]
        assert stream.last_id.startswith("2@")
        await server.publish(granted, 4)
        assert await stream.numbers(1) == [4]
        assert await stream.is_quiet()


async def test_an_expired_subscription_ends_the_stream_and_needs_a_new_token() -> None:
    """A stream cannot refresh. A page with only `onmessage` and `onerror` notices the end, and the 401."""
    async with stream_server(client={"expired_close_delay": "10ms", "token_leeway": 0}) as server:
        token = subscription_token("", "closed:1", exp=seconds_from_now(3))
        async with server.stream("closed:1", "lobby", sub_token=token) as stream:
            ended, message, last = await stream.rest()
        why = {"code": 2501, "reason": "subscription expired"}
        assert ended == Event("unsubscribe", {"channel": "closed:1", **why})
        assert message == Event("message", {"channel": "closed:1", "unsubscribe": why})
        assert last == Event("disconnect", {"code": 3006, "reason": "subscription expired"})
        refused = await server.http.get(server.path("closed:1", "lobby", sub_token=token))
        assert refused.status_code == 401


async def test_an_expired_connection_ends_its_stream_and_needs_a_new_token() -> None:
    """The client reconnects; with the same token it gets 401, which ends an EventSource."""
    async with stream_server(client={"expired_close_delay": "10ms", "token_leeway": 0}) as server:
        token = connection_token("ann", exp=seconds_from_now(3))
        async with server.stream("lobby", token=token) as stream:
            (last,) = await stream.rest()
        assert (last.kind, last.data) == ("disconnect", {"code": 3005, "reason": "connection expired"})
        response = await server.http.get(server.path("lobby", token=token))
        assert (response.status_code, response.json()["code"]) == (401, 109)


async def test_the_stream_of_a_revoked_token_ends_and_its_next_request_is_unauthorized(
    server: StreamServer, channel: Name
) -> None:
    """The browser comes back once, and the page then gets a new token. So it is for a channel token."""
    club = channel("named")
    token = connection_token("ann", jti="t1")
    sub_token = subscription_token("ann", "closed:1", jti="s1")
    for revoked, streamed, query in [
        ("s1", "closed:1", {"token": ANN, "sub_token": sub_token}),
        ("t1", club, {"token": token}),
    ]:
        async with server.stream(streamed, query=query) as stream:
            await server.node.revoke(Revocation(0, token_id=revoked))
            last = (await stream.rest())[-1]
            assert last.kind == "disconnect"
            assert last.data["code"] in (3005, 3006)
        refused = await server.http.get(server.path(streamed, **query))
        assert (refused.status_code, refused.json()["code"]) == (401, 109)
