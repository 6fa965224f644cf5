"""The rules of channel names that a configuration sets."""

from tocsin_server.config.loading import Settings
from tocsin_server.core.channel_names import ChannelRules


def channel_rules(settings: Settings) -> ChannelRules:
    """Return the options of every channel."""
    client = settings.client
    return ChannelRules(
        settings.channels,
        settings.namespaces,
        client.channel_length_limit,
        client.personal_channel_namespace if client.personal_channel else None,
    )
