"""In which form a subscriber gets the publications of a channel: all or some, whole or as deltas."""

from __future__ import annotations

from msgspec import Struct

from tocsin_server.core.tags_filter import TagsFilter


class Form(Struct, frozen=True):
    """What a subscription has been granted. Subscribers of one form and framing get the same bytes."""

    uses_delta: bool = False
    """Publications may come as deltas to the one before. So the data of each is quoted (`Codec.quote`)."""
    tags_filter: TagsFilter | None = None
    """Only publications whose tags match. Never together with deltas (docs/protocol.md §11)."""


PLAIN = Form()
"""Every publication as it was published. Always this object."""

WITH_DELTA = Form(uses_delta=True)
"""Always this object."""
