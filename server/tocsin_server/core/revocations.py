"""Revocations: which tokens are invalid although they have not expired.

A node looks them up when a token is used, without a call to its engine. So each node has all of them, and
the engine hands it those of other nodes (engine/revocations.py).

The mutable state is the revocations that have not expired; only the methods of `Revocations` change it.
"""

from __future__ import annotations

from msgspec import Struct

_FIRST_PRUNE = 64


class Revocation(Struct, frozen=True, omit_defaults=True):
    """One token, by its id, or the tokens of a user issued before a moment. Times are unix seconds."""

    expire_at: float
    """When the tokens have expired anyway, so that the revocation is no longer needed."""
    token_id: str = ""
    """The `jti` of a token. Empty: the tokens of `user`."""
    user: str = ""
    channel: str = ""
    """Only subscription tokens for this channel. Empty: all tokens of the user."""
    issued_before: float = 0
    """A token without `iat` counts as issued before."""


class Revocations:
    """All revocations that a node knows."""

    def __init__(self) -> None:
        self._tokens: dict[str, float] = {}
        self._users: dict[tuple[str, str], tuple[float, float]] = {}
        self._prune_at = _FIRST_PRUNE

    def __len__(self) -> int:
        return len(self._tokens) + len(self._users)

    def add(self, revocation: Revocation, unix_now: float) -> bool:
        """Add a revocation. Returns whether it revokes more than was revoked before."""
        if revocation.expire_at <= unix_now:
            return False
        if len(self) >= self._prune_at:
            self.prune(unix_now)
        if revocation.token_id:
            known = self._tokens.get(revocation.token_id, 0.0)
            self._tokens[revocation.token_id] = max(known, revocation.expire_at)
            return known < revocation.expire_at
        key = (revocation.user, revocation.channel)
        issued_before, expire_at = self._users.get(key, (0.0, 0.0))
        found = max(issued_before, revocation.issued_before), max(expire_at, revocation.expire_at)
        self._users[key] = found
        return found != (issued_before, expire_at)

    def prune(self, unix_now: float) -> None:
        """Free the memory of expired revocations. The `add` calls since the last time share the cost."""
        self._tokens = {token: end for token, end in self._tokens.items() if end > unix_now}
        self._users = {key: (before, end) for key, (before, end) in self._users.items() if end > unix_now}
        self._prune_at = max(_FIRST_PRUNE, 2 * len(self))

    def covers(self, token_id: str, user: str, issued_at: float, unix_now: float, channel: str = "") -> bool:
        """Whether a token is revoked. `channel` is that of a subscription token; empty for a connection's."""
        if self._tokens and token_id and self._tokens.get(token_id, 0.0) > unix_now:
            return True
        if not self._users or not user:
            return False
        return self._covers_user(user, "", issued_at, unix_now) or (
            channel != "" and self._covers_user(user, channel, issued_at, unix_now)
        )

    def _covers_user(self, user: str, channel: str, issued_at: float, unix_now: float) -> bool:
        issued_before, expire_at = self._users.get((user, channel), (0.0, 0.0))
        return issued_at < issued_before and unix_now < expire_at

    def all(self) -> list[Revocation]:
        """Return every revocation, for an engine whose store has lost them."""
        tokens = [Revocation(end, token_id=token) for token, end in self._tokens.items()]
        users = [
            Revocation(end, user=user, channel=channel, issued_before=before)
            for (user, channel), (before, end) in self._users.items()
        ]
        return [*tokens, *users]
