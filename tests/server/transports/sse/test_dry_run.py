"""A session's expected answers, computed without a connection, an engine or any other effect."""

from tests.server.transports.sse.stream_server import SETTINGS
from tests.support.tokens import connection_token
from tocsin_server import errors
from tocsin_server.config.loading import Settings
from tocsin_server.core.events import Close, Send
from tocsin_server.engine.memory.engine import MemoryEngine
from tocsin_server.node.node import Node
from tocsin_server.protocol.messages import Command, ConnectRequest, Reply, SubscribeRequest
from tocsin_server.transports.sse.dry_run import expected_answers, server_side_channels

CONNECT = Command(1, connect=ConnectRequest())


def new_node() -> Node:
    return Node(Settings.model_validate(SETTINGS), MemoryEngine())


def test_a_permitted_subscribe_command_has_no_answer_before_the_engine_has() -> None:
    """The connect command is answered, and the node has no user and no channel."""
    node = new_node()
    commands = [CONNECT, Command(2, subscribe=SubscribeRequest("history:1"))]
    (answer,) = expected_answers(node.new_session(), commands, node.now())
    assert isinstance(answer, Send)
    assert isinstance(answer.message, Reply)
    assert answer.message.connect is not None
    assert not len(node.hub)
    assert not node.hub.channels


def test_a_refusal_is_an_expected_answer() -> None:
    """Also after a connect command whose token subscribes channels by itself."""
    node = new_node()
    token = connection_token("ann", channels=["closed:1"])
    for connect in (CONNECT, Command(1, connect=ConnectRequest(token))):
        commands = [connect, Command(2, subscribe=SubscribeRequest("closed:2"))]
        _, answer = expected_answers(node.new_session(), commands, node.now())
        assert isinstance(answer, Send)
        assert isinstance(answer.message, Reply)
        assert answer.message.error is not None
        assert answer.message.error.code == errors.PERMISSION_DENIED.code


def test_a_close_is_an_expected_answer() -> None:
    node = new_node()
    commands = [Command(1, connect=ConnectRequest("not-a-token"))]
    (answer,) = expected_answers(node.new_session(), commands, node.now())
    assert isinstance(answer, Close)
    assert answer.why is errors.INVALID_TOKEN


def test_the_channels_that_a_token_subscribes_by_itself_are_found() -> None:
    node = new_node()
    token = connection_token("ann", channels=["closed:1", "news"])
    connect = Command(1, connect=ConnectRequest(token))
    assert server_side_channels(node.new_session(), connect, node.now()) == ["closed:1", "news"]
