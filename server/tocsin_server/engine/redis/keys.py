"""Keys: the names of everything in Redis.

All names of one channel have the channel in braces, so a cluster keeps them in one slot and one script can
use all of them. No two things have the same name, for all channels and idempotency keys. The last
`}` of a name is followed by a fixed word or an idempotency key, in which braces are escaped.

Pub/sub has no databases: a name reaches subscribers in all databases of a Redis. So the pub/sub names of a
database other than 0 have its number after the prefix, as in `tocsin/1:control`. A prefix contains no slash.

Three names are older than the glossary's words for them: `log` (history), `answers` (responses) and
`canary` (probe). They stay, so that nodes of different versions can share a prefix.
"""

from __future__ import annotations

from collections.abc import Sequence

from redis.crc import key_slot


class Keys:
    """The names of one system: those under one prefix in one database.

    A prefix contains neither colons, braces nor slashes. On a cluster, `slot_tags` holds a hash tag for each
    slot.
    """

    def __init__(self, prefix: str, database: int = 0, slot_tags: Sequence[str] = ()) -> None:
        self._prefix = prefix
        self._slot_tags = slot_tags
        self._pubsub_prefix = f"{prefix}/{database}" if database else prefix
        self.nodes = f"{prefix}:nodes"
        """Hash: lease → how often it was renewed, or `dead`."""
        self.secret = f"{prefix}:secret"
        """String: the key of signatures (see signatures)."""
        self.control = f"{self._pubsub_prefix}:control"
        """Pub/sub: control commands and survey requests for every node."""
        self.revocations = f"{prefix}:revocations:{{all}}"
        """Hash: revocation → unix second at which it expires; also `last_expiry` and `prune_at`."""
        self.latest_revocations = f"{prefix}:revocations:{{all}}:latest"
        """Stream: the latest revocations. It is in the slot of the hash."""
        self.revocation_announcements = f"{self._pubsub_prefix}:revocations:{{all}}"
        """Pub/sub: there are new revocations. The messages have no content."""
        self.publish_stream = f"{prefix}:publish"
        """Stream: publications that programs have added, and that are not published yet."""
        self.publish_failures = f"{prefix}:{{{self.publish_stream}}}:failures"
        """Stream: entries of the publish stream that cannot be published. In the slot of that stream."""
        self.publish_claim = f"{prefix}:{{{self.publish_stream}}}:claim"
        """String: the uid of the node that reads the publish stream."""

    @property
    def of_events(self) -> tuple[str, ...]:
        """The keys of the event log that all its scripts use (scripts/lib/events.lua). One slot has them all.

        Hash `meta`: the epoch of the log, the number of parts, how many events were trimmed. Hash `nodes`:
        incarnation of a node → its state and name. Hash `batches`: incarnation → number of its last batch.
        Hash `occupied`: channel → number of incarnations that occupy it. Hashes by part and subscriber:
        `positions`, the last acknowledged entry; `claims`, the incarnation that reads. Hash `subscribers`:
        subscriber → millisecond at which it last read. Hash `readers`: incarnation and subscriber →
        millisecond at which it last tried to claim a part, or `left`.
        """
        names = ("meta", "nodes", "batches", "occupied", "positions", "claims", "subscribers", "readers")
        return tuple(self._of_events(name) for name in names)

    def event_part(self, part: int) -> str:
        """Stream: the events of a part."""
        return self._of_events(f"part:{part}")

    def of_incarnation(self, incarnation: str) -> tuple[str, str, str]:
        """Hash: client → session record. Set: occupied channels. String, once it is dead: its last batch."""
        return (
            self._of_events(f"{incarnation}:sessions"),
            self._of_events(f"{incarnation}:channels"),
            self._of_events(f"{incarnation}:dead"),
        )

    def incarnation_reaper(self, incarnation: str) -> str:
        """String: the uid of the node that says the ends of a dead incarnation's sessions."""
        return self._of_events(f"{incarnation}:reaper")

    @property
    def event_announcements(self) -> str:
        """Pub/sub: events were written. The messages have no content."""
        return f"{self._pubsub_prefix}:events:{{all}}"

    def _of_events(self, name: str) -> str:
        return f"{self._prefix}:events:{{all}}:{name}"

    def pubsub_name(self, channel: str) -> str:
        """Pub/sub: the messages of a channel."""
        return f"{self._pubsub_prefix}:{{{_hash_tag(channel)}}}"

    def history(self, channel: str) -> str:
        """Stream: the publications that are kept, with ids `<offset>-<stamp>`."""
        return f"{self._of_channel(channel)}:log"

    def meta(self, channel: str) -> str:
        """Hash: offset, epoch, version and version_epoch of a channel's history."""
        return f"{self._of_channel(channel)}:meta"

    def of_history(self, channel: str) -> tuple[str, str, str]:
        """The names that a publish uses: the pub/sub name, meta and history."""
        tag = _hash_tag(channel)
        key = f"{self._prefix}:{{{tag}}}"
        return f"{self._pubsub_prefix}:{{{tag}}}", f"{key}:meta", f"{key}:log"

    def epochs(self, channel: str) -> str:
        """String: the first half of the initial epoch. Each name with `:<ms>` added has a second half.

        The second half lives that long: the time to live of the top of an unused history. On a cluster each
        slot has its own.
        """
        if not self._slot_tags:
            return f"{self._prefix}:epochs"
        tag = self._slot_tags[key_slot(self.meta(channel).encode())]
        return f"{self._prefix}:{{{tag}}}:epochs"

    def idempotency(self, channel: str, idempotency_key: str) -> str:
        """String: the result of the first publish with an idempotency key, as `<offset> <epoch>`."""
        key = idempotency_key
        if "%" in key or "}" in key:
            key = key.replace("%", "%25").replace("}", "%7D")
        return f"{self._prefix}:{{{_hash_tag(channel)}}}:idem:{key}"

    def presence(self, channel: str) -> str:
        """Hash: client id → presence entry."""
        return f"{self._of_channel(channel)}:presence"

    def users(self, channel: str) -> str:
        """Hash: user → number of clients in the channel's presence."""
        return f"{self._of_channel(channel)}:users"

    def connections(self, user: str) -> str:
        """Hash: client id → uid of the node that has this connection of the user."""
        return f"{self._prefix}:user:{{{_hash_tag(user)}}}"

    def dead_letters(self, subscriber: str) -> str:
        """Stream: the dead letters of a webhook or of handlers."""
        return f"{self._prefix}:delivery:{subscriber}:dead_letters"

    def failing_deliveries(self, subscriber: str) -> str:
        """Hash: part → what is known of its delivery that fails."""
        return f"{self._prefix}:delivery:{subscriber}:failing"

    def lease_channels(self, lease: str) -> str:
        """Set: the channels in which a lease has, or had, presence entries."""
        return f"{self._prefix}:node:{lease}:channels"

    def lease_reaper(self, lease: str) -> str:
        """String: the uid of the node that reaps a dead lease."""
        return f"{self._prefix}:node:{lease}:reaper"

    def check(self, node: str, tag: str) -> str:
        """Any type: a node tries its commands on it. A tag with braces determines the slot."""
        return f"{self._prefix}:node:{node}:check:{tag}"

    def check_name(self, node: str, tag: str) -> str:
        """Pub/sub: a node tries to publish under it. Its slot is that of `check`."""
        return f"{self._pubsub_prefix}:node:{node}:check:{tag}"

    def responses(self, node: str) -> str:
        """Pub/sub: the responses to a node's control commands and surveys."""
        return f"{self._pubsub_prefix}:node:{node}:answers"

    def commands(self, node: str) -> str:
        """Pub/sub: the commands of a node's emulated connections that other nodes received."""
        return f"{self._pubsub_prefix}:node:{node}:commands"

    def receipts(self, node: str) -> str:
        """Pub/sub: the receipts for commands that a node forwarded."""
        return f"{self._pubsub_prefix}:node:{node}:receipts"

    def probe(self, node: str) -> str:
        """Pub/sub: a node's probes."""
        return f"{self._pubsub_prefix}:node:{node}:canary"

    def shard_probe(self, node: str, tag: str) -> str:
        """Pub/sub: a node's probes in the slot of a hash tag."""
        return f"{self.probe(node)}:{{{tag}}}"

    def _of_channel(self, channel: str) -> str:
        return f"{self._prefix}:{{{_hash_tag(channel)}}}"


def _hash_tag(channel: str) -> str:
    # A hash tag must not be empty, and must not begin with a closing brace (Redis Cluster specification,
    # "Hash tags"): Redis would ignore it, and the keys of one channel would be in several slots.
    return f"%{channel}" if channel[:1] in ("", "}", "%") else channel
