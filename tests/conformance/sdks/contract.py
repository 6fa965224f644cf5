"""The interface that the tests need of an SDK.

Recorded events, each with its details:

    connected client · connecting code reason · disconnected code reason
    subscribed channel recoverable positioned position was_recovering recovered data
    subscribing unsubscribed channel code reason · publication channel data offset info
    join leave channel info · token_requested channel
    server_subscribed, server_publication, … the same of server-side subscriptions · subscription_error code
"""

from typing import Any, Protocol

from tests.support.recorded_events import RecordedEvents

Json = dict[str, Any]


class Sdk(Protocol):
    """One client of an official SDK. A refusal raises `Refused`."""

    @property
    def events(self) -> RecordedEvents: ...

    async def connect(
        self, url: str, *, token: str = "", tokens: list[str] | None = None, data: Any = None
    ) -> None:
        """Start connecting. `tokens` are returned one by one when the SDK requests a token."""

    async def disconnect(self) -> None: ...

    async def subscribe(
        self,
        channel: str,
        *,
        token: str = "",
        tokens: list[str] | None = None,
        recoverable: bool = False,
        positioned: bool = False,
        join_leave: bool = False,
        delta: str = "",
        tags_filter: Json | None = None,
    ) -> None:
        """Start subscribing."""

    async def unsubscribe(self, channel: str) -> None: ...

    async def publish(self, channel: str, data: Any) -> None: ...

    async def presence(self, channel: str) -> dict[str, Json]:
        """Connection id → `{"client", "user", "conn_info", "chan_info"}`."""

    async def presence_stats(self, channel: str) -> dict[str, int]:
        """`{"clients", "users"}`."""

    async def history(
        self, channel: str, *, limit: int = 0, since: Json | None = None, reverse: bool = False
    ) -> Json:
        """`{"publications": [{"offset", "data", "info"}], "offset", "epoch"}`."""

    async def rpc(self, method: str, data: Any) -> Any: ...
