"""`[limits]`: what all clients together, and each one, may cost this node and its cluster."""

from tocsin_server.config.values import Limit, OptionalLimit, Options


class LimitOptions(Options):
    """`[limits]`: limits of a node and of its cluster."""

    queued_bytes: Limit = 268_435_456
    """Bytes queued for all clients of a node. Above it, those with the most are disconnected (3008)."""
    recovery_bytes: Limit = 67_108_864
    """Bytes of histories and recoveries that a node reads for its clients at once. Others wait their turn."""
    presence_entries: OptionalLimit = 5000
    """Presence entries of one channel, on all nodes. 0: no limit."""
