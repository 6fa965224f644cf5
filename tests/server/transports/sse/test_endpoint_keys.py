"""Event streams whose token was signed with a key that the node must fetch first."""

from __future__ import annotations

import asyncio

from tests.server.served_node import until
from tests.server.transports.sse.stream_server import stream_server
from tests.support.identity_provider import IdentityProvider, public_jwk
from tocsin_server.node import key_sets


async def test_a_stream_waits_for_the_key_and_recovers_where_its_token_subscribes() -> None:
    """Also a HEAD request, which is answered without a session of its own."""
    async with IdentityProvider().serving() as provider:
        section = {**provider.section, "channels": ["closed:{team}"]}
        async with stream_server(issuers={"idp": section}) as server:
            await server.publish("closed:red", 1, 2, 3)
            epoch = (await server.top("closed:red")).epoch
            (key_set,) = server.node._key_sets._sets.values()
            await until(lambda: not key_set.warning)
            for key_id, request in [("k2", "HEAD"), ("k3", "GET")]:
                provider.keys = [public_jwk("RS256", key_id)]
                key_set._may_fetch_at = 0.0
                token = provider.token(key_id=key_id, team="red")
                if request == "HEAD":
                    path = server.path("closed:red", token=token)
                    assert (await server.http.head(path)).status_code == 200
                    continue
                headers = {"Last-Event-ID": f"1@{epoch}"}
                async with server.stream("closed:red", token=token, headers=headers) as stream:
                    assert await stream.numbers(2) == [2, 3]


async def test_a_stream_whose_key_cannot_be_fetched_is_told_to_come_back() -> None:
    """Status 503, or for an EventSource a stream that ends at once."""
    provider = IdentityProvider()
    async with provider.serving():
        pass
    async with stream_server(issuers={"idp": provider.section}) as server:
        (key_set,) = server.node._key_sets._sets.values()
        await until(lambda: key_set._failures)
        path = server.path("lobby", token=provider.token())
        for _ in range(2):
            async with asyncio.timeout(key_sets.WAIT_SECONDS):
                answer = await server.http.get(path)
            assert (answer.status_code, answer.json()["code"]) == (503, 3004)
