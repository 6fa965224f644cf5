"""`[limits]`: what all clients together, and each one, may cost this node and its cluster."""

from tocsin_server.config.values import Options


class LimitOptions(Options):
    """`[limits]`: limits of a node and of its cluster."""
