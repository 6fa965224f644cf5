"""Slots and topology: which master of a Redis Cluster serves which slots, as one of its servers sees it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from tocsin_server.engine.redis.interfaces import Argument

SLOTS: int = REDIS_CLUSTER_HASH_SLOTS


class Host(NamedTuple):
    """The name and port at which a server is reached."""

    name: str
    port: int

    def __str__(self) -> str:
        return f"{self.name}:{self.port}"


NO_HOST = Host("", 0)
"""The owner of a slot that no server serves."""


@dataclass(frozen=True)
class Topology:
    """`owners` holds the master of every slot. `hosts` are all known servers, replicas included."""

    owners: Sequence[Host]
    hosts: frozenset[Host]
    problem: str = ""
    """What is wrong with the cluster, as the end of a sentence. Empty if nothing is."""

    @property
    def masters(self) -> set[Host]:
        """The servers that serve slots."""
        return set(self.owners) - {NO_HOST}

    @property
    def slots_by_master(self) -> dict[Host, set[int]]:
        """The slots of every master."""
        found: dict[Host, set[int]] = {}
        for slot, owner in enumerate(self.owners):
            found.setdefault(owner, set()).add(slot)
        return found

    @property
    def unserved_slots(self) -> int:
        """How many slots no server serves."""
        return sum(owner is NO_HOST for owner in self.owners)


UNKNOWN_TOPOLOGY = Topology([NO_HOST] * SLOTS, frozenset())
"""The topology before any server has answered."""


def parse_topology(reply: Any, source: Host) -> Topology:
    """Parse a server's reply to CLUSTER SLOTS. A server that does not know its own address is `source`."""
    owners = [NO_HOST] * SLOTS
    hosts = {source}
    for first, last, *servers in reply:
        found = [Host((server[0] or b"").decode() or source.name, server[1]) for server in servers]
        hosts.update(found)
        owners[first : last + 1] = [found[0]] * (last - first + 1)
    return Topology(owners, frozenset(hosts))


def slot_of(name: Argument) -> int:
    """The slot of a key or of a pub/sub name."""
    slot: int = key_slot(name if isinstance(name, bytes) else str(name).encode())
    return slot


def hash_tag_within(slots: set[int]) -> str:
    """Find a hash tag whose slot is one of these. `slots` must not be empty."""
    return next(tag for tag in map(str, itertools.count()) if slot_of(tag) in slots)


@lru_cache(maxsize=1)
def hash_tags() -> Sequence[str]:
    """A hash tag for each slot. Finding them takes a fifth of a second, once."""
    found: dict[int, str] = {}
    for tag in map(str, itertools.count()):
        found.setdefault(slot_of(tag), tag)
        if len(found) == SLOTS:
            break
    return [found[slot] for slot in range(SLOTS)]
