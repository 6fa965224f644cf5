"""One event of each kind, and proxies for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from msgspec import Raw

from tocsin_server.config.loading import Settings
from tocsin_server.config.proxy_use import CHANNEL_EVENTS, CLIENT_EVENTS
from tocsin_server.hooks.answers import Answer
from tocsin_server.hooks.events import (
    ClientRequest,
    ConnectEvent,
    Event,
    HookKind,
    PublishEvent,
    RefreshEvent,
    RpcEvent,
    SubRefreshEvent,
    SubscribeEvent,
)
from tocsin_server.hooks.proxy.proxies import Proxies
from tocsin_server.metrics.registry import Metrics
from tocsin_server.protocol.payloads import Payload

DATA = Raw(b'{"a":1}')
CLIENT = "9336a229-2400-4ebc-8c50-0a643d22e8a0"


def client_request(**headers: str) -> ClientRequest:
    """The request of a client, with these headers."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ClientRequest("websocket", "json", "192.0.2.1", named, {})


def events_of(
    client: str = CLIENT, request: ClientRequest | None = None, data: Payload = DATA
) -> dict[HookKind, Event]:
    """One event of each kind."""
    request = request or client_request()
    known: dict[str, Any] = {"client": client, "user": "56", "request": request}
    in_channel = {**known, "channel": "chat:index"}
    return {
        HookKind.CONNECT: ConnectEvent(
            client=client, request=request, data=data, name="js", channels=["news"]
        ),
        HookKind.REFRESH: RefreshEvent(**known),
        HookKind.SUBSCRIBE: SubscribeEvent(**in_channel, data=data),
        HookKind.SUB_REFRESH: SubRefreshEvent(**in_channel),
        HookKind.PUBLISH: PublishEvent(**in_channel, data=data),
        HookKind.RPC: RpcEvent(**known, method="price", data=data),
    }


class AskedProxies:
    """Proxies of which one, "back", answers everything."""

    def __init__(self, proxies: Proxies, metrics: Metrics) -> None:
        self.proxies = proxies
        self._metrics = metrics

    async def ask(self, kind: HookKind, event: Event | None = None, client: str = CLIENT) -> Answer:
        """What the proxy answers to an event of this kind."""
        return await self.proxies.hook("back")(event or events_of(client)[kind])

    @property
    def outcomes(self) -> dict[str, int]:
        """How many calls had which outcome."""
        found: dict[str, int] = {}
        for name, value in self._samples("tocsin_proxy_calls_total{"):
            outcome = name.partition('outcome="')[2].partition('"')[0]
            found[outcome] = found.get(outcome, 0) + value
        return found

    def metric(self, name: str) -> int:
        """The sum of a metric."""
        return sum(value for _, value in self._samples(f"{name}{{"))

    def _samples(self, start: str) -> list[tuple[str, int]]:
        lines = [line for line in self._metrics.page().decode().splitlines() if line.startswith(start)]
        return [(line.rpartition(" ")[0], int(float(line.rpartition(" ")[2]))) for line in lines]


@asynccontextmanager
async def proxies_to(url: str, options: Mapping[str, Any] | None = None) -> AsyncIterator[AskedProxies]:
    """Running proxies to one back end that is asked about everything."""
    settings = Settings.model_validate(
        {
            "client": {f"{event}_proxy": "back" for event in CLIENT_EVENTS},
            "channels": {f"{event}_proxy": "back" for event in CHANNEL_EVENTS},
            "proxies": {"back": {"url": url, "timeout": 30, **(options or {})}},
        }
    )
    metrics = Metrics()
    proxies = Proxies(settings, metrics)
    async with proxies.running():
        yield AskedProxies(proxies, metrics)
