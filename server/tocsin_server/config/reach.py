"""Reach: what is served on which listening address, and to whom, in sentences."""

from collections.abc import Iterator

from tocsin_server.config.admin_options import AdminPart
from tocsin_server.config.loading import Settings
from tocsin_server.config.values import is_passed_or_unix


def reach(settings: Settings) -> list[str]:
    """One line for each listening address, to print at start and in check-config."""
    return list(_lines(settings))


def _lines(settings: Settings) -> Iterator[str]:
    server, admin = settings.server, settings.admin
    public = admin.served_publicly
    parts = ["connections", *(_part(settings, part, is_public=True) for part in public)]
    parts += ["through proxies alone (PROXY protocol)"] if server.proxy_protocol else []
    yield f"{_urls(server.hosts, server.port, bool(server.tls_certificate))} serves {', '.join(parts)}."
    if admin.host:
        parts = [_part(settings, part, is_public=False) for part in admin.serve]
        served = ", ".join(parts) or "nothing"
        yield f"{_urls(admin.hosts, admin.port, bool(admin.tls_certificate))} serves {served}."


def _urls(hosts: tuple[str, ...], port: int, is_tls: bool) -> str:
    scheme = "https" if is_tls else "http"
    at_port = f":{port}" if port else ""
    return ", ".join(
        host if is_passed_or_unix(host) else f"{scheme}://{f'[{host}]' if ':' in host else host}{at_port}"
        for host in hosts
    )


def _part(settings: Settings, part: AdminPart, *, is_public: bool) -> str:
    """A part, and who may use it."""
    if part == "api":
        access = "with a key" if settings.api.keys else "to no caller (api.keys is not set)"
        return "the API without a key" if settings.api.insecure else f"the API {access}"
    if part == "metrics":
        is_guarded = is_public and not settings.api.insecure
        return "metrics to private networks or with a key" if is_guarded else "metrics"
    return part
