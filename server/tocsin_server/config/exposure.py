"""Exposure: what a configuration leaves open to anyone, and what it keeps closed, in sentences."""

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from tocsin_server.config.api_key_options import ApiKeyOptions
from tocsin_server.config.issuer_options import SECRET_BYTES
from tocsin_server.config.loading import Settings
from tocsin_server.config.proxy_use import proxy_uses
from tocsin_server.config.values import UNIX_PREFIX, is_passed_or_unix


@dataclass(frozen=True)
class Exposure:
    """One way to reach the node, and for whom it is open."""

    subject: str
    access: str
    """Which clients, pages or callers have access, in one clause."""
    advice: str = ""
    """What to set, or what to beware of. Empty if the setting needs no comment."""

    def __str__(self) -> str:
        return f"{self.subject}: {self.access}" + (f"; {self.advice}" if self.advice else "")


def exposures(settings: Settings) -> list[Exposure]:
    """Every way to reach the node, open or closed: address, clients, issuers, channels, pages, HTTP API."""
    return [
        _address(settings),
        _clients(settings),
        *_issuers(settings),
        _channels(settings),
        *_proxies(settings),
        _pages(settings),
        _api(settings),
        *_webhooks(settings),
    ]


def startup_notices(settings: Settings) -> list[str]:
    """Sentences to print when a node starts: what is closed and how to open it, and what is dangerously open.

    Empty if every setting was made on purpose and nothing is insecure.
    """
    return [f"{exposure}." for exposure in exposures(settings) if exposure.advice]


def _address(settings: Settings) -> Exposure:
    hosts, port = settings.server.hosts, settings.server.port
    address = ", ".join(f"[{host}]" if _is_ipv6(host) else host for host in hosts)
    if not all(map(is_passed_or_unix, hosts)):
        address += f":{port}" if port else ", on a free port"
    if not all(map(_is_loopback, hosts)):
        return Exposure("address", address)
    was_chosen = "host" in settings.server.model_fields_set
    advice = "" if was_chosen else 'set server.host (such as "0.0.0.0") to serve other machines'
    return Exposure("address", f"{address}, which only this machine can reach", advice)


def _clients(settings: Settings) -> Exposure:
    client = settings.client
    if client.insecure:
        return Exposure(
            "clients",
            "INSECURE, every client may connect, subscribe, publish and read without a token",
            f"client.insecure is for development, and this node can be reached from {_reach(settings)}",
        )
    if client.connect_proxy:
        access = f"those without a token are decided about by the proxy {client.connect_proxy}"
        return Exposure("clients", access, _short_secret(settings))
    if _has_own_keys(settings) or settings.issuers:
        advice = _short_secret(settings)
        access = "may connect with a token or without one" if client.allow_anonymous else "need a token"
        return Exposure("clients", access, advice)
    if client.allow_anonymous:
        return Exposure("clients", "may connect without a token; tokens are refused, since no key is set")
    return Exposure(
        "clients",
        "none may connect",
        "set client.token_hmac_secret or client.token_keys, or add an [issuers.NAME]; "
        "or set client.allow_anonymous = true",
    )


def _has_own_keys(settings: Settings) -> bool:
    client = settings.client
    return bool(
        client.token_hmac_secret or client.token_public_key or client.token_secrets or client.token_keys
    )


def _short_secret(settings: Settings) -> str:
    secrets = {"token_hmac_secret": settings.client.token_hmac_secret}
    secrets |= {
        f"token_secrets[{index}]": secret for index, secret in enumerate(settings.client.token_secrets)
    }
    for key, secret in secrets.items():
        length = len(secret.encode())
        if 0 < length < SECRET_BYTES:
            return f"client.{key} has {length} bytes, use at least {SECRET_BYTES}"
    return ""


def _issuers(settings: Settings) -> Iterator[Exposure]:
    """Who else issues tokens, and what an issuer could do that it may not be meant to."""
    for name, issuer in settings.issuers.items():
        advice = ""
        if not issuer.audiences and not issuer.required_claims:
            advice = (
                f"those that it made for other applications count too; set issuers.{name}.audiences or "
                "required_claims"
            )
        elif "user_prefix" not in issuer.model_fields_set and _shares_users(settings, name):
            advice = (
                f'it may name users that another issuer names: set issuers.{name}.user_prefix, to "" if '
                "they are the same"
            )
        keys = "" if not issuer.jwks_url else f", with the keys at {urlsplit(issuer.jwks_url).hostname}"
        yield Exposure(f"issuer {name}", f"tokens with the iss {issuer.issuer} are accepted{keys}", advice)


def _shares_users(settings: Settings, name: str) -> bool:
    prefixes = [issuer.user_prefix for other, issuer in settings.issuers.items() if other != name]
    prefixes += [""] if _has_own_keys(settings) else []
    own = settings.issuers[name].user_prefix
    return any(own.startswith(other) or other.startswith(own) for other in prefixes)


def _channels(settings: Settings) -> Exposure:
    if settings.client.insecure:
        return Exposure("channels", "every client may subscribe to all of them")
    sections = {"channels": settings.channels}
    sections |= {f"namespaces.{name}": options for name, options in settings.namespaces.items()}
    is_open = [
        f"[{name}]"
        for name, options in sections.items()
        if options.allow_subscribe_for_client or options.allow_subscribe_for_anonymous
    ]
    if is_open:
        return Exposure("channels", f"those of {', '.join(is_open)} need no subscription token")
    if decided := [f"[{name}]" for name, options in sections.items() if options.subscribe_proxy]:
        access = f"those of {', '.join(decided)} need a subscription token, or the answer of a proxy"
        return Exposure("channels", access)
    if any(options.allow_user_limited_channels for options in sections.values()):
        return Exposure("channels", "need a subscription token, or a name that lists the user")
    return Exposure(
        "channels",
        "all need a subscription token",
        "set allow_subscribe_for_client = true in [channels] or a namespace to open them",
    )


def _proxies(settings: Settings) -> Iterator[Exposure]:
    """Which back ends decide about what."""
    uses = proxy_uses(settings.client, settings.channels, settings.namespaces)
    for name in sorted({use.proxy for use in uses}):
        parts = urlsplit(settings.proxies[name].url)
        keys = ", ".join(use.key for use in uses if use.proxy == name)
        yield Exposure(f"proxy {name}", f"{parts.scheme}://{parts.netloc} decides ({keys})")


def _pages(settings: Settings) -> Exposure:
    origins = settings.server.allowed_origins
    if "*" in origins:
        return Exposure("pages", "those of every origin may connect")
    if origins:
        names = ["this server" if origin == "self" else origin for origin in origins]
        return Exposure("pages", f"those of {', '.join(names)} may connect")
    return Exposure("pages", "none may connect", "set server.allowed_origins to the origins of your pages")


def _api(settings: Settings) -> Exposure:
    api = settings.api
    if api.insecure:
        return Exposure(
            "HTTP API",
            "INSECURE, every caller may publish, read, disconnect and unsubscribe without a key",
            f"api.insecure is for development, and this node can be reached from {_reach(settings)}",
        )
    count = len(api.keys) + sum(len(options.keys) for options in settings.api_keys.values())
    if count:
        access = f"needs one of {count} keys" if count > 1 else "needs the key"
        named = [f"{name} ({_scope(options)})" for name, options in settings.api_keys.items()]
        return Exposure("HTTP API", f"{access}: {', '.join(named)}" if named else access)
    return Exposure("HTTP API", "refuses every caller", "set api.keys")


def _scope(options: ApiKeyOptions) -> str:
    methods = " ".join(options.methods) or "every method"
    channels = f" in {' '.join(options.channels)}" if options.channels else ""
    return methods + channels + (f", until {options.expires}" if options.expires else "")


def _webhooks(settings: Settings) -> Iterator[Exposure]:
    for name, webhook in settings.webhooks.items():
        advice = ""
        if not webhook.secrets:
            advice = f"its requests are not signed, so that they can be forged: set webhooks.{name}.secrets"
        elif webhook.is_plain_elsewhere:
            advice = "events travel without TLS: use an https:// address"
        yield Exposure(f"webhook {name}", f"lifecycle events are sent to {webhook.shown_url}", advice)


def _reach(settings: Settings) -> str:
    return "this machine" if all(map(_is_loopback, settings.server.hosts)) else "OTHER MACHINES"


def _is_ipv6(host: str) -> bool:
    return ":" in host and not is_passed_or_unix(host)


def _is_loopback(host: str) -> bool:
    if host.startswith(UNIX_PREFIX):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
