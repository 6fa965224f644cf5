"""The requests of one connection that wait for an answer from outside the session.

The mutable state is the pending requests by number; only the methods of `PendingAuthorizations` change it.
"""

from __future__ import annotations

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
        return approval._replace(claims=replace(claims, iat=self.asked_at))

    def check(self, outcome: AuthorizedOutcome) -> None:
        """Raise TypeError for an answer to another kind of request, or with claims of another token.

        A `Renewal` answers no command of a client, only what the session itself asks.
        """
        if isinstance(outcome, Approval):
            self._check_approval(outcome)
        elif isinstance(outcome, Renewal) or (
            isinstance(outcome, RpcResult) and not isinstance(self.request, RpcRequest)
        ):
            raise TypeError(f"{type(outcome).__name__} answers no {type(self.request).__name__}")

    def _check_approval(self, approval: Approval) -> None:
        request, claims = self.request, approval.claims
        if type(approval.request) is not type(request):
            raise TypeError(f"{type(approval.request).__name__} approves no {type(request).__name__}")
        if isinstance(request, ConnectRequest | RefreshRequest):
            kind: type = ConnectionClaims
        elif isinstance(request, SubscribeRequest | SubRefreshRequest):
            kind = SubscriptionClaims
        else:
            kind = type(None)
        if claims is not None and not isinstance(claims, kind):
            raise TypeError(f"{type(claims).__name__} are no claims for a {type(request).__name__}")


class PendingAuthorizations:
    """Numbers requests, and keeps each until it is taken."""

    __slots__ = ("_count", "_pending")

    def __init__(self) -> None:
        self._count = 0
        self._pending: dict[int, PendingAuthorization] = {}

    def __len__(self) -> int:
        """Return how many requests wait."""
        return len(self._pending)

    @property
    def are_all_subscribes(self) -> bool:
        """Whether only subscribe commands wait, so that further ones may run."""
        return all(isinstance(pending.request, SubscribeRequest) for pending in self._pending.values())

    @property
    def next_due_at(self) -> float | None:
        """The monotonic second at which the first of them is due."""
        return min((pending.due_at for pending in self._pending.values()), default=None)

    def add(self, command_id: int, request: Request, due_at: float, asked_at: float) -> int:
        """Keep a request. Returns its number, which `Authorize` and `Authorized` carry."""
        self._count += 1
        self._pending[self._count] = PendingAuthorization(command_id, request, due_at, asked_at)
        return self._count

    def take(self, number: int) -> PendingAuthorization | None:
        """Remove and return a request; None if its time limit has passed."""
        return self._pending.pop(number, None)

    def take_due(self, monotonic: float) -> list[PendingAuthorization]:
        """Remove and return the requests whose time limit has passed."""
        due = [number for number, pending in self._pending.items() if monotonic >= pending.due_at]
        return [self._pending.pop(number) for number in due]
