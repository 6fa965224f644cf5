"""`[limits]`: what all clients together, and each one, may cost this node and its cluster."""

from tocsin_server.config.values import OptionalLimit, Options


class LimitOptions(Options):
    """`[limits]`: limits of a node and of its cluster."""

    presence_entries: OptionalLimit = 5000
    """Presence entries of one channel, on all nodes. 0: no limit."""
