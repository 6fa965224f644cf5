"""Commands that the engine executes (protocol §4), and the order in which commands run (§1, §2)."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from tests.server.core.playbook import (
    OPEN,
    START,
    Closing,
    Input,
    Opening,
    Playbook,
    Wait,
    connect_reply,
    connected,
    context,
    error,
    new_connection,
    opened,
    subscribed,
    subscribed_by_token,
)
from tests.support.tokens import connection_token, subscription_token
from tocsin_server import errors
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core.events import (
    Close,
    ConnectionLost,
    Execute,
    Executed,
    GoLive,
    Identify,
    Received,
)
from tocsin_server.protocol.messages import (
    EMPTY,
    ClientInfo,
    Command,
    ConnectRequest,
    HistoryRequest,
    HistoryResult,
    PresenceRequest,
    PresenceResult,
    PresenceStatsRequest,
    PresenceStatsResult,
    PublishRequest,
    RpcRequest,
    RpcResult,
    SincePosition,
    SubscribeRequest,
)

ADA = ClientInfo("ada", "c1")
ALLOWED = ChannelOptions(
    presence=True,
    history_size=10,
    history_ttl=60,
    allow_subscribe_for_client=True,
    allow_publish_for_client=True,
    allow_history_for_client=True,
    allow_presence_for_client=True,
)
"""A channel in which every named user has every permission."""
FOR_SUBSCRIBERS = ChannelOptions(
    presence=True,
    history_size=10,
    history_ttl=60,
    allow_subscribe_for_client=True,
    allow_publish_for_subscriber=True,
    allow_history_for_subscriber=True,
    allow_presence_for_subscriber=True,
)
FOR_ANONYMOUS = ChannelOptions(
    presence=True,
    history_size=10,
    history_ttl=60,
    allow_publish_for_anonymous=True,
    allow_history_for_anonymous=True,
    allow_presence_for_anonymous=True,
)
COMMANDS: dict[str, dict[str, Any]] = {
    "publish": {"data": {"a": 1}},
    "presence": {},
    "presence_stats": {},
    "history": {},
}
each_command = pytest.mark.parametrize("method", COMMANDS)


def command_of(method: str, channel: str = "news", command_id: int = 3) -> dict[str, Any]:
    """Return a command with this method."""
    return {"id": command_id, method: {"channel": channel, **COMMANDS[method]}}


def publish(command_id: int = 3, data: bytes = b"1") -> bytes:
    return b'{"id":%d,"publish":{"channel":"news","data":%s}}' % (command_id, data)


def is_executing(playbook: Playbook) -> bool:
    return [type(effect) for effect in playbook.effects] == [Execute]


# ------------------------------------------------------------------------------------------------ permissions


@pytest.mark.parametrize(
    ("command", "request_", "outcome", "reply"),
    [
        (command_of("publish"), PublishRequest("news", Raw(b'{"a": 1}')), EMPTY, {"publish": {}}),
        (
            command_of("presence"),
            PresenceRequest("news"),
            PresenceResult({"c1": ADA}),
            {"presence": {"presence": {"c1": {"user": "ada", "client": "c1"}}}},
        ),
        (command_of("presence"), PresenceRequest("news"), PresenceResult({}), {"presence": {"presence": {}}}),
        (
            command_of("presence_stats"),
            PresenceStatsRequest("news"),
            PresenceStatsResult(0, 0),
            {"presence_stats": {"num_clients": 0, "num_users": 0}},
        ),
        (
            {"id": 3, "history": {"channel": "news", "limit": -1, "since": {"offset": 2}, "reverse": True}},
            HistoryRequest("news", -1, SincePosition(2), reverse=True),
            HistoryResult([], "", 0),
            {"history": {"publications": [], "epoch": "", "offset": 0}},
        ),
    ],
)
def test_a_permitted_command_is_executed_and_answered(
    command: dict[str, Any], request_: Any, outcome: Any, reply: dict[str, Any]
) -> None:
    """Fields that SDKs index are in the reply even when they are empty or zero."""
    playbook = connected(context(ALLOWED))
    playbook >> command << [Execute(3, request_, ADA)]
    playbook >> Executed(3, outcome) << [{"id": 3, **reply}]


@each_command
def test_a_refusal_of_the_engine_is_the_reply(method: str) -> None:
    """The next command runs after it."""
    playbook = connected(context(ALLOWED))
    playbook >> command_of(method)
    playbook >> Executed(3, errors.INTERNAL_ERROR)
    playbook << [error(3, 100, "internal server error", temporary=True)]
    playbook >> command_of(method, command_id=4)
    assert is_executing(playbook)


@each_command
@pytest.mark.parametrize(
    ("channel", "effects"),
    [
        ("", [Close(errors.PROTOCOL_VIOLATION)]),
        ("nowhere:news", [error(3, 102, "unknown channel")]),
        ("x" * 256, [error(3, 107, "bad request: the channel's name is longer than 255 bytes")]),
        ("ünïcode", [error(3, 107, "bad request: the channel's name has characters beyond ASCII")]),
    ],
)
def test_a_command_in_an_invalid_channel_is_refused(method: str, channel: str, effects: list[Any]) -> None:
    """With the errors of a subscribe."""
    connected(context(ALLOWED)) >> command_of(method, channel) << effects


@each_command
def test_a_command_without_permission_is_denied(method: str) -> None:
    """The features are on."""
    closed = ALLOWED.model_copy(
        update={f"allow_{feature}_for_client": False for feature in ("publish", "history", "presence")}
    )
    connected(context(closed)) >> command_of(method) << [error(3, 103, "permission denied")]


@pytest.mark.parametrize("method", ["presence", "presence_stats", "history"])
def test_a_command_of_a_feature_that_is_off_is_not_available(method: str) -> None:
    """Also on an insecure server."""
    for session_context in (context(OPEN), context(OPEN, insecure=True)):
        connected(session_context) >> command_of(method) << [error(3, 108, "not available")]


@each_command
def test_a_permission_of_subscribers_needs_a_subscription(method: str) -> None:
    """A live one, client-side or server-side."""
    session_context = context(FOR_SUBSCRIBERS)
    connected(session_context) >> command_of(method) << [error(3, 103, "permission denied")]
    for playbook in (subscribed(session_context), subscribed_by_token(session_context)):
        playbook >> command_of(method)
        assert is_executing(playbook)


@each_command
def test_a_permission_of_anonymous_users_applies_to_them_alone(method: str) -> None:
    """A named user needs another permission."""
    session_context = context(FOR_ANONYMOUS, allow_anonymous=True)
    anonymous = new_connection(session_context)
    anonymous >> {"id": 1, "connect": {}} >> command_of(method)
    assert is_executing(anonymous)
    connected(session_context) >> command_of(method) << [error(3, 103, "permission denied")]


@each_command
def test_an_insecure_server_permits_every_command(method: str) -> None:
    """In every channel whose feature is on."""
    on = ChannelOptions(presence=True, history_size=1, history_ttl=1)
    playbook = new_connection(context(on, insecure=True))
    playbook >> {"id": 1, "connect": {}} >> command_of(method)
    assert is_executing(playbook)


# ----------------------------------------------------------------------------------------------- each command


def test_a_publication_needs_data() -> None:
    """Any JSON value is valid, null included, but the field must be present."""
    playbook = connected(context(ALLOWED))
    playbook >> {"id": 3, "publish": {"channel": "news"}} << [error(3, 107, "bad request: there is no data")]
    playbook >> {"id": 4, "publish": {"channel": "news", "data": None}}
    playbook << [Execute(4, PublishRequest("news", Raw(b"null")), ADA)]


def test_data_is_published_as_it_was_written_without_line_breaks() -> None:
    """A carriage return between tokens would end a line of an event stream."""
    playbook = connected(context(ALLOWED))
    playbook >> publish(data=b'{ "b":1.0,\r "a":"\\u00e9\\n" }')
    playbook << [Execute(3, PublishRequest("news", Raw(b'{ "b":1.0, "a":"\\u00e9\\n" }')), ADA)]


def test_a_command_carries_the_info_of_the_tokens() -> None:
    """In a channel with a subscription, also the info of the subscription's token."""
    playbook = connected(context(ALLOWED), info={"name": "Ada"})
    token = subscription_token("ada", "news", info={"seat": 1})
    playbook >> {"id": 2, "subscribe": {"channel": "news", "token": token}} >> opened("news")
    info = ClientInfo("ada", "c1", Raw(b'{"name":"Ada"}'), Raw(b'{"seat":1}'))
    playbook >> publish(3) << [Execute(3, PublishRequest("news", Raw(b"1")), info)]
    playbook >> Executed(3, EMPTY)
    plain_info = ClientInfo("ada", "c1", Raw(b'{"name":"Ada"}'))
    playbook >> command_of("presence", "other") << [Execute(3, PresenceRequest("other"), plain_info)]


def test_a_reverse_history_from_offset_0_is_refused() -> None:
    """No publication precedes offset 0."""
    command = {"id": 3, "history": {"channel": "news", "reverse": True, "since": {"offset": 0, "epoch": ""}}}
    (
        connected(context(ALLOWED))
        >> command
        << [error(3, 107, "bad request: in reverse there is nothing before offset 0")]
    )


def test_a_forward_history_from_offset_0_is_the_whole_history() -> None:
    """As for a client that has received nothing yet."""
    command = {"id": 3, "history": {"channel": "news", "limit": 9, "since": {"offset": 0}}}
    request = HistoryRequest("news", 9, SincePosition(0))
    connected(context(ALLOWED)) >> command << [Execute(3, request, ADA)]


def test_an_rpc_method_must_be_registered() -> None:
    """Error 108 without any method, 104 where only others are registered."""
    call = {"id": 3, "rpc": {"method": "add", "data": [1, 2]}}
    connected() >> call << [error(3, 108, "not available")]
    connected(context(rpc_methods=frozenset({"sub"}))) >> call << [error(3, 104, "method not found")]
    playbook = connected(context(rpc_methods=frozenset({"add"})))
    playbook >> call << [Execute(3, RpcRequest("add", Raw(b"[1, 2]")), ADA)]
    playbook >> Executed(3, RpcResult(Raw(b"3"))) << [{"id": 3, "rpc": {"data": 3}}]


def test_a_send_command_closes() -> None:
    """The server does not support it. The close code says so."""
    connected() >> {"send": {"data": 1}} << [Close(errors.UNSUPPORTED)]


@pytest.mark.parametrize("command", [{"id": 3}, {"id": 3, "ping": {}}, {"id": 3, "frobnicate": {}}])
def test_an_unknown_command_closes(command: dict[str, Any]) -> None:
    """It has an id, so the client expects a reply, and the server knows none."""
    connected() >> command << [Close(errors.PROTOCOL_VIOLATION)]


def test_of_several_methods_the_first_in_the_protocol_s_order_runs() -> None:
    """The order in the text does not matter."""
    command = {"id": 3, "presence": {"channel": "x"}, "subscribe": {"channel": "news"}}
    connected() >> command << [Opening("news")]


@pytest.mark.parametrize(
    "message",
    [b"", b"\n", b"\n\n", b"null", b"[]", b'"x"', b"{", b'{"id":-1}', b'{"id":4294967296}', b"\xff", b"{}{}"],
)
def test_a_malformed_message_closes(message: bytes) -> None:
    """Without a reply, since it has no id."""
    connected() >> message << [Close(errors.PROTOCOL_VIOLATION)]


# ------------------------------------------------------------------------------------------------------ order


def test_commands_of_one_frame_are_answered_in_order() -> None:
    """Connect, two subscribes and a publish; the publish waits for the subscribes."""
    playbook = new_connection(context(ALLOWED))
    frame = [
        {"id": 1, "connect": {"token": connection_token("ada")}},
        {"id": 2, "subscribe": {"channel": "news"}},
        {"id": 3, "subscribe": {"channel": "more"}},
        command_of("publish", command_id=4),
    ]
    playbook >> frame << [Identify("ada"), connect_reply(), Opening("news"), Opening("more")]
    playbook >> opened("more") << [{"id": 3, "subscribe": {}}, GoLive("more")]
    playbook >> opened("news")
    playbook << [
        {"id": 2, "subscribe": {}},
        GoLive("news"),
        Execute(4, PublishRequest("news", Raw(b'{"a": 1}')), ADA),
    ]


def test_commands_wait_while_the_engine_executes_one() -> None:
    """Each runs after the reply to the one before it, in one frame or in several."""
    playbook = connected(context(ALLOWED))
    playbook >> command_of("presence", command_id=3)
    playbook >> [command_of("history", command_id=4), {"id": 5, "unsubscribe": {"channel": "x"}}] << []
    playbook >> {"id": 6, "subscribe": {"channel": "news"}} << []
    playbook >> Executed(3, PresenceResult({}))
    playbook << [{"id": 3, "presence": {"presence": {}}}, Execute(4, HistoryRequest("news"), ADA)]
    playbook >> Executed(4, errors.UNRECOVERABLE_POSITION)
    playbook << [error(4, 112, "unrecoverable position"), {"id": 5, "unsubscribe": {}}, Opening("news")]


def test_commands_with_the_same_id_are_each_answered() -> None:
    """An id has a meaning only for the client."""
    playbook = connected(context(ALLOWED))
    playbook >> [command_of("presence"), command_of("presence")] << [Execute(3, PresenceRequest("news"), ADA)]
    reply = {"id": 3, "presence": {"presence": {}}}
    playbook >> Executed(3, PresenceResult({})) << [reply, Execute(3, PresenceRequest("news"), ADA)]
    playbook >> Executed(3, PresenceResult({})) << [reply]


def test_an_unexpected_answer_of_the_engine_is_ignored() -> None:
    """An answer to another command, and a second answer to the same one."""
    playbook = connected(context(ALLOWED))
    playbook >> command_of("presence")
    playbook >> Executed(9, PresenceResult({})) << []
    playbook >> Executed(3, PresenceResult({})) << [{"id": 3, "presence": {"presence": {}}}]
    playbook >> Executed(3, PresenceResult({})) << []


def test_a_session_is_busy_until_every_command_is_answered() -> None:
    """Its transport stops reading meanwhile."""
    connect = {"id": 1, "connect": {"token": connection_token("ada", channels=["mine"])}}
    frame = [{"id": 2, "subscribe": {"channel": "news"}}, command_of("publish")]
    steps: list[tuple[Input, bool]] = [
        (connect, True),
        (opened("mine"), False),
        (frame, True),
        (opened("news"), True),
        (Executed(3, EMPTY), False),
    ]
    playbook = new_connection(context(ALLOWED))
    for event, is_busy in steps:
        playbook >> event
        assert playbook.session.is_busy is is_busy


def test_a_pong_is_handled_while_commands_wait() -> None:
    """Otherwise a slow engine would cause disconnects for missing pongs."""
    playbook = connected(context(ALLOWED))
    playbook >> Wait(20) << [{}]
    playbook >> command_of("presence")
    playbook >> [command_of("history", command_id=4), {}] << []
    playbook >> Wait(10) << []


def test_a_malformed_line_closes_after_the_commands_before_it() -> None:
    """Those are executed and answered."""
    playbook = connected(context(ALLOWED))
    playbook >> b'{"id":3,"presence":{"channel":"news"}}\nnonsense'
    assert is_executing(playbook)
    playbook >> Executed(3, PresenceResult({}))
    playbook << [{"id": 3, "presence": {"presence": {}}}, Close(errors.PROTOCOL_VIOLATION)]


def test_no_command_runs_after_a_close() -> None:
    """Valid commands of the same frame are dropped."""
    playbook = connected()
    playbook >> [{"send": {}}, {"id": 3, "subscribe": {"channel": "news"}}] << [Close(errors.UNSUPPORTED)]


def test_a_transport_may_issue_commands_for_its_client() -> None:
    """An event stream's query becomes connect and subscribes in one event."""
    playbook = new_connection(context(OPEN), sends_pings=False)
    commands = [
        Command(id=1, connect=ConnectRequest(token=connection_token("ada"))),
        Command(id=2, subscribe=SubscribeRequest("news")),
        Command(id=3, subscribe=SubscribeRequest("more")),
    ]
    playbook >> Received(commands)
    playbook << [Identify("ada"), connect_reply(ping=None, pong=None), Opening("news"), Opening("more")]


# ---------------------------------------------------------------------------------------------- after the end


@pytest.mark.parametrize(
    "event",
    [
        {"id": 9, "subscribe": {"channel": "more"}},
        {},
        b"nonsense",
        Executed(3, EMPTY),
        ConnectionLost(),
        Wait(1_000),
    ],
)
def test_a_closed_session_returns_no_effects(event: Any) -> None:
    """For every later event."""
    playbook = subscribed(context(ALLOWED))
    playbook >> command_of("publish")
    playbook >> {"id": 4, "subscribe": {"channel": "other"}}
    playbook >> ConnectionLost() << [Closing("news")]
    playbook >> event << []
    assert playbook.session.deadline is None
    assert (playbook.session.live_channels, list(playbook.session.backlog)) == ([], [])


def test_a_close_ends_every_subscription() -> None:
    """The close is the first effect."""
    playbook = subscribed(expire_at=START.unix + 600)
    playbook >> {"id": 3, "subscribe": {"channel": "more"}} >> opened("more")
    playbook >> b"nonsense" << [Close(errors.PROTOCOL_VIOLATION), Closing("news"), Closing("more")]
