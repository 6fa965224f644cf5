"""`[client]`: which clients may connect, and a connection's limits and timings."""

from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from tocsin_server.config.issuer_options import Algorithms, token_secret
from tocsin_server.config.token_keys import configured_key_texts
from tocsin_server.config.values import (
    Duration,
    ExactString,
    Limit,
    OptionalLimit,
    Options,
    PositiveDuration,
    Rate,
    in_seconds,
    public_key,
    string_list,
)


class ClientOptions(Options):
    """`[client]`: which clients may connect, and a connection's limits and timings.

    The defaults are those of docs/protocol.md §17. `contradictions.py` checks that limits agree.
    """

    insecure: bool = False
    """Every client may do everything without a token. For development."""
    allow_anonymous: bool = False
    """A client without a token may connect. Its user is ""."""
    token_hmac_secret: Annotated[str, AfterValidator(token_secret)] = Field(default="", repr=False)
    """Key of tokens signed with HS256, HS384 or HS512. Empty: they are refused."""
    token_public_key: Annotated[str, AfterValidator(public_key)] = ""
    """PEM key of tokens signed with RS or ES algorithms. Empty: they are refused."""
    token_secrets: Annotated[
        tuple[Annotated[ExactString, AfterValidator(token_secret)], ...], BeforeValidator(string_list)
    ] = Field(default=(), repr=False)
    """Further secrets, such as the next one while it replaces the present one."""
    token_keys: Annotated[tuple[str, ...], BeforeValidator(configured_key_texts)] = Field(
        default=(), repr=False
    )
    """Further public keys in PEM, or JSON Web Keys."""
    token_algorithms: Algorithms = ()
    """The algorithms of tokens. Empty: all that fit the keys, except PS."""
    token_audience: str = ""
    """The required `aud` of a token. Empty: any."""
    token_issuer: str = ""
    """The required `iss` of a token. Empty: any."""
    token_leeway: Duration = 5
    """How far the clocks of this node and of the token's issuer may differ, for `exp`, `nbf`, `expire_at`."""
    token_revocation_ttl: PositiveDuration = 720 * 3600
    """How long a revocation without an end lasts. At least as long as the longest token is valid."""
    ping_interval: PositiveDuration = 25
    pong_timeout: PositiveDuration = 8
    stale_timeout: PositiveDuration = 10
    """How long a connection may exist without a connect command."""
    hook_timeout: PositiveDuration = 4
    """How long a hook may take, the time it waits for its turn included. SDKs wait 5 seconds for a reply."""
    expired_close_delay: Duration = 25
    """How long after its token's expiry a client may still refresh it."""
    channel_limit: Limit = 128
    channel_length_limit: Limit = 255
    compression: bool = False
    """Compress messages on the raw WebSocket transport (permessage-deflate), where clients offer it."""
    http_stream: bool = True
    """Serve `/connection/http_stream`, which SDKs use where WebSockets do not get through."""
    sse: bool = True
    """Serve `/connection/sse`, the same for clients that have an EventSource."""
    unidirectional: bool = False
    """Serve `/connection/uni_sse`, `uni_http_stream` and `uni_websocket`, for clients without an SDK."""
    queue_limit_bytes: Limit = 2_097_152
    """Bytes that may be queued for one client. Above it the client is disconnected as slow (3008).

    Above `api.body_limit_bytes`, because a publication of that size would disconnect its subscribers.
    """
    message_limit_bytes: Limit = 524_288
    """Bytes of one incoming message. Above it the client is disconnected (1009).

    An SDK sends the subscribe commands of all its `channel_limit` channels in one message.
    """
    message_timeout: PositiveDuration = 20
    """How long an incoming message may take, from its first byte to its last. After that: 1008."""
    frame_rate: OptionalLimit = 200
    """WebSocket frames per second that are no message: pings, pongs and fragments.

    Five times as many at once. Above it the client is disconnected (3013). 0: any number.
    """
    history_limit: Limit = 300
    """Publications in one history page or one recovery, at most."""
    history_limit_bytes: Limit = 524_288
    """Bytes of one history page, at most; one publication may be larger."""
    recovery_page_bytes: Limit = 65_536
    """Bytes of one page of a recovery, at most; one publication may be larger.

    A recovery has as many pages as it needs. Each is read once the client has taken the one before.
    """
    send_timeout: PositiveDuration = 10
    """How long bytes may be queued for a client that takes none. Then it is disconnected as slow (3008)."""
    command_rate: Rate = 200
    """Commands per second of one connection, on average. Above it they are refused (111)."""
    command_burst: Limit = 1000
    """Commands at once, after a pause. Twice as many disconnect the client (3013).

    An SDK that reconnects sends a subscribe command for each channel, and applications then read history and
    presence of each: some 600 commands for `channel_limit` channels.
    """
    error_limit: Limit = 400
    """Commands within `error_window` that may be refused for what they ask. One more: 3509.

    SDKs do not reconnect after 3509. So it is far above what a client without permissions causes that
    subscribes to `channel_limit` channels, and reads history and presence of each.
    """
    error_window: PositiveDuration = 60
    new_channel_rate: Rate = 20
    """Subscriptions per second of one connection to channels without a subscriber on the node (111)."""
    new_channel_burst: Limit = 300
    user_command_rate: Rate = 1000
    """Commands per second of a user's connections to the node together."""
    user_command_burst: Limit = 20_000
    user_publish_rate: Rate = 200
    """Publish commands per second of a user's connections to the node together (111)."""
    user_publish_burst: Limit = 1000
    user_new_channel_rate: Rate = 200
    """New channels per second of a user's connections to the node together (111)."""
    user_new_channel_burst: Limit = 5000
    user_connection_limit: OptionalLimit = 0
    personal_channel: bool = False
    """On connect, each user is subscribed to `#<user>`."""
    personal_channel_namespace: str = ""
    personal_channel_single_connection: bool = False
    """A user's new connection closes the others (3504)."""
    connect_proxy: str = ""
    """The proxy that decides about clients that connect without a token. Empty: none."""
    refresh_proxy: str = ""
    """The proxy that decides whether a connection that expires goes on. Empty: none."""
    rpc_proxy: str = ""
    """The proxy that answers RPC methods which the application does not have. Empty: none."""

    @model_validator(mode="after")
    def _pong_is_due_before_the_next_ping(self) -> Self:
        if self.pong_timeout >= self.ping_interval:
            raise ValueError(
                f"pong_timeout is {in_seconds(self.pong_timeout)}, but must be less than ping_interval "
                f"({in_seconds(self.ping_interval)}), so that each pong answers one ping"
            )
        return self
