"""`[limits]`: what all clients together, and each one, may cost this node and its cluster."""

from tocsin_server.config.values import Limit, OptionalLimit, Options, Rate


class LimitOptions(Options):
    """`[limits]`: limits of a node and of its cluster."""

    new_channel_rate: Rate = 5000
    """Subscriptions per second to channels without a subscriber on the node (111)."""
    new_channel_burst: Limit = 50_000
    presence_entries: OptionalLimit = 5000
    """Presence entries of one channel, on all nodes. 0: no limit."""
    revocation_limit: Limit = 100_000
    """Revocations of tokens that the cluster keeps. Each node has them all, at about 200 bytes each."""
