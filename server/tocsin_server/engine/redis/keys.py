"""Keys: what everything is called in Redis.

Whatever belongs to one channel has the channel in braces, so that a cluster keeps it in one slot, and
scripts may touch all of it in one step. No two things share a name, whatever channels and idempotency keys
are called: after the last `}` comes a fixed word or an idempotency key, whose own braces are escaped.
"""

from __future__ import annotations


class Keys:
    """The names under one prefix. A prefix has neither colons nor braces."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.nodes = f"{prefix}:nodes"
        """Hash: lease → number of its last beat, or `dead`."""
        self.control = f"{prefix}:control"
        """Pub/sub: orders and questions for every node."""

    def announcements(self, channel: str) -> str:
        """Pub/sub: what is announced in a channel."""
        # A tag that is empty, or seems so since it begins with a brace, would be none (Redis Cluster
        # specification, "Hash tags"), and the keys of one channel would be in many slots.
        tag = f"%{channel}" if channel[:1] in ("", "}", "%") else channel
        return f"{self._prefix}:{{{tag}}}"

    def log(self, channel: str) -> str:
        """Stream: the publications that are kept, with ids `<offset>-<stamp>`."""
        return f"{self.announcements(channel)}:log"

    def meta(self, channel: str) -> str:
        """Hash: offset, epoch, version and version_epoch of a log."""
        return f"{self.announcements(channel)}:meta"

    def of_log(self, channel: str) -> tuple[str, str, str]:
        """The names that a publication takes: announcements, meta and log."""
        announcements = self.announcements(channel)
        return announcements, f"{announcements}:meta", f"{announcements}:log"

    def answer(self, channel: str, idempotency_key: str) -> str:
        """Text: the answer that an idempotency key was given, as `<offset> <epoch>`."""
        key = idempotency_key.replace("%", "%25").replace("}", "%7D")
        return f"{self.announcements(channel)}:idem:{key}"

    def presence(self, channel: str) -> str:
        """Hash: client → whose lease, and who it is."""
        return f"{self.announcements(channel)}:presence"

    def users(self, channel: str) -> str:
        """Hash: user → number of connections in the channel's presence."""
        return f"{self.announcements(channel)}:users"

    def lease_channels(self, lease: str) -> str:
        """Set: the channels in whose presence a lease has, or had, entries."""
        return f"{self._prefix}:node:{lease}:channels"

    def lease_reaper(self, lease: str) -> str:
        """Text: who is reaping a dead lease."""
        return f"{self._prefix}:node:{lease}:reaper"

    def answers(self, node: str) -> str:
        """Pub/sub: what a node is answered."""
        return f"{self._prefix}:node:{node}:answers"

    def canary(self, node: str) -> str:
        """Pub/sub: a node's canaries."""
        return f"{self._prefix}:node:{node}:canary"

    def shard_canary(self, node: str, tag: str) -> str:
        """Pub/sub: a node's canaries in the slot of a hash tag."""
        return f"{self.canary(node)}:{{{tag}}}"
