"""Capabilities: which rights a connection token grants in which channels, by patterns (docs/permissions.md).

The claim `caps` has the shape that Centrifugo's tokens have: `[{"channels": ["news:*"], "allow": ["sub"]}]`.
The first entry with a pattern that matches a channel decides. This module is pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from functools import lru_cache
from typing import Annotated, Literal

from msgspec import Meta, Struct

from tocsin_server.core.channel_names import PRIVATE_PREFIX, USER_BOUNDARY

ENTRIES_LIMIT = 100
"""How many entries a claim may have, and how many patterns an entry. A larger claim is not valid."""

ANY = "*"


class Action(Enum):
    """What a client may be permitted to do in a channel. `PRESENCE` includes its counts, joins and leaves."""

    SUBSCRIBE = "subscribe"
    PUBLISH = "publish"
    HISTORY = "history"
    PRESENCE = "presence"

    __hash__ = object.__hash__  # Enum's own is written in Python


SUBSCRIBE, PUBLISH, HISTORY, PRESENCE = Action
"""The actions, for what runs often: a member of an Enum takes ten times as long to look up as a name."""

Right = Literal["sub", "pub", "hst", "prs", "subscribe", "publish", "history", "presence"]
"""How claims write an action: in Centrifugo's three letters, or as a word."""

NO_ACTIONS: frozenset[Action] = frozenset()

_SHORT = {
    "sub": Action.SUBSCRIBE,
    "pub": Action.PUBLISH,
    "hst": Action.HISTORY,
    "prs": Action.PRESENCE,
}


class Capability(Struct, frozen=True):
    """One entry of the claim: rights in the channels that match a pattern.

    In a pattern only `*` has a meaning, with or without `match`. Another `match`, such as Centrifugo's
    `regex`, is not valid, because an entry that is left out would change which entry is the first.
    """

    channels: Annotated[tuple[str, ...], Meta(max_length=ENTRIES_LIMIT)]
    allow: tuple[Right, ...]
    match: Literal["", "wildcard"] = ""


def actions(rights: Iterable[Right]) -> frozenset[Action]:
    """Return the actions that a claim writes as rights."""
    if rights == ():
        return NO_ACTIONS
    return frozenset(_SHORT.get(right) or Action(right) for right in rights)


class Capabilities:
    """The capabilities of a connection. Immutable, and shared by all connections with the same claim."""

    __slots__ = ("_entries",)

    def __init__(self, claim: Iterable[Capability]) -> None:
        self._entries = [
            ([pattern.split(ANY) for pattern in entry.channels], actions(entry.allow)) for entry in claim
        ]

    def allow(self, action: Action, channel: str) -> bool:
        """Whether the first entry that names the channel has the right to `action`.

        Takes time in proportion to the patterns and the length of the name.
        """
        for patterns, allowed in self._entries:
            if any(_matches(fixed, channel) for fixed in patterns):
                return action in allowed
        return False


def _matches(fixed: list[str], channel: str) -> bool:
    """Whether a name matches a pattern, given as the texts between its stars.

    A star matches neither the `$` of a private channel nor any `#`, so that a pattern grants private,
    user-limited and personal channels only if it names them.
    """
    first, last = fixed[0], fixed[-1]
    if channel.startswith(PRIVATE_PREFIX) != first.startswith(PRIVATE_PREFIX):
        return False
    if channel.count(USER_BOUNDARY) != sum(text.count(USER_BOUNDARY) for text in fixed):
        return False
    if len(fixed) == 1:
        return channel == first
    if not channel.startswith(first):
        return False
    position = len(first)
    for text in fixed[1:-1]:
        found = channel.find(text, position)
        if found < 0:
            return False
        position = found + len(text)
    return len(channel) - len(last) >= position and channel.endswith(last)


@lru_cache(maxsize=256)
def capabilities(claim: tuple[Capability, ...]) -> Capabilities | None:
    """Return the capabilities of a claim, the same object for the same claim; None for an empty one."""
    return Capabilities(claim) if claim else None
