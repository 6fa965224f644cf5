"""TLS served by the node itself: every transport, handshakes that stall, and certificates that change."""

from __future__ import annotations

import asyncio
import datetime as dt
import shutil
import signal
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop
from cryptography import x509

from tests.server.conftest import new_certificate
from tests.server.engine.redis.redis_server import redis_running
from tests.server.served_node import (
    ServedNode,
    new_channel,
    publish,
    serve_node_over_tls,
    trusting,
    until,
)
from tests.support.server import run_server
from tests.support.timing import SOON, TICK
from tocsin_server.serving import certificate as certificate_module
from tocsin_server.serving.certificate import ServerCertificate


@pytest.fixture
def files(tmp_path: Path, certificate: tuple[str, str]) -> tuple[str, str]:
    """Files of a certificate and its key that a test may replace."""
    copies = tmp_path / "tls.crt", tmp_path / "tls.key"
    for original, copy in zip(certificate, copies, strict=True):
        shutil.copy(original, copy)
    return str(copies[0]), str(copies[1])


def serial_of(
    port: int, server_name: str | None = None, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> int:
    """The serial number of the certificate that a new connection is shown."""
    context = trusting_all()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = min(newest, ssl.TLSVersion.TLSv1_2), newest
    with (
        socket.create_connection(("127.0.0.1", port), SOON) as connection,
        context.wrap_socket(connection, server_hostname=server_name) as secured,
    ):
        shown = secured.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown).serial_number


def read(file: str) -> bytes:
    return Path(file).read_bytes()


def write(file: str, content: bytes) -> None:
    Path(file).write_bytes(content)


def trusting_all() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def serial_in(file: str) -> int:
    return x509.load_pem_x509_certificate(read(file)).serial_number


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON):
        while not await asyncio.to_thread(holds):
            pass


async def test_every_transport_works_over_tls(certificate: tuple[str, str]) -> None:
    """The raw WebSocket, event streams and the API, also in HTTP/1.1 by ALPN."""
    channel = new_channel("log")
    context = trusting(certificate[0])
    async with serve_node_over_tls(*certificate) as served_node:
        assert served_node.url.startswith("https://")
        async with (
            served_node.wire(ssl=context) as wire,
            httpx.AsyncClient(base_url=served_node.url, verify=context, trust_env=False) as http,
            http.stream("GET", f"/events?channel={channel}") as stream,
        ):
            await wire.connect()
            await wire.call("subscribe", channel=channel)
            answer = await http.post("/api/publish", json={"channel": channel, "data": "hello"})
            assert answer.json()["result"]["offset"] == 1
            assert (await wire.push("pub", channel))["data"] == "hello"
            async for line in stream.aiter_lines():
                if "hello" in line:
                    break


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_slow_client_over_tls_is_closed_as_slow(
    certificate: tuple[str, str],
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The write buffer of TLS has the same limit in both loops, and the connection is dropped in time."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_be_slow(certificate, monkeypatch))


async def _be_slow(certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    channel = new_channel("plain")
    limits = {"queue_limit_bytes": 300_000, "message_limit_bytes": 100_000}
    async with serve_node_over_tls(*certificate, client=limits) as served_node:
        async with served_node.wire(ssl=trusting(certificate[0]), max_queue=1) as wire:
            await wire.connect()
            await wire.call("subscribe", channel=channel)
            wire.connection.transport.pause_reading()
            queued_bytes = queued_at_end(served_node, monkeypatch)
            while served_node.node.hub.channels.get(channel) is not None:
                await publish(served_node.node, channel, b'"' + b"x" * 20_000 + b'"')
            assert 300_000 <= queued_bytes[0] < 600_000
            assert list(served_node.node.metrics._disconnects.counts) == [("3008",)]
            wire.connection.transport.resume_reading()
        await served_node.until_empty()


def queued_at_end(served_node: ServedNode, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What is queued for the node's only client when the server closes the connection, once it does."""
    connection, handle_event = served_node.connection, served_node.node.handle_event
    queued_bytes: list[int] = []

    def note(of: Any, event: Any) -> None:
        queued_bytes.append(connection.queued_bytes)
        handle_event(of, event)

    monkeypatch.setattr(served_node.node, "handle_event", note)
    return queued_bytes


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
async def test_versions_before_1_2_are_refused(certificate: tuple[str, str]) -> None:
    async with serve_node_over_tls(*certificate) as served_node:
        assert await asyncio.to_thread(serial_of, served_node.port, None, ssl.TLSVersion.TLSv1_2)
        with pytest.raises(OSError, match=r"(?i)version|protocol"):
            await asyncio.to_thread(serial_of, served_node.port, None, ssl.TLSVersion.TLSv1_1)


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n\r\n"])
async def test_a_handshake_that_does_not_end_is_dropped(
    certificate: tuple[str, str], sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """After `stale_timeout`, as any connection that says nothing. No error is logged."""
    async with (
        serve_node_over_tls(*certificate, client={"stale_timeout": 2 * TICK}) as served_node,
        served_node.tcp() as (connection, _),
    ):
        await connection.send(sent)
        await connection.read_to_end()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_new_certificate_is_shown_and_open_connections_stay(
    files: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a server name and without. The key may be of another type."""
    monkeypatch.setattr(certificate_module, "CHECK_SECONDS", 100 * SOON)
    context = trusting(files[0])
    async with serve_node_over_tls(*files) as served_node, served_node.wire(ssl=context) as wire:
        await wire.connect()
        before = serial_in(files[0])
        (certificate,) = served_node.server.certificates
        new_certificate(*files, is_rsa=True)
        assert await asyncio.to_thread(serial_of, served_node.port) == before, "not read yet"
        certificate.reload()
        for name in (None, "push.test"):
            assert await asyncio.to_thread(serial_of, served_node.port, name) == serial_in(files[0]) != before
        await wire.call("subscribe", channel=new_channel("plain"))


async def test_a_broken_certificate_keeps_the_old_one_and_is_shown(files: tuple[str, str]) -> None:
    """The files are then of different pairs, or no key. Repaired ones are read."""
    async with serve_node_over_tls(*files) as served_node:
        before = serial_in(files[0])
        (certificate,) = served_node.server.certificates
        for broken in (read(files[1]), b"no key"):
            new_certificate(*files)
            write(files[1], broken)
            certificate.reload(is_forced=True)
            assert await asyncio.to_thread(serial_of, served_node.port) == before
            async with httpx.AsyncClient(verify=trusting_all(), trust_env=False) as http:
                (warning,) = (await http.get(f"{served_node.url}/health/ready")).json()["warnings"]
            assert warning.startswith("The new TLS certificate cannot be used, and the old one stays: ")
        new_certificate(*files)
        certificate.reload()
        assert await asyncio.to_thread(serial_of, served_node.port) == serial_in(files[0]) != before
        assert not certificate.warnings()


def test_a_certificate_that_ends_soon_is_a_warning(tmp_path: Path) -> None:
    files = str(tmp_path / "tls.crt"), str(tmp_path / "tls.key")
    for days, said in ((-1, "has expired"), (10, "expires in 10 days"), (30, None)):
        new_certificate(*files, lifetime=dt.timedelta(days=days))
        warnings = ServerCertificate(*files).warnings()
        assert [said in warning for warning in warnings if said] == ([True] if said else [])
        assert bool(warnings) is bool(said)


async def test_workers_read_a_new_certificate_by_themselves_and_on_sighup(
    files: tuple[str, str], tmp_path: Path
) -> None:
    """Each of them, and the parent lives on."""
    with redis_running(tmp_path) as redis:
        config = {
            "server": {"tls_certificate": files[0], "tls_key": files[1], "drain_seconds": 0},
            "engine": {"url": redis.url},
            "admin": {"host": "127.0.0.1", "port": 0},
        }
        with run_server(config, tmp_path, "--workers", "2") as server:
            assert server.url.startswith("https://")
            for is_signalled in (True, False):
                new_certificate(*files)
                if is_signalled:
                    server.process.send_signal(signal.SIGHUP)
                await eventually(lambda: {serial_of(server.port) for _ in range(20)} == {serial_in(files[0])})
            assert server.process.poll() is None


async def test_a_handshake_under_way_is_half_open(certificate: tuple[str, str]) -> None:
    """One more drops the oldest. The connections that are made of them are counted once."""
    limits = {"half_open_limit": 2}
    async with (
        serve_node_over_tls(*certificate, limits=limits) as served_node,
        served_node.tcp() as (oldest, _),
        served_node.tcp(),
    ):
        await until(lambda: len(served_node.node.half_open) == 2)
        async with served_node.wire(ssl=trusting(certificate[0])) as wire:
            await oldest.read_to_end()
            await wire.connect()
            assert len(served_node.node.half_open) == 1
