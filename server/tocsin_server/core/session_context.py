"""What all sessions of a node share: configuration, tokens and limits, and what they ask the node."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from tocsin_server.config.client_options import ClientOptions
from tocsin_server.config.limit_options import LimitOptions
from tocsin_server.core.channel_names import ChannelRules
from tocsin_server.core.client_limits import ClientLimits
from tocsin_server.core.events import Authorize, AuthorizedOutcome
from tocsin_server.core.revocations import Revocations
from tocsin_server.core.tags_filter import TagsFilters
from tocsin_server.core.tokens import TokenVerifier
from tocsin_server.protocol.messages import Request


class CountedChannel(Protocol):
    """What a session needs of a channel."""

    @property
    def subscriber_count(self) -> int:
        """How many subscribers it has on this node, with those that are being set up."""


def _no_connections(_user: str) -> int:
    return 0


def _ignore(_client: str, _subject: str, _reason: str) -> None:
    pass


def _ignore_limit(_client: str, _limit: str) -> None:
    pass


def _needs_no_authorization(_request: Request) -> bool:
    return False


def _decides_nothing_now(_authorize: Authorize) -> AuthorizedOutcome | None:
    return None


TURN_COST = 48
"""What the commands of one turn may cost together; a cheap command costs 1, about 5 µs.

One turn may exceed it by its last command.
"""


@dataclass(frozen=True, slots=True)
class SessionContext:
    """What all sessions of a node share. They only read it, apart from what they use of `limits`."""

    options: ClientOptions
    rules: ChannelRules
    tokens: TokenVerifier
    node: str
    version: str
    connections_of: Callable[[str], int] = _no_connections
    """Returns how many connections a user has on this node."""
    report_refusal: Callable[[str, str, str], None] = _ignore
    """Called with a client id, what was refused, and why: for the operator, not for the client."""
    report_limit: Callable[[str, str], None] = _ignore_limit
    """Called with a client id and the key of a limit that refused the client something."""
    channels: Mapping[str, CountedChannel] = field(default_factory=dict)
    """The channels of this node, by name. Each has a subscriber, or one is being set up."""
    limits: ClientLimits = field(default_factory=lambda: ClientLimits(ClientOptions(), LimitOptions()))
    """What clients may use per second."""
    rpc_methods: Container[str] = frozenset()
    needs_authorization: Callable[[Request], bool] = _needs_no_authorization
    """Whether a request waits for an answer from outside the session. Called once per command."""
    authorization_seconds: float = 5.0
    """How long such an answer may take."""
    decide_now: Callable[[Authorize], AuthorizedOutcome | None] = _decides_nothing_now
    """Returns the answer if it is there at once. Until then, no event may reach the session."""
    revocations: Revocations = field(default_factory=Revocations)
    """Which tokens are invalid although they have not expired. Only the node changes it."""
    tags_filters: TagsFilters = field(default_factory=TagsFilters)
    """The filters that subscriptions have requested."""
    turn_cost: int = TURN_COST
    """What the commands of one turn may cost."""
