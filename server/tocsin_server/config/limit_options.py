"""`[limits]`: what all clients together, and each one, may cost this node and its cluster."""

from tocsin_server.config.values import Limit, Options, Rate


class LimitOptions(Options):
    """`[limits]`: limits of a node and of its cluster."""

    new_channel_rate: Rate = 5000
    """Subscriptions per second to channels without a subscriber on the node (111)."""
    new_channel_burst: Limit = 50_000
