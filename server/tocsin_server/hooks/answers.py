"""What hooks answer. Each kind of hook admits with a type of its own; every hook may refuse or disconnect.

`info` and `data` are JSON values, `msgspec.Raw` with JSON, or bytes. As `data` bytes may be anything, as
`info` they must be JSON. None is no value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from msgspec import Struct

from tocsin_server.core.capabilities import Capability, Right
from tocsin_server.core.tokens import Override
from tocsin_server.errors import Disconnect, Refusal
from tocsin_server.hooks.events import Event

__all__ = [
    "EXPIRED",
    "Answer",
    "Capability",
    "Connected",
    "Disconnect",
    "Hook",
    "Override",
    "Published",
    "Refreshed",
    "Refusal",
    "RpcAnswer",
    "Subscribed",
]


class Subscribed(Struct, frozen=True):
    """The client may subscribe, or its subscription goes on."""

    info: Any = None
    """What presence, joins and publications say about the client in this channel."""
    data: Any = None
    """What the client gets with the subscribe reply."""
    expire_at: float = 0
    """The unix second at which the subscription expires; 0: never."""
    override: Override | None = None
    """Options of the channel that are different for this subscription."""
    allow: Sequence[Right] = ()
    """What the subscriber may do in the channel besides: `pub`, `hst`, `prs`."""


class Connected(Struct, frozen=True):
    """The client may connect, as this user."""

    user: str = ""
    """An empty one is anonymous."""
    info: Any = None
    """What presence, joins and publications say about the client."""
    data: Any = None
    """What the client gets with the connect reply."""
    expire_at: float = 0
    """The unix second at which the connection expires; 0: never."""
    subscriptions: Mapping[str, Subscribed] = {}
    """Channels that the client is subscribed to at once."""
    capabilities: Sequence[Capability] = ()
    """Rights in all channels that match patterns (docs/permissions.md)."""


class Refreshed(Struct, frozen=True):
    """The connection goes on, or has expired."""

    expire_at: float = 0
    """The unix second at which it expires next; 0: never."""
    info: Any = None
    """What replaces the connection's info; None: it stays."""
    is_expired: bool = False
    """The connection, or the subscription, ends now."""


class Undecided(Refreshed, frozen=True):
    """It goes on although the back end of a proxy could not be asked. A revocation meanwhile still counts."""


EXPIRED = Refreshed(is_expired=True)
"""The answer to a refresh or sub_refresh event whose session of the application is over."""


class Published(Struct, frozen=True):
    """The client may publish."""

    data: Any = None
    """What is published instead of the client's data; None: that is published."""
    skip_history: bool = False
    """Subscribers get the publication, and it is not kept in the history."""


class RpcAnswer(Struct, frozen=True):
    """The result of a method."""

    data: Any = None
    """A JSON value, where None is `null`, or bytes."""


Answer: TypeAlias = Connected | Refreshed | Subscribed | Published | RpcAnswer | Refusal | Disconnect | None
"""None: the hook has no opinion, and the request goes on as without the hook."""


class Hook(Protocol):
    """Answers events of one kind. It is cancelled at its deadline; what it raises is logged as an error."""

    async def __call__(self, event: Event, /) -> Answer:
        """Answer one event."""
