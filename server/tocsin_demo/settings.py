"""The configuration of the demo's nodes: made in code, with a token secret and an API key made at start."""

import secrets

import msgspec

from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.config.client_options import ClientOptions
from tocsin_server.config.event_options import EventOptions
from tocsin_server.config.loading import Settings
from tocsin_server.config.options import ApiOptions, EngineOptions, ServerOptions

HOST = "127.0.0.1"

DRAIN_SECONDS = 1.0
"""A node of several drains over at most this time."""


class DemoConfig(msgspec.Struct, frozen=True):
    """What all nodes of one demo share: the port, the database, the engine and the secrets."""

    port: int
    database: str
    engine: str = "memory://"
    token_secret: str = msgspec.field(default_factory=lambda: secrets.token_urlsafe(32))
    api_key: str = msgspec.field(default_factory=lambda: secrets.token_urlsafe(32))

    @property
    def url(self) -> str:
        """The URL of the page, which every node serves."""
        return f"http://{HOST}:{self.port}"


def demo_settings(config: DemoConfig, name: str) -> Settings:
    """Return settings that are safe for the demo's own page, with channels that keep a history."""
    is_standalone = config.engine == "memory://"
    return Settings(
        server=ServerOptions(
            host=HOST,
            port=config.port,
            name=name,
            allowed_origins=("self",),
            drain_seconds=0 if is_standalone else DRAIN_SECONDS,
        ),
        engine=EngineOptions(url=config.engine),
        client=ClientOptions(token_hmac_secret=config.token_secret),
        api=ApiOptions(keys=(config.api_key,)),
        events=EventOptions(types=("subscribed", "unsubscribed")),
        channels=_channel_options(history_size=300),  # "links", "visits"
        namespaces={"chat": _channel_options(history_size=300, presence=True, join_leave=True)},
    )


def _channel_options(**options: object) -> ChannelOptions:
    """A channel that every visitor may subscribe to. Visitors publish through the application only."""
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
