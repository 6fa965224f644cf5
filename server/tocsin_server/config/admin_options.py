"""`[admin]`: where the HTTP API, its OpenAPI document, health and metrics are served."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from tocsin_server.config.values import Options, host_list, origin_pattern, string_list

AdminPart = Literal["api", "docs", "health", "metrics"]
"""The HTTP API, its OpenAPI document, `/health/…` and `/metrics`."""

PARTS: tuple[AdminPart, ...] = ("api", "docs", "health", "metrics")


def _hosts_or_none(value: object) -> object:
    return value if value in ("", None) else host_list(value)


class AdminOptions(Options):
    """What is served besides clients: on a listening address of its own, or on that of `[server]`."""

    host: Annotated[str, BeforeValidator(_hosts_or_none)] = ""
    """What to listen on, as `server.host`. Empty: the address of `[server]` serves everything."""
    port: int = Field(default=8001, ge=0, le=65535)
    serve: Annotated[tuple[AdminPart, ...], BeforeValidator(string_list)] = PARTS
    """What is served at all."""
    public: Annotated[tuple[AdminPart, ...], BeforeValidator(string_list)] = ()
    """What the address of `[server]` serves too, although there is a separate one."""
    allowed_origins: Annotated[
        tuple[Annotated[str, AfterValidator(origin_pattern)], ...], BeforeValidator(string_list)
    ] = ("self",)
    """Origins of the pages that may call the API. A caller without an Origin always may."""
    tls_certificate: str = ""
    """The certificate file of the separate address. Empty: no TLS."""
    tls_key: str = ""

    @property
    def hosts(self) -> tuple[str, ...]:
        """Each of the hosts. None: there is no separate address."""
        return tuple(self.host.split(",")) if self.host else ()

    @property
    def served_publicly(self) -> tuple[AdminPart, ...]:
        """What the address of `[server]` serves."""
        return tuple(part for part in self.serve if part in self.public) if self.host else self.serve
