"""Back ends over TLS: whose certificate is accepted, which one the node shows, and files that change."""

from __future__ import annotations

import shutil
import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.server.conftest import new_certificate
from tests.server.hooks.proxy.events import proxies_to
from tests.support.back_end import back_end_running
from tocsin_server.errors import INTERNAL_ERROR
from tocsin_server.hooks.answers import Connected
from tocsin_server.hooks.events import HookKind

ADMITTED = Connected(user="56")


@dataclass(frozen=True)
class Pair:
    """The files of a certificate, which is its own authority, and of its key."""

    certificate: str
    key: str


def new_pair(folder: Path, name: str) -> Pair:
    pair = Pair(str(folder / f"{name}.crt"), str(folder / f"{name}.key"))
    new_certificate(pair.certificate, pair.key)
    return pair


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    folder = tmp_path_factory.mktemp("tls")
    return {name: new_pair(folder, name) for name in ("back_end", "node", "next_node")}


def context_of(pair: Pair, *clients: Pair) -> ssl.SSLContext:
    """That of a server, which accepts only the certificates of these clients if there are any."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    for client in clients:
        context.load_verify_locations(client.certificate)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


async def test_a_certificate_of_the_given_authority_is_accepted(pairs: dict[str, Pair]) -> None:
    async with back_end_running(context=context_of(pairs["back_end"])) as back_end:
        options = {"tls_ca": pairs["back_end"].certificate, "secret": "s" * 32}
        async with proxies_to(back_end.url, options) as proxies:
            for _ in range(2):
                assert await proxies.ask(HookKind.CONNECT) == ADMITTED
            assert back_end.connections == 1


@pytest.mark.parametrize("authority", ["", "node"])
async def test_any_other_certificate_is_a_fault(pairs: dict[str, Pair], authority: str) -> None:
    async with back_end_running(context=context_of(pairs["back_end"])) as back_end:
        options = {"tls_ca": pairs[authority].certificate} if authority else {}
        async with proxies_to(back_end.url, options) as proxies:
            with capture_logs() as lines:
                assert await proxies.ask(HookKind.CONNECT) == INTERNAL_ERROR
            assert proxies.outcomes == {"tls": 1}
    assert lines[-1]["error"] == "its certificate is not accepted (self-signed certificate)"
    assert not back_end.requests


async def test_a_certificate_for_another_host_is_a_fault(pairs: dict[str, Pair]) -> None:
    async with back_end_running(context=context_of(pairs["back_end"])) as back_end:
        url = back_end.url.replace("127.0.0.1", "localhost")
        async with proxies_to(url, {"tls_ca": pairs["back_end"].certificate}) as proxies:
            with capture_logs() as lines:
                assert await proxies.ask(HookKind.CONNECT) == INTERNAL_ERROR
    assert "Hostname mismatch" in lines[-1]["error"]


async def test_the_node_shows_its_certificate(pairs: dict[str, Pair]) -> None:
    context = context_of(pairs["back_end"], pairs["node"])
    async with back_end_running(context=context) as back_end:
        trust = {"tls_ca": pairs["back_end"].certificate}
        shown = {"tls_certificate": pairs["node"].certificate, "tls_key": pairs["node"].key}
        async with proxies_to(back_end.url, trust) as proxies:
            assert await proxies.ask(HookKind.CONNECT) == INTERNAL_ERROR
        assert not back_end.requests
        async with proxies_to(back_end.url, {**trust, **shown}) as proxies:
            assert await proxies.ask(HookKind.CONNECT) == ADMITTED
        assert back_end.requests[0].certificate is not None


async def test_changed_files_are_used_for_new_connections(pairs: dict[str, Pair], tmp_path: Path) -> None:
    """Files that cannot be used change nothing, and are a warning."""
    node = Pair(str(tmp_path / "node.crt"), str(tmp_path / "node.key"))
    shutil.copy(pairs["node"].certificate, node.certificate)
    shutil.copy(pairs["node"].key, node.key)
    async with back_end_running(context=context_of(pairs["back_end"], pairs["next_node"])) as back_end:
        options = {
            "tls_ca": pairs["back_end"].certificate,
            "tls_certificate": node.certificate,
            "tls_key": node.key,
        }
        async with proxies_to(back_end.url, options) as proxies:
            assert await proxies.ask(HookKind.CONNECT) == INTERNAL_ERROR
            with capture_logs() as lines:
                shutil.copy(node.key, node.certificate)
                await proxies.proxies.reload_certificates()
                (warning,) = proxies.proxies.warnings
                assert "The new certificates of [proxies.back] cannot be used" in warning
                shutil.copy(pairs["next_node"].certificate, node.certificate)
                shutil.copy(pairs["next_node"].key, node.key)
                await proxies.proxies.reload_certificates()
            assert not proxies.proxies.warnings
            assert [line["event"] for line in lines] == [
                "proxy_certificates_not_loaded",
                "proxy_certificates_loaded",
            ]
            assert await proxies.ask(HookKind.CONNECT) == ADMITTED
