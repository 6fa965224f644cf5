"""Topology: which master of a cluster serves which slots, as one of its nodes sees it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

SLOTS: int = REDIS_CLUSTER_HASH_SLOTS


class Host(NamedTuple):
    """Where a server is reached."""

    name: str
    port: int

    def __str__(self) -> str:
        return f"{self.name}:{self.port}"


NOBODY = Host("", 0)
"""Serves what nobody serves."""


@dataclass(frozen=True)
class Topology:
    """`owners` has the master of every slot, `hosts` all servers that are known, replicas included."""

    owners: Sequence[Host]
    hosts: frozenset[Host]
    trouble: str = ""
    """Why not all is well with the cluster, as the end of a sentence."""

    @property
    def masters(self) -> set[Host]:
        """Those that serve slots."""
        return set(self.owners) - {NOBODY}

    @property
    def slots_of(self) -> dict[Host, set[int]]:
        """The slots of every master."""
        found: dict[Host, set[int]] = {}
        for slot, owner in enumerate(self.owners):
            found.setdefault(owner, set()).add(slot)
        return found

    @property
    def uncovered(self) -> int:
        """How many slots nobody serves."""
        return sum(owner is NOBODY for owner in self.owners)


UNKNOWN = Topology([NOBODY] * SLOTS, frozenset())
"""Before anybody was asked."""


def parse_topology(answer: Any, asked: Host) -> Topology:
    """What a server answered to CLUSTER SLOTS. One that does not know its address is where it was asked."""
    owners = [NOBODY] * SLOTS
    hosts = {asked}
    for first, last, *servers in answer:
        found = [Host((server[0] or b"").decode() or asked.name, server[1]) for server in servers]
        hosts.update(found)
        owners[first : last + 1] = [found[0]] * (last - first + 1)
    return Topology(owners, frozenset(hosts))


def slot_of(name: str | bytes) -> int:
    """The slot of a key, or of the name of announcements."""
    slot: int = key_slot(name.encode() if isinstance(name, str) else name)
    return slot


def tag_within(slots: set[int]) -> str:
    """A hash tag that falls into one of these slots."""
    return next(tag for tag in map(str, itertools.count()) if slot_of(tag) in slots)
