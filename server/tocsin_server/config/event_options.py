"""`[events]`: which lifecycle events are recorded, and how long they are kept (docs/events.md)."""

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field

from tocsin_server.config.values import Limit, Options, PositiveDuration, string_list

RecordedType = Literal[
    "connected", "disconnected", "subscribed", "unsubscribed", "occupied", "vacated", "cache_empty"
]
"""The types that can be chosen. `state_lost` is recorded with any of them."""

EventType = RecordedType | Literal["state_lost"]
"""The types of lifecycle events. docs/events.md says when each is recorded."""


def _known_types(value: object) -> object:
    """The list of types; `all` is every type."""
    names = string_list(value)
    return list(get_args(RecordedType)) if names == ["all"] else names


def _without_repetitions(value: tuple[RecordedType, ...]) -> tuple[RecordedType, ...]:
    return tuple(dict.fromkeys(value))


class EventOptions(Options):
    """`[events]`: lifecycle events."""

    types: Annotated[
        tuple[RecordedType, ...], BeforeValidator(_known_types), AfterValidator(_without_repetitions)
    ] = ()
    """The types that are recorded; "all" means all. Empty: none, which costs nothing."""
    retention: PositiveDuration = 86400
    """How long an event is kept for subscribers that have not acknowledged it."""
    size: Limit = 200_000
    """How many events are kept at most, in all parts together. The oldest are removed."""
    parts: int = Field(default=8, ge=1, le=64)
    """How many parts the log has, the same on all nodes. Parts are delivered independently."""
    waiting_bytes: Limit = 16_777_216
    """From so many waiting bytes on, a node drops the pairs of events of which nothing was written."""

    def keeps(self, event_type: str) -> bool:
        """Whether an event log keeps events of a type that it is given. Without types, all of them."""
        return not self.types or event_type in self.types
