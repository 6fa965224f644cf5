"""Pub/sub: the connection on which a node receives, its subscriptions, and the probe that proves it works."""
