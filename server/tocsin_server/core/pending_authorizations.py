"""The requests of one connection that wait for an answer from outside the session.

The mutable state is the pending requests by number, and the last number; only the methods of
`PendingAuthorizations` change it.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from tocsin_server.core.events import Approval, AuthorizedOutcome, Renewal
from tocsin_server.core.tokens import ConnectionClaims, SubscriptionClaims
from tocsin_server.protocol.messages import (
    ConnectRequest,
    RefreshRequest,
    Request,
    RpcRequest,
    RpcResult,
    SubRefreshRequest,
    SubscribeRequest,
)

CLAIMS: Mapping[type, type] = {
    ConnectRequest: ConnectionClaims,
    RefreshRequest: ConnectionClaims,
    SubscribeRequest: SubscriptionClaims,
    SubRefreshRequest: SubscriptionClaims,
}
"""The claims that an approval of each kind of request may have."""


class PendingAuthorization(Struct, frozen=True):
    """A request that waits for `Authorized`, until monotonic second `due_at`."""

    command_id: int
    request: Request
    due_at: float
    asked_at: float
    """Unix seconds. The answer cannot know of anything later, such as a revocation."""

    def dated(self, approval: Approval) -> Approval:
        """Return the approval with claims that count as a token issued when the answer was asked for."""
        claims = approval.claims
        if claims is None or claims.iat is not None:
            return approval
        return replace(approval, claims=replace(claims, iat=self.asked_at))

    def check(self, outcome: AuthorizedOutcome) -> None:
        """Raise TypeError for an answer to another kind of request, or with claims of another token.

        A `Renewal` answers no command of a client, only what the session itself asks.
        """
        kind = type(self.request)
        if isinstance(outcome, Approval):
            if type(outcome.request) is not kind:
                raise TypeError(f"{type(outcome.request).__name__} approves no {kind.__name__}")
            claims = outcome.claims
            if claims is not None and not isinstance(claims, CLAIMS.get(kind, ())):
                raise TypeError(f"{type(claims).__name__} are no claims for a {kind.__name__}")
        elif isinstance(outcome, Renewal) or (isinstance(outcome, RpcResult) and kind is not RpcRequest):
            raise TypeError(f"{type(outcome).__name__} answers no {kind.__name__}")


class PendingAuthorizations(dict[int, PendingAuthorization]):
    """The requests by number, in the order in which they are due. Each waits equally long."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = 0

    @property
    def are_all_subscribes(self) -> bool:
        """Whether only subscribe commands wait, so that further ones may run."""
        return all(isinstance(pending.request, SubscribeRequest) for pending in self.values())

    @property
    def next_due_at(self) -> float | None:
        """The monotonic second at which the first of them is due."""
        for pending in self.values():
            return pending.due_at
        return None

    def next_number(self) -> int:
        """Return the number of a request that is kept next. `Authorize` and `Authorized` carry it."""
        self._last += 1
        return self._last

    def take(self, number: int) -> PendingAuthorization | None:
        """Remove and return a request; None if its time limit has passed."""
        return self.pop(number, None)

    def take_due(self, monotonic: float) -> list[PendingAuthorization]:
        """Remove and return the requests whose time limit has passed."""
        due = [number for number, pending in self.items() if monotonic >= pending.due_at]
        return [self.pop(number) for number in due]
