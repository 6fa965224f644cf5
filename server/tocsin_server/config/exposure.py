"""What a configuration opens and what it leaves closed, in words for whoever starts the node."""

import ipaddress
from dataclasses import dataclass

from tocsin_server.config.loading import Settings

_SECRET_BYTES = 32
"""HS256 wants a key at least as long as its hash (RFC 7518 §3.2)."""


@dataclass(frozen=True)
class Door:
    """One way into the node."""

    name: str
    state: str
    """Who may pass, in one clause."""
    advice: str = ""
    """What to set, or what to beware of; empty where nothing needs to be said."""

    def __str__(self) -> str:
        return f"{self.name}: {self.state}" + (f"; {self.advice}" if self.advice else "")


def doors(settings: Settings) -> list[Door]:
    """Every way in, open or closed, in the order in which a newcomer meets them."""
    return [_address(settings), _clients(settings), _channels(settings), _pages(settings), _api(settings)]


def safe_start_advice(settings: Settings) -> list[str]:
    """Sentences for the start of a node: what is closed and how to open it, and what is dangerously open.

    Empty where everything was set on purpose and nothing is insecure.
    """
    return [f"{door}." for door in doors(settings) if door.advice]


def _address(settings: Settings) -> Door:
    host, port = settings.server.host, settings.server.port
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if not _is_loopback(host):
        return Door("address", address)
    was_chosen = "host" in settings.server.model_fields_set
    advice = "" if was_chosen else 'set server.host (such as "0.0.0.0") for others'
    return Door("address", f"{address}, this machine only", advice)


def _clients(settings: Settings) -> Door:
    client = settings.client
    if client.insecure:
        return Door(
            "clients",
            "INSECURE, everybody may connect, subscribe, publish and read everywhere without a token",
            f"client.insecure is for development, and this node can be reached from {_reach(settings)}",
        )
    has_tokens = bool(client.token_hmac_secret or client.token_public_key)
    anonymous = "anonymous ones too" if client.allow_anonymous else "no anonymous ones"
    if has_tokens:
        length = len(client.token_hmac_secret.encode())
        too_short = 0 < length < _SECRET_BYTES
        advice = (
            f"client.token_hmac_secret has {length} bytes, use at least {_SECRET_BYTES}" if too_short else ""
        )
        return Door("clients", f"those with a token, {anonymous}", advice)
    if client.allow_anonymous:
        return Door("clients", "anonymous ones only, since no key for tokens is set")
    return Door("clients", "none", "set client.token_hmac_secret, or client.allow_anonymous = true")


def _channels(settings: Settings) -> Door:
    if settings.client.insecure:
        return Door("channels", "all")
    sections = {"channels": settings.channels}
    sections |= {f"namespaces.{name}": options for name, options in settings.namespaces.items()}
    is_open = [
        f"[{name}]"
        for name, options in sections.items()
        if options.allow_subscribe_for_client or options.allow_subscribe_for_anonymous
    ]
    if is_open:
        return Door("channels", f"without a subscription token those of {', '.join(is_open)}")
    if any(options.allow_user_limited_channels for options in sections.values()):
        return Door("channels", "those that name their users, or with a subscription token")
    return Door(
        "channels",
        "only with a subscription token",
        "set allow_subscribe_for_client = true in [channels] or a namespace to open them",
    )


def _pages(settings: Settings) -> Door:
    origins = settings.server.allowed_origins
    if origins:
        return Door("pages", "of every origin" if "*" in origins else f"of {', '.join(origins)}")
    return Door("pages", "of no other origin", "set server.allowed_origins to those of your pages")


def _api(settings: Settings) -> Door:
    api = settings.api
    if api.insecure:
        return Door(
            "HTTP API",
            "INSECURE, everybody may publish, read, disconnect and unsubscribe without a key",
            f"api.insecure is for development, and this node can be reached from {_reach(settings)}",
        )
    if api.keys:
        return Door("HTTP API", f"with one of {len(api.keys)} keys" if len(api.keys) > 1 else "with the key")
    return Door("HTTP API", "nobody", "set api.keys")


def _reach(settings: Settings) -> str:
    return "this machine" if _is_loopback(settings.server.host) else "OTHER MACHINES"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
