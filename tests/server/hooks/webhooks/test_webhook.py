"""The requests of a webhook, at a receiver on a real socket."""

from __future__ import annotations

import asyncio
import hmac
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.server.engine.redis.certificates import write_certificate
from tests.server.hooks.lifecycle_events import event, events
from tests.support.tcp import refusing_port
from tests.support.webhook_receiver import Receiver
from tocsin_server.config.webhook_options import WebhookOptions
from tocsin_server.core.delivery import Outcome, Result
from tocsin_server.hooks.webhooks.webhook import Webhook

SECRETS = ["a secret of forty characters, which is long", "another one of forty characters, also long"]
NOW = 1_700_000_000.9


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[Webhook]:
    webhook = Webhook("app", WebhookOptions(url=url, **options), lambda: NOW)
    async with webhook.open():
        yield webhook


async def test_a_request_has_the_events_a_delivery_id_and_a_signature_for_each_secret() -> None:
    receiver = Receiver()
    async with (
        receiver.serving() as url,
        opened(f"{url}?key=1", secrets=SECRETS, static_headers={"Authorization": "Bearer x"}) as webhook,
    ):
        assert (await webhook.deliver("d1", events(2))).result is Result.DELIVERED
    (request,) = receiver.requests
    assert request.path == "/events?key=1"
    assert request.ids == ["e0", "e1"]
    assert request.events[1]["client"] == "c1"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["authorization"] == "Bearer x"
    assert request.headers["user-agent"].startswith("Tocsin/")
    assert request.delivery == json.loads(request.body)["delivery"] == "d1"
    signed = [hmac.digest(s.encode(), b"1700000000." + request.body, "sha256").hex() for s in SECRETS]
    assert request.headers["x-tocsin-signature"] == f"t=1700000000,v1={signed[0]},v1={signed[1]}"


async def test_without_a_secret_there_is_no_signature() -> None:
    receiver = Receiver()
    async with receiver.serving() as url, opened(url) as webhook:
        await webhook.deliver("d1", events(1))
    assert "x-tocsin-signature" not in receiver.requests[0].headers


async def test_a_connection_is_kept_between_requests() -> None:
    receiver = Receiver()
    async with receiver.serving() as url, opened(url) as webhook:
        for number in range(5):
            await webhook.deliver(f"d{number}", events(1))
        assert receiver.connections == 1
        receiver.headers = {"Connection": "close"}
        await webhook.deliver("d5", events(1))
        await webhook.deliver("d6", events(1))
        assert receiver.connections == 2


async def test_a_redirect_is_not_followed() -> None:
    """It could lead to any address of the node's network."""
    receiver, other = Receiver(), Receiver()
    async with receiver.serving() as url, other.serving() as other_url, opened(url) as webhook:
        receiver.answer = lambda _: 307
        receiver.headers = {"Location": other_url}
        outcome = await webhook.deliver("d1", events(1))
    assert outcome == Outcome(Result.FAILED, "status 307, and redirects are not followed", 307)
    assert other.requests == []


async def test_a_cookie_is_not_sent_back() -> None:
    """A receiver cannot fill the memory of a node with them."""
    receiver = Receiver()
    receiver.headers = {"Set-Cookie": "a=1; Path=/"}
    async with receiver.serving() as url, opened(url) as webhook:
        for number in range(2):
            await webhook.deliver(f"d{number}", events(1))
        assert webhook._client is not None
        assert list(webhook._client.cookies.jar) == []
    assert "cookie" not in receiver.requests[1].headers


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    receiver, proxy = Receiver(), Receiver()
    async with receiver.serving() as url, proxy.serving() as proxy_url:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy_url)
        async with opened(url) as webhook:
            await webhook.deliver("d1", events(1))
    assert proxy.requests == []
    assert len(receiver.requests) == 1


async def test_an_answer_after_the_timeout_does_not_count() -> None:
    """The next attempt has the same delivery id, by which the receiver knows it, on another connection."""
    receiver = Receiver()
    async with receiver.serving() as url, opened(url, timeout=0.05) as webhook:
        receiver.may_answer.clear()
        while not receiver.requests:  # within the timeout, a slow machine may not even connect
            outcome = await webhook.deliver("d1", events(1))
            assert outcome == Outcome(Result.UNREACHABLE, "no complete answer within 0.05 s")
        attempted = len(receiver.requests)
        receiver.may_answer.set()
    async with receiver.serving() as url, opened(url) as webhook:
        assert (await webhook.deliver("d1", events(1))).result is Result.DELIVERED
    assert len(receiver.requests) > attempted
    assert {request.delivery for request in receiver.requests} == {"d1"}


async def test_a_receiver_that_is_not_there_is_named_without_its_address() -> None:
    """A query may hold a secret."""
    with refusing_port() as port:
        async with opened(f"http://127.0.0.1:{port}/events?key=hunter2") as webhook:
            outcome = await webhook.deliver("d1", events(1))
    assert outcome.result is Result.UNREACHABLE
    assert outcome.error.startswith("ConnectError")
    assert "hunter2" not in outcome.error


@pytest.mark.parametrize(
    "answer",
    [b"", b"no HTTP\r\n\r\n", b"HTTP/1.1 204 x\r\nbad\x00header: 1\r\n\r\n", b"HTTP/1.1 200 x\r\n" * 20000],
    ids=["closed", "no HTTP", "malformed header", "endless header"],
)
async def test_an_answer_that_is_no_http_is_a_failure(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, opened(f"http://127.0.0.1:{port}/") as webhook:
        assert (await webhook.deliver("d1", events(1))).result is Result.UNREACHABLE


async def test_an_endless_answer_is_not_kept() -> None:
    """Its status counts, and the rest is not read."""
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        except OSError:
            ended.set()
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, opened(f"http://127.0.0.1:{port}/") as webhook:
        assert (await webhook.deliver("d1", events(1))).result is Result.DELIVERED
        await ended.wait()


async def test_a_webhook_has_the_types_and_channels_of_its_section() -> None:
    """Globs concern only events that have a channel."""
    webhook = Webhook(
        "app", WebhookOptions(url="https://a.example", types=["connected", "occupied"], channels=["chat:*"])
    )
    assert webhook.wants(event(1))
    assert webhook.wants(event(1, kind="occupied", channel="chat:1"))
    assert not webhook.wants(event(1, kind="occupied", channel="news"))
    assert not webhook.wants(event(1, kind="disconnected"))


async def test_tls_checks_the_receiver_and_shows_the_certificate_of_the_node(tmp_path: Path) -> None:
    """A receiver whose certificate is by an unknown authority gets nothing."""
    certificate, key = map(str, write_certificate(tmp_path))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificate)
    tls.load_cert_chain(certificate, key)
    tls.verify_mode = ssl.CERT_REQUIRED
    own = {"tls_certificate": certificate, "tls_key": key}
    receiver = Receiver()
    async with receiver.serving(tls=tls, scheme="https") as url:
        async with opened(url, tls_ca=certificate, **own) as webhook:
            assert (await webhook.deliver("d1", events(1))).result is Result.DELIVERED
        async with opened(url, tls_ca=certificate) as webhook:
            assert (await webhook.deliver("d2", events(1))).result is Result.UNREACHABLE
        async with opened(url, **own) as webhook:
            outcome = await webhook.deliver("d3", events(1))
            assert outcome.result is Result.UNREACHABLE
            assert "certificate verify failed" in outcome.error.lower()
    assert [request.delivery for request in receiver.requests] == ["d1"]
