"""Revocation on a running node: what ends, and what is refused."""

from __future__ import annotations

import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.server.node.fake_connection import FakeConnection, connected, running
from tests.server.served_node import until
from tests.support.tokens import connection_token, subscription_token
from tocsin_server.core.revocations import Revocation
from tocsin_server.errors import Refused
from tocsin_server.node import slices
from tocsin_server.node.node import Node

NOW = time.time()


async def with_token(node: Node, user: str = "ann", **claims: Any) -> FakeConnection:
    return await connected(node, token=connection_token(user, **claims))


async def connect_error(node: Node, token: str) -> Any:
    reply = await FakeConnection(node).call("connect", token=token)
    return reply.get("error", {}).get("code")


async def test_the_connections_of_a_revoked_token_are_closed_and_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also with more connections than are searched at once. Clients reconnect after 3005."""
    monkeypatch.setattr(slices, "SLICE_ITEMS", 3)
    async with running() as node:
        kept = [await with_token(node, "ann", jti=f"t{number}") for number in range(10)]
        ended = [await with_token(node, user, jti="stolen") for user in ("ann", "bob", "cem")]
        await node.revoke(Revocation(0, token_id="stolen"))
        await until(lambda: all(connection.closed_with for connection in ended))
        assert {connection.closed_with.code for connection in ended if connection.closed_with} == {3005}
        assert not any(connection.closed_with for connection in kept)
        assert await connect_error(node, connection_token("ann", jti="stolen")) == 109
        assert await connect_error(node, connection_token("ann", jti="new")) is None


async def test_many_tokens_are_revoked_with_few_searches() -> None:
    """A batch of calls searches the connections once or twice, not once for each call."""
    async with running() as node:
        connections = [await with_token(node, jti=f"t{number}") for number in range(50)]
        for number in range(50):
            await node.revoke(Revocation(0, token_id=f"t{number}"))
        await until(lambda: all(connection.closed_with for connection in connections))
        assert len(node.engine_callbacks.known_revocations) == 50


async def test_a_user_s_tokens_of_an_earlier_time_end() -> None:
    async with running() as node:
        old, new, other = (
            await with_token(node, iat=NOW - 100),
            await with_token(node, iat=NOW - 10),
            await with_token(node, "bob", iat=NOW - 100),
        )
        await node.revoke(Revocation(0, user="ann", issued_before=NOW - 50))
        assert old.closed_with
        assert not new.closed_with
        assert not other.closed_with
        await node.revoke(Revocation(0, user="ann"))
        assert new.closed_with
        assert await connect_error(node, connection_token("ann", iat=NOW - 1)) == 109
        assert await connect_error(node, connection_token("ann", iat=time.time() + 1)) is None


async def test_a_subscription_ends_with_its_token() -> None:
    async with running() as node:
        connection = await with_token(node)
        token = subscription_token("ann", "closed:1", jti="s1")
        await connection.call("subscribe", channel="closed:1", token=token)
        await node.revoke(Revocation(0, token_id="s1"))
        await until(lambda: connection.pushes("unsubscribe"))
        assert connection.pushes("unsubscribe")[0]["code"] == 2501
        assert not connection.closed_with
        assert (await connection.call("subscribe", channel="closed:1", token=token))["error"]["code"] == 109


async def test_revocations_have_a_limit() -> None:
    """Exactly so many. Expired ones do not count, and the operator is told."""
    async with running(limits={"revocation_limit": 3}) as node:
        node._revoker.revocations.add(Revocation(NOW + 3600, token_id="expired"), NOW)
        node._revoker.revocations._tokens["expired"] = NOW - 1
        for number in range(3):
            await node.revoke(Revocation(0, token_id=str(number)))
        with capture_logs() as lines, pytest.raises(Refused) as caught:
            await node.revoke(Revocation(0, token_id="4"))
        assert caught.value.refusal.code == 106
        assert "limits.revocation_limit (3)" in caught.value.refusal.message
        assert node.metrics.limits_reached.counts["limits.revocation_limit",] == 1
        assert [line["limit"] for line in lines] == ["limits.revocation_limit"]


async def test_a_revocation_that_has_expired_is_refused() -> None:
    async with running() as node:
        with pytest.raises(Refused, match="expire_at has passed"):
            await node.revoke(Revocation(NOW - 1, token_id="t"))
        later = time.time() + 100
        await node.revoke(Revocation(later, token_id="t"))
        await node.revoke(Revocation(0, token_id="u"))
        assert node.engine_callbacks.known_revocations[0].expire_at == later
        assert node.engine_callbacks.known_revocations[1].expire_at == pytest.approx(
            time.time() + 720 * 3600, abs=60
        )
