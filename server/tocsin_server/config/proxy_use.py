"""Which proxy decides about what, as options name it, and what is wrong with that, in sentences."""

from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from typing import NamedTuple

from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.config.client_options import ClientOptions
from tocsin_server.config.errors import suggestion
from tocsin_server.config.proxy_options import ProxyOptions

AIOHTTP_IS_MISSING = "Proxies need the package aiohttp: pip install 'tocsin[proxies]'."

CLIENT_EVENTS = ("connect", "refresh", "rpc")
"""The events of which `[client]` names the proxy, as `EVENT_proxy`."""

CHANNEL_EVENTS = ("subscribe", "publish", "sub_refresh")
"""Those of which `[channels]` and each namespace name it."""


class ProxyUse(NamedTuple):
    """One option that names a proxy."""

    key: str
    """The option: `namespaces.chat.subscribe_proxy`."""
    event: str
    proxy: str


def proxy_uses(
    client: ClientOptions, channels: ChannelOptions, namespaces: Mapping[str, ChannelOptions]
) -> list[ProxyUse]:
    """Every option that names a proxy."""
    sections = {"channels": channels, **{f"namespaces.{name}": each for name, each in namespaces.items()}}
    uses = [
        ProxyUse(f"client.{event}_proxy", event, getattr(client, f"{event}_proxy")) for event in CLIENT_EVENTS
    ]
    uses += [
        ProxyUse(f"{section}.{event}_proxy", event, getattr(options, f"{event}_proxy"))
        for section, options in sections.items()
        for event in CHANNEL_EVENTS
    ]
    return [use for use in uses if use.proxy]


def is_missing_package(uses: Iterable[ProxyUse]) -> bool:
    """Whether there are proxies, and not the package with which they call back ends."""
    return any(True for _ in uses) and find_spec("aiohttp") is None


def proxies_without_url(proxies: Mapping[str, ProxyOptions]) -> Iterator[str]:
    """A clause for each proxy that cannot be called."""
    for name, options in proxies.items():
        if not options.url:
            yield f'[proxies.{name}] needs url, such as "https://app.example/centrifugo/{{event}}"'


def unknown_proxies(uses: Iterable[ProxyUse], proxies: Mapping[str, ProxyOptions]) -> Iterator[str]:
    """A clause for each option that names a proxy which has no section."""
    for use in uses:
        if use.proxy not in proxies:
            end = suggestion(use.proxy, proxies).rstrip(".")
            yield f'{use.key} is "{use.proxy}", but there is no section [proxies.{use.proxy}]{end}'
