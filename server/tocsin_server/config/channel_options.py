"""`[channels]` and `[namespaces.X]`: features and permissions of channels."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, model_validator

from tocsin_server.config.values import (
    Duration,
    ExactString,
    Limit,
    OptionalLimit,
    Options,
    PositiveDuration,
    Rate,
    in_seconds,
    regular_expression,
    string_list,
)

NAMESPACE_PATTERN = r"^[-a-zA-Z0-9_]{2,}$"
"""Valid names of a namespace (docs/protocol.md §13)."""


class ChannelOptions(Options):
    """`[channels]` and `[namespaces.X]`: features and permissions of channels (docs/protocol.md §13)."""

    presence: bool = False
    join_leave: bool = False
    force_push_join_leave: bool = False
    history_size: OptionalLimit = 0
    """Publications kept in history. With 0 the channel has no history."""
    history_ttl: Duration = 0
    """How long history is kept after the newest publication."""
    history_meta_ttl: PositiveDuration = 30 * 86400
    """How long the top position is kept after the last use of the channel."""
    force_positioning: bool = False
    allow_positioning: bool = False
    force_recovery: bool = False
    allow_recovery: bool = False
    force_recovery_mode: Literal["stream", "cache"] = "stream"
    auto_cache_recover: bool = False
    allow_subscribe_for_client: bool = False
    allow_subscribe_for_anonymous: bool = False
    allow_publish_for_client: bool = False
    allow_publish_for_subscriber: bool = False
    allow_publish_for_anonymous: bool = False
    allow_history_for_client: bool = False
    allow_history_for_subscriber: bool = False
    allow_history_for_anonymous: bool = False
    allow_presence_for_client: bool = False
    allow_presence_for_subscriber: bool = False
    allow_presence_for_anonymous: bool = False
    allow_user_limited_channels: bool = False
    """Users named after the last `#` of a channel's name may subscribe without a token."""
    channel_regex: Annotated[ExactString, AfterValidator(regular_expression)] = ""
    """A pattern that a channel's name after its namespace must match. Empty: any name."""
    publication_data_format: Literal["", "json", "json_object", "binary"] = ""
    """The required form of a publication's data. Empty: JSON from clients, and any bytes from back ends."""

    allowed_delta_types: Annotated[tuple[Literal["fossil"], ...], BeforeValidator(string_list)] = ()
    """Which deltas clients may request (docs/protocol.md §11). Empty: none."""
    delta_publish: bool = False
    """Every publication may be delivered as a delta, not only those published with `delta`."""
    allow_tags_filter: bool = False
    """Clients may request only the publications whose tags match a filter."""
    slow_policy: Literal["disconnect", "drop_oldest", "latest"] = "disconnect"
    """What becomes of publications for a client that is behind (docs/slow-clients.md)."""
    slow_key: ExactString = ""
    """With `latest`: the tag whose values are kept apart. Empty: the newest publication of the channel."""
    slow_limit_bytes: Limit = 262_144
    """With `drop_oldest` and `latest`: what is kept for a client that is behind, at most."""
    publish_rate: Rate = 1000
    """Publish commands per second into one channel, of all clients of a node together (111)."""
    publish_burst: Limit = 2000
    subscriber_limit: OptionalLimit = 0
    """Subscribers of one channel on a node. A further subscribe command is refused (106)."""
    subscribe_proxy: str = ""
    """The proxy that decides about subscriptions without a token. Empty: none."""
    publish_proxy: str = ""
    """The proxy that decides about publications of clients. Empty: none."""
    sub_refresh_proxy: str = ""
    """The proxy that decides whether a subscription that expires goes on. Empty: none."""

    record_events: bool = True
    """Lifecycle events of the channels are recorded, if `[events]` has types (docs/events.md)."""

    @property
    def keeps_history(self) -> bool:
        """Whether the channel has history, and with it positions."""
        return self.history_size > 0 and self.history_ttl > 0

    @model_validator(mode="after")
    def _history_is_complete(self) -> Self:
        if (self.history_size > 0) != (self.history_ttl > 0):
            raise ValueError(
                f"history_size is {self.history_size} and history_ttl is {in_seconds(self.history_ttl)}, "
                "but history needs both or neither"
            )
        if self.force_recovery and not self.keeps_history:
            raise ValueError("force_recovery is true, but recovery needs history_size and history_ttl")
        if self.history_meta_ttl < self.history_ttl:
            raise ValueError(
                f"history_meta_ttl is {in_seconds(self.history_meta_ttl)}, but must be at least history_ttl "
                f"({in_seconds(self.history_ttl)}), so that no history outlives its position"
            )
        return self
