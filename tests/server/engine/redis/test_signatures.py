"""Signatures: a program that may publish in Redis, and even subscribe, cannot give nodes commands."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
import redis.asyncio
from structlog.testing import capture_logs

from tests.server.engine.contract.harness import HISTORY, Node, publication
from tests.server.engine.contract.test_nodes import COMMANDS
from tests.server.engine.recording_handler import RecordingHandler
from tests.server.engine.redis.conftest import Running
from tests.server.engine.redis.redis_server import RedisServer
from tests.support.timing import QUIET, STARTED
from tocsin_server.engine.broker import TOP_ONLY, HistoryQuery
from tocsin_server.engine.nodes import SurveyRequest
from tocsin_server.engine.redis import encoding, nodes, signatures, verification
from tocsin_server.engine.redis.connections.address import parse_address
from tocsin_server.engine.redis.engine import RedisEngine
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.engine.redis.nodes import NodeRequest, NodeResponse
from tocsin_server.errors import Unanswered
from tocsin_server.protocol.messages import Position

DISCONNECT = COMMANDS["disconnect"]


def forged_request(number: int = 10**6, sent_at: int = 0) -> bytes:
    """A valid request as a program without the key makes it."""
    return msgspec.json.encode(NodeRequest(number, "nowhere", DISCONNECT, None, sent_at))


@asynccontextmanager
async def recording(redis_server: RedisServer, name: str) -> AsyncIterator[asyncio.Queue[bytes]]:
    """The messages under a pub/sub name, as a program that may subscribe receives them."""
    messages: asyncio.Queue[bytes] = asyncio.Queue()
    client = redis.asyncio.Redis(port=redis_server.port)
    async with client.pubsub() as pubsub:
        await pubsub.subscribe(name)
        assert (await pubsub.get_message(timeout=STARTED))["type"] == "subscribe"

        async def record() -> None:
            async for message in pubsub.listen():
                messages.put_nowait(message["data"])

        task = asyncio.create_task(record())
        yield messages
        task.cancel()
    await client.aclose()


@pytest.fixture
async def recorded(redis_server: RedisServer, prefix: str) -> AsyncIterator[asyncio.Queue[bytes]]:
    """The messages to all nodes."""
    async with recording(redis_server, Keys(prefix).control) as messages:
        yield messages


async def other_node_answers(node: Node, other: Node) -> None:
    """Assert that the other node handles commands and surveys."""
    before = len(other.handler.commands)
    await node.nodes.publish_control(DISCONNECT)
    assert len(other.handler.commands) == before + 1
    assert len((await node.nodes.survey(SurveyRequest())).nodes) == 2


@pytest.mark.parametrize("signature", [b"", b"\0" * 16, b"x" * 16], ids=["no signature", "zeros", "letters"])
async def test_an_unsigned_command_is_ignored(
    node: Node, redis_server: RedisServer, prefix: str, signature: bytes
) -> None:
    """It is counted, and logged once."""
    with capture_logs() as logs:
        for _ in range(20):
            message = encoding.REQUEST + signature + forged_request()
            redis_server.command("PUBLISH", Keys(prefix).control, message)
        await node.catch_up()
        async with asyncio.timeout(STARTED):
            while node.engine.health.forged_messages < 20:  # noqa: ASYNC110
                await asyncio.sleep(QUIET / 10)
    assert not node.handler.commands
    assert len([entry for entry in logs if entry["event"] == "forged_message_dropped"]) == 1


async def test_the_key_is_none_that_a_program_without_it_could_use(
    node: Node, redis_server: RedisServer, prefix: str
) -> None:
    """Such as an empty one, or that of a configured secret."""
    keys = Keys(prefix)
    for secret in ("", "tocsin"):
        other = signatures.Signatures(keys, node.engine._deployment.commands, secret)  # type: ignore[attr-defined]
        message = other.sign(encoding.REQUEST, keys.control, forged_request())
        redis_server.command("PUBLISH", keys.control, message)
    await node.catch_up()
    assert not node.handler.commands
    assert len(redis_server.command("GET", keys.secret)) == signatures.KEY_BYTES


async def test_a_repeated_command_is_applied_once(
    node: Node, running: Running, redis_server: RedisServer, prefix: str, recorded: asyncio.Queue[bytes]
) -> None:
    """Neither at the nodes that received it, nor at one that started later."""
    async with running(redis_server.url, "n2") as other:
        await node.nodes.publish_control(DISCONNECT)
        message = await asyncio.wait_for(recorded.get(), STARTED)
        async with running(redis_server.url, "n3") as late:
            redis_server.command("PUBLISH", Keys(prefix).control, message)
            for each in (other, late):
                await each.catch_up()
            assert len(other.handler.commands) == 1
            assert not late.handler.commands
            await other_node_answers_all(node, other, late)


async def other_node_answers_all(node: Node, *others: Node) -> None:
    """Assert that the others handle a new command."""
    before = [len(each.handler.commands) for each in others]
    await node.nodes.publish_control(DISCONNECT)
    assert [len(each.handler.commands) for each in others] == [count + 1 for count in before]


async def test_a_command_that_arrives_late_is_ignored(
    node: Node, running: Running, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program may have held it back. The sender is told that nodes did not answer."""
    monkeypatch.setattr(nodes, "RESPONSE_SECONDS", QUIET)
    async with running(redis_server.url, "n2") as other:
        monkeypatch.setattr(verification, "MAX_AGE_SECONDS", -1.0)
        with pytest.raises(Unanswered):
            await node.nodes.publish_control(DISCONNECT)
        assert not other.handler.commands


async def test_a_message_is_valid_under_its_own_name_only(
    node: Node, redis_server: RedisServer, prefix: str, recorded: asyncio.Queue[bytes]
) -> None:
    """A request that was recorded in one system is none of another."""
    await node.nodes.publish_control(DISCONNECT)
    message = await asyncio.wait_for(recorded.get(), STARTED)
    signer = node.engine._signatures  # type: ignore[attr-defined]
    assert signer.verify(encoding.REQUEST, Keys(prefix).control, message) is not None
    assert signer.verify(encoding.REQUEST, Keys("other").control, message) is None


async def test_a_forged_response_is_ignored(
    node: Node, running: Running, redis_server: RedisServer, prefix: str
) -> None:
    """A survey contains only what nodes said."""
    info = await node.handler.node_info(SurveyRequest())
    async with running(redis_server.url, "n2"):
        for number in range(1, 4):
            response = msgspec.json.encode(NodeResponse(number, "n2", info))
            redis_server.command("PUBLISH", Keys(prefix).responses("n1"), encoding.RESPONSE + response)
        infos = (await node.nodes.survey(SurveyRequest())).nodes
    assert sorted(each.uid for each in infos) == ["n1", "n2"]


async def test_nodes_agree_on_a_key_after_redis_lost_it(
    running: Running, volatile_redis: RedisServer, prefix: str
) -> None:
    """Also if the next node to start makes another one."""
    async with running(volatile_redis.url) as node:
        key = volatile_redis.command("GET", Keys(prefix).secret)
        volatile_redis.command("DEL", Keys(prefix).secret)
        async with running(volatile_redis.url, "n2") as other:
            assert volatile_redis.command("GET", Keys(prefix).secret) != key
            await other_node_answers(other, node)
            await other_node_answers(node, other)
        volatile_redis.command("DEL", Keys(prefix).secret)
        await node.engine._signatures.keep()  # type: ignore[attr-defined]
        assert volatile_redis.command("GET", Keys(prefix).secret)


async def test_a_configured_secret_is_not_in_redis(redis_server: RedisServer, prefix: str) -> None:
    """Nodes with another secret do not execute the command."""
    engines = [
        RedisEngine(parse_address(redis_server.url), prefix, control_secret=secret)
        for secret in ("a" * 16, "a" * 16, "b" * 16)
    ]
    nodes_ = [Node(engine, RecordingHandler(f"n{number}")) for number, engine in enumerate(engines)]
    for node in nodes_:
        await node.engine.start(node.handler)
    with pytest.raises(Unanswered) as raised:
        await nodes_[0].nodes.publish_control(DISCONNECT)
    assert raised.value.uids == {"n2"}
    assert [len(node.handler.commands) for node in nodes_] == [1, 1, 0]
    assert not redis_server.command("EXISTS", Keys(prefix).secret)
    for node in nodes_:
        await node.engine.stop()


# --------------------------------------------------------------------------------------- forged publications


@pytest.mark.parametrize("offset", [3, 10**6, 2**63 - 1])
@pytest.mark.parametrize("epoch", [None, "other", ""])
async def test_a_forged_position_does_not_end_a_history(
    node: Node, redis_server: RedisServer, prefix: str, offset: int, epoch: str | None
) -> None:
    """For any distance and any epoch. The history is asked, and goes on."""
    await node.broker.subscribe("news")
    top = await node.broker.publish("news", publication(1), HISTORY)
    await node.broker.read_history("news", TOP_ONLY, HISTORY)
    body = encoding.encode_body(publication(9).data, None, None)
    message = b"1p1 %d %s\n" % (offset, (top.epoch if epoch is None else epoch).encode()) + body
    redis_server.command("PUBLISH", Keys(prefix).pubsub_name("news"), message)
    await node.catch_up()
    assert await node.broker.publish("news", publication(2), HISTORY) == Position(2, top.epoch)
    history = await node.broker.read_history("news", HistoryQuery(limit=-1), HISTORY)
    assert [bytes(each.data) for each in history.publications] == [b"1", b"2"]


@pytest.mark.parametrize(
    "message",
    [
        b"1p",
        b"1p1 2 e",
        b"1p1 2\nabc",
        b"1p1 -2 e\n\x93\xc4\x011\xc0\xc0",
        b"1p1 %d e\n\x93\xc4\x011\xc0\xc0" % 2**63,
        b"1p%d 1 e\n\x93\xc4\x011\xc0\xc0" % 2**80,
        b"1p1_0 1 e\n\x93\xc4\x011\xc0\xc0",
        b"1p1 " + b"9" * 5000 + b" e\n\x93\xc4\x011\xc0\xc0",
        b"1p1 1 \xff\n\x93\xc4\x011\xc0\xc0",
        b"1p1 1 e\n" + b"\x91" * 10_000,
        b"1p1 1 e\n\x93\xc4\x011\xc0\xc0extra",
        b"1j\n\x94\xa1a",
        b"1j\n" + b"\x94" * 10_000,
        b"1l\n\xc1",
    ],
)
async def test_a_malformed_message_is_dropped(
    node: Node, redis_server: RedisServer, prefix: str, message: bytes
) -> None:
    """The connection stays, and a flood of them is logged once."""
    await node.broker.subscribe("news")
    links = node.engine.health.links
    with capture_logs() as logs:
        for _ in range(5):
            redis_server.command("PUBLISH", Keys(prefix).pubsub_name("news"), message)
        await node.catch_up()
    assert not node.handler.payloads("news")
    assert not node.handler.pushes
    assert node.engine.health.links == links
    assert len([entry for entry in logs if entry["event"] == "malformed_message_dropped"]) == 1


# ----------------------------------------------------------------------------------------- forwarded commands


SESSION = b"s" * 16


@pytest.fixture
async def forwarded(redis_server: RedisServer, prefix: str) -> AsyncIterator[asyncio.Queue[bytes]]:
    """The commands that are forwarded to the node n2, as a program that may subscribe receives them."""
    async with recording(redis_server, Keys(prefix).commands("n2")) as messages:
        yield messages


async def test_forwarded_commands_are_accepted_once(
    node: Node, running: Running, redis_server: RedisServer, prefix: str, forwarded: asyncio.Queue[bytes]
) -> None:
    """A repeated or changed message is dropped, and so is one under another node's name."""
    async with running(redis_server.url, "n2") as other, running(redis_server.url, "n3") as third:
        for each in (other, third):
            each.handler.sessions.add(SESSION)
        assert await node.engine.forwarding.forward("n2", SESSION, b"one")
        message = await asyncio.wait_for(forwarded.get(), STARTED)
        redis_server.command("PUBLISH", Keys(prefix).commands("n2"), message)
        redis_server.command("PUBLISH", Keys(prefix).commands("n2"), message.replace(b"one", b"two"))
        redis_server.command("PUBLISH", Keys(prefix).commands("n3"), message)
        assert await node.engine.forwarding.forward("n2", SESSION, b"three")
        assert await node.engine.forwarding.forward("n3", SESSION, b"four")
        assert [data for _, data in other.handler.forwarded] == [b"one", b"three"]
        assert [data for _, data in third.handler.forwarded] == [b"four"]


async def test_a_forged_receipt_is_ignored(
    node: Node, running: Running, redis_server: RedisServer, prefix: str
) -> None:
    """Commands that no node received are not confirmed."""
    async with running(redis_server.url, "n2"):
        for number in range(1, 4):
            receipt = encoding.RECEIPT + b"0" * 16 + msgspec.msgpack.encode((number, True))
            redis_server.command("PUBLISH", Keys(prefix).receipts("n1"), receipt)
        assert await node.engine.forwarding.forward("n2", SESSION, b"x") is False


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x90", b"\x92\x01\xc3", b"[1]", b"\x95" * 1000])
async def test_a_malformed_message_between_nodes_is_dropped(
    node: Node, redis_server: RedisServer, prefix: str, payload: bytes
) -> None:
    """Even with a valid signature, and the node goes on."""
    keys = Keys(prefix)
    signer = node.engine._signatures  # type: ignore[attr-defined]
    for head, name in ((encoding.COMMANDS, keys.commands("n1")), (encoding.RECEIPT, keys.receipts("n1"))):
        redis_server.command("PUBLISH", name, signer.sign(head, name, payload))
        redis_server.command("PUBLISH", name, payload)
    await node.catch_up()  # one payload is a receipt of the next commands
    node.handler.sessions.add(SESSION)
    assert await node.engine.forwarding.forward("n1", SESSION, b"x") is True
    assert node.handler.forwarded == [(SESSION, b"x")]
