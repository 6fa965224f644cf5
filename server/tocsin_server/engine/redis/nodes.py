"""The Redis engine's node registry: sends control commands and surveys to all nodes that share a Redis."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress

import msgspec
import structlog
from msgspec import Struct

from tocsin_server.engine.nodes import ControlCommand, ControlHandler, NodeInfo, Survey, SurveyRequest
from tocsin_server.engine.redis import encoding
from tocsin_server.engine.redis.interfaces import Commands, PubSub
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.engine.redis.membership.failure_detector import DEAD, node_of
from tocsin_server.errors import EngineError, Unanswered

RESPONSE_SECONDS = 2.0
"""How long a node may take to respond."""

log = structlog.get_logger()


class NodeRequest(Struct, array_like=True):
    """A message to every node: a control command or a survey. Responses go to the pub/sub name `reply_to`."""

    id: int
    reply_to: str
    command: ControlCommand | None = None
    survey: SurveyRequest | None = None


class NodeResponse(Struct, array_like=True):
    """The response of one node. `info` is its answer to a survey."""

    id: int
    uid: str
    info: NodeInfo | None = None


_encode_json = msgspec.json.Encoder().encode
_decode_request = msgspec.json.Decoder(NodeRequest).decode
_decode_response = msgspec.json.Decoder(NodeResponse).decode


class PendingRequest:
    """A request that was sent, and the responses to it so far."""

    def __init__(self) -> None:
        self.responses: dict[str, NodeResponse] = {}
        self.silent: set[str] = set()
        """The uids of live nodes that did not respond in time."""
        self.response_received = asyncio.Event()


class RedisNodeRegistry:
    """Implements NodeRegistry. A request is published to all nodes, and each responds to the sender.

    The sending node handles its own request directly, so this works even if the node is deaf.

    The mutable state is the pending requests and what earlier surveys returned about other nodes.
    """

    def __init__(self, keys: Keys, commands: Commands, pubsub: PubSub) -> None:
        self._keys = keys
        self._commands = commands
        self._pubsub = pubsub
        self._handler: ControlHandler | None = None
        self._pending: dict[int, PendingRequest] = {}
        self._ids = itertools.count(1)
        self._known: dict[str, NodeInfo] = {}
        self._other_versions = encoding.OtherVersions()

    async def start(self, handler: ControlHandler) -> None:
        """Call `handler` with requests from now on. Raises EngineError if the node cannot subscribe."""
        self._handler = handler
        await self._pubsub.subscribe(self._keys.control, self._on_request)
        await self._pubsub.subscribe(self._keys.responses(handler.uid), self._on_response)

    def stop(self) -> None:
        """Release the handler. Idempotent."""
        self._handler = None

    async def publish_control(self, command: ControlCommand) -> None:
        """Send a control command to every node, as NodeRegistry describes."""
        pending = await self._request(command=command)
        if pending.silent:
            raise Unanswered(pending.silent)

    async def survey(self, request: SurveyRequest) -> Survey:
        """Survey every live node, as NodeRegistry describes."""
        pending = await self._request(survey=request)
        infos = [response.info for response in pending.responses.values() if response.info is not None]
        silent = [self._known.get(uid) or _silent_info(uid) for uid in sorted(pending.silent)]
        self._known = {info.uid: _silent_info(info.uid, info) for info in [*infos, *silent]}
        return Survey(infos, silent)

    async def _request(
        self, command: ControlCommand | None = None, survey: SurveyRequest | None = None
    ) -> PendingRequest:
        handler = self._handler
        if handler is None:
            raise EngineError("the engine is not running")
        pending = PendingRequest()
        number = next(self._ids)
        self._pending[number] = pending
        try:
            request = NodeRequest(number, self._keys.responses(handler.uid), command, survey)
            others = await self._other_nodes(handler)
            await self._commands.execute(
                self._commands.publish_command, self._keys.control, _encode_request(request)
            )
            pending.responses[handler.uid] = _respond(handler, request)
            await self._wait_for_responses(pending, others)
            if pending.silent:  # a node that died in the meantime is not silent
                pending.silent &= await self._other_nodes(handler)
        finally:
            del self._pending[number]
        return pending

    async def _wait_for_responses(self, pending: PendingRequest, others: set[str]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(RESPONSE_SECONDS):
                while others - pending.responses.keys():
                    pending.response_received.clear()
                    await pending.response_received.wait()
        pending.silent = others - pending.responses.keys()

    async def _other_nodes(self, handler: ControlHandler) -> set[str]:
        """The uids of all other nodes with a lease that is not dead."""
        flat = await self._commands.execute("HGETALL", self._keys.nodes)
        alive = {node_of(lease) for lease, count in zip(flat[::2], flat[1::2], strict=True) if count != DEAD}
        return alive - {handler.uid}

    def _on_request(self, message: bytes) -> None:
        handler = self._handler
        if handler is None:
            return
        if not message.startswith(encoding.REQUEST):
            self._other_versions.ignore("requests")
            return
        try:
            request = _decode_request(memoryview(message)[len(encoding.REQUEST) :])
        except msgspec.DecodeError as error:
            log.warning("malformed_node_request_dropped", error=type(error).__name__)
            return
        if request.reply_to == self._keys.responses(handler.uid):
            return
        response = encoding.RESPONSE + _encode_json(_respond(handler, request))
        reply = self._commands.execute(self._commands.publish_command, request.reply_to, response)
        reply.add_done_callback(_ignore_outcome)

    def _on_response(self, message: bytes) -> None:
        if not message.startswith(encoding.RESPONSE):
            self._other_versions.ignore("responses")
            return
        try:
            response = _decode_response(memoryview(message)[len(encoding.RESPONSE) :])
        except msgspec.DecodeError as error:
            log.warning("malformed_node_response_dropped", error=type(error).__name__)
            return
        pending = self._pending.get(response.id)
        if pending is not None:
            pending.responses[response.uid] = response
            pending.response_received.set()


def _encode_request(request: NodeRequest) -> bytes:
    return encoding.REQUEST + _encode_json(request)


def _respond(handler: ControlHandler, request: NodeRequest) -> NodeResponse:
    """Apply a control command, or answer a survey."""
    if request.command is not None:
        handler.on_control(request.command)
    info = None if request.survey is None else handler.node_info(request.survey)
    return NodeResponse(request.id, handler.uid, info)


def _silent_info(uid: str, known: NodeInfo | None = None) -> NodeInfo:
    """The info of a silent node: what an earlier survey returned about it, without figures."""
    name, version, address = (known.name, known.version, known.address) if known else ("", "", "")
    return NodeInfo(uid, name, version, 0, 0, 0, 0, 0, address=address, state="silent")


def _ignore_outcome(reply: asyncio.Future[object]) -> None:
    """Retrieve the exception of a response that could not be sent. Its node then counts as silent."""
    if not reply.cancelled():
        reply.exception()
