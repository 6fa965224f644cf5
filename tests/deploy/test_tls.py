"""Clients and commands through nginx over TLS (`https://`, `wss://`), with a private authority."""

import asyncio
import json
import os
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.nginx import HOST, run_nginx
from tests.server.engine.redis.certificates import write_certificate
from tests.server.engine.redis.redis_server import free_ports
from tests.support.configs import API_KEY
from tests.support.server import TOCSIN, run_server
from tests.support.timing import SOON, STARTED
from tocsin import AsyncPublisher, Client, EventStream, Publisher, ServerUnreachable

CONFIG: dict[str, Any] = {
    "client": {"insecure": True},
    "api": {"keys": [API_KEY]},
    "channels": {"history_size": 100, "history_ttl": "1h", "force_recovery": True},
}


class Site:
    """The URL of nginx, and the file with the certificate of its authority."""

    def __init__(self, url: str, authority: Path) -> None:
        self.url = url
        self.authority = authority
        self.ssl = ssl.create_default_context(cafile=authority)

    @property
    def environment(self) -> dict[str, str]:
        """The environment that makes commands trust the authority."""
        return {**os.environ, "SSL_CERT_FILE": str(self.authority)}

    def tocsin(self, *words: str) -> str:
        """Run a command, check that it succeeds, and return its output."""
        command = [str(TOCSIN), words[0], "--url", self.url, *words[1:]]
        ended = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=STARTED, check=False
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One node behind nginx, with the configuration's lines for TLS uncommented."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = write_certificate(folder)
    (port,) = free_ports(1)
    with (
        run_server(CONFIG, folder) as server,
        run_nginx([server.port], port, folder, tls=(certificate, key)),
    ):
        yield Site(f"https://{HOST}:{port}", certificate)


@pytest.fixture
async def publisher(site: Site) -> AsyncIterator[AsyncPublisher]:
    async with AsyncPublisher(site.url, API_KEY, ssl=site.ssl) as publisher:
        yield publisher


async def test_a_websocket_works_over_tls(site: Site, publisher: AsyncPublisher) -> None:
    """The client opens `wss://` at the same address."""
    async with Client(site.url, ssl=site.ssl) as client:
        subscription = client.subscribe("websocket")
        await subscription.ready()
        await publisher.publish("websocket", 1)
        async with asyncio.timeout(SOON):
            assert (await anext(subscription)).data == 1


async def test_an_event_stream_works_over_tls(site: Site, publisher: AsyncPublisher) -> None:
    """The client speaks HTTP/1.1."""
    position = await publisher.publish("stream", 1)
    assert position is not None
    async with EventStream(site.url, "stream", since=f"0@{position.epoch}", ssl=site.ssl) as stream:
        async with asyncio.timeout(SOON):
            assert (await anext(stream)).data == 1


def test_the_synchronous_publisher_works_over_tls(site: Site) -> None:
    with Publisher(site.url, API_KEY, ssl=site.ssl) as publisher:
        assert publisher.publish("plain", 1)


async def test_a_client_without_the_authority_does_not_connect(site: Site) -> None:
    """The error names the certificate."""
    async with AsyncPublisher(site.url, API_KEY) as publisher:
        with pytest.raises(ServerUnreachable, match="certificate"):
            await publisher.publish("plain", 1)


def test_sub_receives_what_pub_publishes_over_tls(site: Site) -> None:
    command = [str(TOCSIN), "sub", "news", "--url", site.url, "--since", "0@"]
    with subprocess.Popen(command, env=site.environment, stdout=subprocess.PIPE, text=True) as subscriber:
        assert subscriber.stdout is not None
        site.tocsin("pub", "news", '{"a": 1}', "--api-key", API_KEY)
        assert json.loads(subscriber.stdout.readline())["data"] == {"a": 1}
        subscriber.terminate()


def test_the_load_tool_works_over_tls(site: Site) -> None:
    """Its WebSockets and event streams receive everything."""
    site.tocsin(
        "load", "--api-key", API_KEY, "--connections", "20", "--transport", "mix",
        "--publish-rate", "20", "--seconds", "1", "--processes", "1",
    )  # fmt: skip
