"""Commands that ask the engine (protocol §4), and the order in which commands run (§1, §2)."""

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
from tocsin_server.config.options import ChannelOptions
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
FREE = ChannelOptions(
    presence=True,
    history_size=10,
    history_ttl=60,
    allow_subscribe_for_client=True,
    allow_publish_for_client=True,
    allow_history_for_client=True,
    allow_presence_for_client=True,
)
"""A channel in which every user may do everything."""
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


def ask(method: str, channel: str = "news", command_id: int = 3) -> dict[str, Any]:
    """A command of that method."""
    return {"id": command_id, method: {"channel": channel, **COMMANDS[method]}}


def publish(command_id: int = 3, data: bytes = b"1") -> bytes:
    return b'{"id":%d,"publish":{"channel":"news","data":%s}}' % (command_id, data)


def is_asking(playbook: Playbook) -> bool:
    return [type(effect) for effect in playbook.effects] == [Execute]


# -------------------------------------------------------------------------------------------------- questions


@pytest.mark.parametrize(
    ("command", "request_", "outcome", "reply"),
    [
        (ask("publish"), PublishRequest("news", Raw(b'{"a": 1}')), EMPTY, {"publish": {}}),
        (
            ask("presence"),
            PresenceRequest("news"),
            PresenceResult({"c1": ADA}),
            {"presence": {"presence": {"c1": {"user": "ada", "client": "c1"}}}},
        ),
        (ask("presence"), PresenceRequest("news"), PresenceResult({}), {"presence": {"presence": {}}}),
        (
            ask("presence_stats"),
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
def test_a_permitted_command_asks_the_engine_and_replies_with_its_answer(
    command: dict[str, Any], request_: Any, outcome: Any, reply: dict[str, Any]
) -> None:
    """Fields that SDKs index are there even when they are empty or zero."""
    playbook = connected(context(FREE))
    playbook >> command << [Execute(3, request_, ADA)]
    playbook >> Executed(3, outcome) << [{"id": 3, **reply}]


@each_command
def test_the_engine_s_refusal_is_the_reply(method: str) -> None:
    """Whatever it is, the next command runs."""
    playbook = connected(context(FREE))
    playbook >> ask(method)
    playbook >> Executed(3, errors.INTERNAL_ERROR)
    playbook << [error(3, 100, "internal server error", temporary=True)]
    playbook >> ask(method, command_id=4)
    assert is_asking(playbook)


@each_command
@pytest.mark.parametrize(
    ("channel", "effects"),
    [
        ("", [Close(errors.PROTOCOL_VIOLATION)]),
        ("nowhere:news", [error(3, 102, "unknown channel")]),
        ("x" * 256, [error(3, 107, "bad request")]),
        ("ünïcode", [error(3, 107, "bad request")]),
    ],
)
def test_a_channel_that_will_not_do_is_refused(method: str, channel: str, effects: list[Any]) -> None:
    """As when subscribing to it."""
    connected(context(FREE)) >> ask(method, channel) << effects


@each_command
def test_what_is_not_allowed_is_denied(method: str) -> None:
    """Features are there, but for nobody."""
    shut = FREE.model_copy(
        update={f"allow_{what}_for_client": False for what in ("publish", "history", "presence")}
    )
    connected(context(shut)) >> ask(method) << [error(3, 103, "permission denied")]


@pytest.mark.parametrize("method", ["presence", "presence_stats", "history"])
def test_what_is_off_is_not_available(method: str) -> None:
    """To nobody: not even where everything is permitted."""
    for session_context in (context(OPEN), context(OPEN, insecure=True)):
        connected(session_context) >> ask(method) << [error(3, 108, "not available")]


@each_command
def test_what_subscribers_may_needs_a_subscription(method: str) -> None:
    """One that is live, from either side."""
    session_context = context(FOR_SUBSCRIBERS)
    connected(session_context) >> ask(method) << [error(3, 103, "permission denied")]
    for playbook in (subscribed(session_context), subscribed_by_token(session_context)):
        playbook >> ask(method)
        assert is_asking(playbook)


@each_command
def test_what_anonymous_users_may_is_for_them_alone(method: str) -> None:
    """A named user needs its own permission."""
    session_context = context(FOR_ANONYMOUS, allow_anonymous=True)
    nobody = new_connection(session_context)
    nobody >> {"id": 1, "connect": {}} >> ask(method)
    assert is_asking(nobody)
    connected(session_context) >> ask(method) << [error(3, 103, "permission denied")]


@each_command
def test_an_insecure_server_permits_every_command(method: str) -> None:
    """What is on, is for everybody."""
    on = ChannelOptions(presence=True, history_size=1, history_ttl=1)
    playbook = new_connection(context(on, insecure=True))
    playbook >> {"id": 1, "connect": {}} >> ask(method)
    assert is_asking(playbook)


# ------------------------------------------------------------------------------------------------ particulars


def test_a_publication_needs_data() -> None:
    """Any JSON will do, null included, but not nothing."""
    playbook = connected(context(FREE))
    playbook >> {"id": 3, "publish": {"channel": "news"}} << [error(3, 107, "bad request")]
    playbook >> {"id": 4, "publish": {"channel": "news", "data": None}}
    playbook << [Execute(4, PublishRequest("news", Raw(b"null")), ADA)]


def test_data_travels_as_it_was_written_but_for_line_breaks() -> None:
    """A carriage return between tokens would end a line of an event stream."""
    playbook = connected(context(FREE))
    playbook >> publish(data=b'{ "b":1.0,\r "a":"\\u00e9\\n" }')
    playbook << [Execute(3, PublishRequest("news", Raw(b'{ "b":1.0, "a":"\\u00e9\\n" }')), ADA)]


def test_a_publisher_is_known_by_what_its_tokens_say() -> None:
    """With what the subscription's token said about it, where it publishes into a channel it is in."""
    playbook = connected(context(FREE), info={"name": "Ada"})
    token = subscription_token("ada", "news", info={"seat": 1})
    playbook >> {"id": 2, "subscribe": {"channel": "news", "token": token}} >> opened("news")
    info = ClientInfo("ada", "c1", Raw(b'{"name":"Ada"}'), Raw(b'{"seat":1}'))
    playbook >> publish(3) << [Execute(3, PublishRequest("news", Raw(b"1")), info)]
    playbook >> Executed(3, EMPTY)
    elsewhere = ClientInfo("ada", "c1", Raw(b'{"name":"Ada"}'))
    playbook >> ask("presence", "other") << [Execute(3, PresenceRequest("other"), elsewhere)]


def test_a_history_has_nothing_before_its_beginning() -> None:
    """Backwards from offset 0 makes no sense."""
    command = {"id": 3, "history": {"channel": "news", "reverse": True, "since": {"offset": 0, "epoch": ""}}}
    connected(context(FREE)) >> command << [error(3, 107, "bad request")]


def test_a_history_may_be_read_on_from_its_beginning() -> None:
    """Forward from offset 0 is the whole of it, as for a client that has seen nothing yet."""
    command = {"id": 3, "history": {"channel": "news", "limit": 9, "since": {"offset": 0}}}
    request = HistoryRequest("news", 9, SincePosition(0))
    connected(context(FREE)) >> command << [Execute(3, request, ADA)]


def test_a_procedure_needs_somebody_who_registered_it() -> None:
    """108 where nothing is registered, 104 where something else is."""
    call = {"id": 3, "rpc": {"method": "add", "data": [1, 2]}}
    connected() >> call << [error(3, 108, "not available")]
    connected(context(rpc_methods=frozenset({"sub"}))) >> call << [error(3, 104, "method not found")]
    playbook = connected(context(rpc_methods=frozenset({"add"})))
    playbook >> call << [Execute(3, RpcRequest("add", Raw(b"[1, 2]")), ADA)]
    playbook >> Executed(3, RpcResult(Raw(b"3"))) << [{"id": 3, "rpc": {"data": 3}}]


def test_a_message_without_a_reply_finds_nobody() -> None:
    """There is no one to give it to, and the client should know."""
    connected() >> {"send": {"data": 1}} << [Close(errors.UNSUPPORTED)]


@pytest.mark.parametrize("command", [{"id": 3}, {"id": 3, "ping": {}}, {"id": 3, "frobnicate": {}}])
def test_a_command_of_no_known_kind_closes(command: dict[str, Any]) -> None:
    """It has an id, so somebody waits for a reply that we do not know."""
    connected() >> command << [Close(errors.PROTOCOL_VIOLATION)]


def test_the_first_method_in_the_protocol_s_order_counts() -> None:
    """Whatever the order in the text, and whatever else is there."""
    command = {"id": 3, "presence": {"channel": "x"}, "subscribe": {"channel": "news"}}
    connected() >> command << [Opening("news")]


@pytest.mark.parametrize(
    "message",
    [b"", b"\n", b"\n\n", b"null", b"[]", b'"x"', b"{", b'{"id":-1}', b'{"id":4294967296}', b"\xff", b"{}{}"],
)
def test_what_is_no_command_closes(message: bytes) -> None:
    """Without a reply: there is no id to reply to."""
    connected() >> message << [Close(errors.PROTOCOL_VIOLATION)]


# ------------------------------------------------------------------------------------------------------ order


def test_an_sdk_that_does_not_wait_is_answered_in_order() -> None:
    """Connect, two subscribes and a publish in one frame; the publish waits for the subscribes."""
    playbook = new_connection(context(FREE))
    frame = [
        {"id": 1, "connect": {"token": connection_token("ada")}},
        {"id": 2, "subscribe": {"channel": "news"}},
        {"id": 3, "subscribe": {"channel": "more"}},
        ask("publish", command_id=4),
    ]
    playbook >> frame << [Identify("ada"), connect_reply(), Opening("news"), Opening("more")]
    playbook >> opened("more") << [{"id": 3, "subscribe": {}}, GoLive("more")]
    playbook >> opened("news")
    playbook << [
        {"id": 2, "subscribe": {}},
        GoLive("news"),
        Execute(4, PublishRequest("news", Raw(b'{"a": 1}')), ADA),
    ]


def test_commands_wait_while_the_engine_is_asked() -> None:
    """Each runs when the one before it is answered, however many frames they came in."""
    playbook = connected(context(FREE))
    playbook >> ask("presence", command_id=3)
    playbook >> [ask("history", command_id=4), {"id": 5, "unsubscribe": {"channel": "x"}}] << []
    playbook >> {"id": 6, "subscribe": {"channel": "news"}} << []
    playbook >> Executed(3, PresenceResult({}))
    playbook << [{"id": 3, "presence": {"presence": {}}}, Execute(4, HistoryRequest("news"), ADA)]
    playbook >> Executed(4, errors.UNRECOVERABLE_POSITION)
    playbook << [error(4, 112, "unrecoverable position"), {"id": 5, "unsubscribe": {}}, Opening("news")]


def test_commands_with_the_same_id_are_each_answered() -> None:
    """An id means something only to the client."""
    playbook = connected(context(FREE))
    playbook >> [ask("presence"), ask("presence")] << [Execute(3, PresenceRequest("news"), ADA)]
    reply = {"id": 3, "presence": {"presence": {}}}
    playbook >> Executed(3, PresenceResult({})) << [reply, Execute(3, PresenceRequest("news"), ADA)]
    playbook >> Executed(3, PresenceResult({})) << [reply]


def test_an_answer_nobody_waits_for_is_nothing() -> None:
    """Neither one to another command nor one more to the same."""
    playbook = connected(context(FREE))
    playbook >> ask("presence")
    playbook >> Executed(9, PresenceResult({})) << []
    playbook >> Executed(3, PresenceResult({})) << [{"id": 3, "presence": {"presence": {}}}]
    playbook >> Executed(3, PresenceResult({})) << []


def test_a_session_is_busy_until_everything_is_answered() -> None:
    """Its transport reads nothing more meanwhile."""
    connect = {"id": 1, "connect": {"token": connection_token("ada", channels=["mine"])}}
    frame = [{"id": 2, "subscribe": {"channel": "news"}}, ask("publish")]
    steps: list[tuple[Input, bool]] = [
        (connect, True),
        (opened("mine"), False),
        (frame, True),
        (opened("news"), True),
        (Executed(3, EMPTY), False),
    ]
    playbook = new_connection(context(FREE))
    for event, is_busy in steps:
        playbook >> event
        assert playbook.session.is_busy is is_busy


def test_a_pong_is_taken_while_commands_wait() -> None:
    """Or a slow engine would make silent peers of those who wait for it."""
    playbook = connected(context(FREE))
    playbook >> Wait(20) << [{}]
    playbook >> ask("presence")
    playbook >> [ask("history", command_id=4), {}] << []
    playbook >> Wait(10) << []


def test_what_is_no_command_closes_in_its_turn() -> None:
    """What came before it is done and answered."""
    playbook = connected(context(FREE))
    playbook >> b'{"id":3,"presence":{"channel":"news"}}\nnonsense'
    assert is_asking(playbook)
    playbook >> Executed(3, PresenceResult({}))
    playbook << [{"id": 3, "presence": {"presence": {}}}, Close(errors.PROTOCOL_VIOLATION)]


def test_nothing_of_a_frame_runs_after_the_command_that_closed() -> None:
    """Not even the commands that would be in order."""
    playbook = connected()
    playbook >> [{"send": {}}, {"id": 3, "subscribe": {"channel": "news"}}] << [Close(errors.UNSUPPORTED)]


def test_a_transport_may_speak_for_its_peer() -> None:
    """An event stream's query becomes connect and subscribes, together with everything that follows."""
    playbook = new_connection(context(OPEN), sends_pings=False)
    commands = [
        Command(id=1, connect=ConnectRequest(token=connection_token("ada"))),
        Command(id=2, subscribe=SubscribeRequest("news")),
        Command(id=3, subscribe=SubscribeRequest("more")),
    ]
    playbook >> Received(commands)
    playbook << [Identify("ada"), connect_reply(ping=None, pong=None), Opening("news"), Opening("more")]


# ------------------------------------------------------------------------------------------------- afterwards


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
def test_a_closed_session_is_silent(event: Any) -> None:
    """Whatever still comes, from either side."""
    playbook = subscribed(context(FREE))
    playbook >> ask("publish")
    playbook >> {"id": 4, "subscribe": {"channel": "other"}}
    playbook >> ConnectionLost() << [Closing("news")]
    playbook >> event << []
    assert playbook.session.deadline is None
    assert (playbook.session.live_channels, list(playbook.session.backlog)) == ([], [])


def test_whoever_leaves_leaves_every_channel() -> None:
    """Closed by a mistake: the close comes first, then what it leaves."""
    playbook = subscribed(expire_at=START.unix + 600)
    playbook >> {"id": 3, "subscribe": {"channel": "more"}} >> opened("more")
    playbook >> b"nonsense" << [Close(errors.PROTOCOL_VIOLATION), Closing("news"), Closing("more")]
