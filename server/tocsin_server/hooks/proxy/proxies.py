"""All proxies of a node that options name, as hooks. Without any, nothing of aiohttp is imported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import structlog

from tocsin_server.config.loading import Settings
from tocsin_server.config.proxy_options import ProxyOptions
from tocsin_server.config.proxy_use import AIOHTTP_IS_MISSING, proxy_uses
from tocsin_server.hooks.answers import Hook
from tocsin_server.hooks.proxy.metrics import ProxyMetrics
from tocsin_server.metrics.registry import Metrics

if TYPE_CHECKING:
    from tocsin_server.hooks.proxy.proxy import Proxy
    from tocsin_server.hooks.registry import Hooks

log = structlog.get_logger()

GRACE_SECONDS = 1.0
"""How much longer than its timeout a proxy may take: its own timeout says more than that of all hooks."""

CHECK_SECONDS = 5.0
"""How often the files of certificates are looked at."""


class Proxies:
    """The proxies that options name. Their hooks answer inside `async with proxies.running()`."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        """Raises ValueError with a sentence if files of certificates cannot be used, or without aiohttp."""
        uses = proxy_uses(settings.client, settings.channels, settings.namespaces)
        self._options = {use.proxy: settings.proxies[use.proxy] for use in uses}
        counters = ProxyMetrics(metrics)
        self._proxies = _new_proxies(self._options, counters) if uses else {}
        metrics.add_labeled_gauge(
            "tocsin_proxy_open_breakers",
            "Kinds of events about which a back end is not asked, because its circuit breaker is open.",
            "proxy",
            {name: partial(_open_breakers, proxy) for name, proxy in self._proxies.items()},
        )
        metrics.add_labeled_gauge(
            "tocsin_proxy_connections",
            "Connections to the back end of a proxy.",
            "proxy",
            {name: partial(_connections, proxy) for name, proxy in self._proxies.items()},
        )

    def __len__(self) -> int:
        return len(self._proxies)

    def hook(self, name: str) -> Hook:
        """Return the hook that asks the back end of a proxy."""
        return self._proxies[name]

    def add_to(self, hooks: Hooks) -> None:
        """Have the proxies answer the events of the sections that name them."""
        for name, options in self._options.items():
            seconds = options.timeout + GRACE_SECONDS
            hooks.add_proxy(name, self._proxies[name], seconds=seconds, headers=options.http_headers)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences about what an operator should do now."""
        return tuple(text for proxy in self._proxies.values() for text in proxy.warnings)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Make calls possible, and read changed certificates, until the end of the block."""
        async with AsyncExitStack() as stack:
            for proxy in self._proxies.values():
                proxy.start()
                stack.push_async_callback(proxy.close)
            is_watched = any(each.is_https for each in self._options.values())
            watching = asyncio.create_task(self._watch()) if is_watched else None
            try:
                yield
            finally:
                if watching is not None:
                    watching.cancel()
                    await asyncio.wait([watching])

    async def reload_certificates(self) -> None:
        """Read the files of certificates that have changed."""
        for proxy in self._proxies.values():
            await proxy.reload_certificates()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                await self.reload_certificates()
            except Exception:
                log.exception("proxy_certificates_not_watched")


def _new_proxies(options: Mapping[str, ProxyOptions], counters: ProxyMetrics) -> dict[str, Proxy]:
    try:
        from tocsin_server.hooks.proxy.proxy import Proxy  # noqa: PLC0415 - aiohttp is slow to import
    except ModuleNotFoundError as error:
        if error.name != "aiohttp":
            raise
        raise ValueError(AIOHTTP_IS_MISSING) from None
    return {name: Proxy(name, each, counters) for name, each in options.items()}


def _open_breakers(proxy: Proxy) -> float:
    return len(proxy.open_breakers)


def _connections(proxy: Proxy) -> float:
    return proxy.connections
