"""`[limits]`: what all clients together, and each one, may cost this node and its cluster."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from tocsin_server.config.values import Limit, OptionalLimit, Options, Rate, network, string_list

PRIVATE_NETWORKS = (
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "100.64.0.0/10",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
)
"""Addresses that no client on the internet has. A reverse proxy or a container network has one of them."""


class LimitOptions(Options):
    """`[limits]`: limits of a node and of its cluster."""

    queued_bytes: Limit = 268_435_456
    """Bytes queued for all clients of a node. Above it, those with the most are disconnected (3008)."""
    recovery_bytes: Limit = 67_108_864
    """Bytes of histories and recoveries that a node reads for its clients at once. Others wait their turn."""
    new_channel_rate: Rate = 5000
    """Subscriptions per second to channels without a subscriber on the node (111)."""
    new_channel_burst: Limit = 50_000
    hooks_at_once: Limit = 200
    """Events that each hook is asked about at once. 20 times as many may wait; others are refused (111)."""
    hook_threads: Limit = 16
    """Hooks of one kind that are plain functions, of which each has a thread while it runs."""
    presence_entries: OptionalLimit = 5000
    """Presence entries of one channel, on all nodes. 0: no limit."""
    revocation_limit: Limit = 100_000
    """Revocations of tokens that the cluster keeps. Each node has them all, at about 200 bytes each."""
    connection_limit: OptionalLimit = 0
    """WebSocket connections and event streams of a node. 0: as many as it may have open files."""
    address_connection_limit: OptionalLimit = 1000
    """The same of one address. 0: any number. An office or a mobile network may share an address."""
    connect_rate: OptionalLimit = 1000
    """New connections of a node per second, and ten times as many at once. 0: any number."""
    address_connect_rate: OptionalLimit = 50
    """The same of one address."""
    half_open_limit: OptionalLimit = 5000
    """Connections of a node without a complete request or connect command. 0: any number."""
    address_half_open_limit: OptionalLimit = 200
    """The same of one address."""
    exempt_addresses: Annotated[
        tuple[Annotated[str, AfterValidator(network)], ...], BeforeValidator(string_list)
    ] = PRIVATE_NETWORKS
    """Addresses and networks whose connections count for the node alone."""
