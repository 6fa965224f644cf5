"""How the demo's nodes are set up: in code, with a secret and a key made at start."""

import secrets

import msgspec

from tocsin_server.config.loading import Settings
from tocsin_server.config.options import (
    ApiOptions,
    ChannelOptions,
    ClientOptions,
    EngineOptions,
    ServerOptions,
)

HOST = "127.0.0.1"

DRAIN_SECONDS = 1.0
"""A node with neighbours sends its clients away over so long, at most."""


class Ground(msgspec.Struct, frozen=True):
    """What all nodes of one demo share: an address, an engine, and whom they believe."""

    port: int
    database: str
    engine: str = "memory://"
    token_secret: str = msgspec.field(default_factory=lambda: secrets.token_urlsafe(32))
    api_key: str = msgspec.field(default_factory=lambda: secrets.token_urlsafe(32))

    @property
    def url(self) -> str:
        """Where the page is; whoever asks there reaches any node."""
        return f"http://{HOST}:{self.port}"


def demo_settings(ground: Ground, name: str) -> Settings:
    """Safe settings for a page of our own, and channels with a log."""
    is_alone = ground.engine == "memory://"
    return Settings(
        server=ServerOptions(
            host=HOST,
            port=ground.port,
            name=name,
            allowed_origins=("self",),
            drain_seconds=0 if is_alone else DRAIN_SECONDS,
        ),
        engine=EngineOptions(url=ground.engine),
        client=ClientOptions(token_hmac_secret=ground.token_secret),
        api=ApiOptions(keys=(ground.api_key,)),
        channels=_logged(history_size=300),  # "links"
        namespaces={"chat": _logged(history_size=300, presence=True, join_leave=True)},
    )


def _logged(**options: object) -> ChannelOptions:
    """A channel any visitor may follow, and none may write to: what is said goes through the application."""
    return ChannelOptions.model_validate(
        {
            "history_ttl": "1h",
            "force_recovery": True,
            "allow_subscribe_for_client": True,
            "allow_history_for_subscriber": True,
            "allow_presence_for_subscriber": True,
            "force_push_join_leave": bool(options.get("join_leave")),
            **options,
        }
    )
