"""The Redis engine's node registry: sends control commands and surveys to all nodes that share a Redis."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from contextlib import suppress

import msgspec
from msgspec import Struct

from tocsin_server.engine.nodes import (
    RESPONSE_SECONDS,
    ControlCommand,
    ControlHandler,
    NodeInfo,
    Survey,
    SurveyRequest,
)
from tocsin_server.engine.redis import encoding
from tocsin_server.engine.redis.clock import SharedClock
from tocsin_server.engine.redis.dropped_messages import DroppedMessages
from tocsin_server.engine.redis.interfaces import Commands, PubSub
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.engine.redis.membership.failure_detector import DEAD, node_of
from tocsin_server.engine.redis.signatures import Signatures
from tocsin_server.engine.redis.verification import NewRequests, Verifier
from tocsin_server.errors import EngineError, Unanswered

ANSWERS_LIMIT = 100
"""How many surveys of other nodes are answered at a time. A node that drops one counts as silent."""


class NodeRequest(Struct, array_like=True):
    """A message to every node: a control command or a survey. Responses go to the pub/sub name `reply_to`."""

    id: int
    """Increases with every request of a node, so a repeated one can be recognized."""
    reply_to: str
    command: ControlCommand | None = None
    survey: SurveyRequest | None = None
    sent_at: int = 0
    """A stamp (see clock)."""


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

    def add(self, response: NodeResponse) -> None:
        """Note the response of a node."""
        self.responses[response.uid] = response
        self.response_received.set()


class RedisNodeRegistry:
    """Implements NodeRegistry. A request is published to all nodes, and each responds to the sender.

    The sending node handles its own request directly, so this works even if the node is deaf. All messages
    are signed, and requests are accepted once (see verification).

    The mutable state is the pending requests, the surveys that are being answered, and what earlier surveys
    returned about other nodes.
    """

    def __init__(
        self,
        keys: Keys,
        commands: Commands,
        pubsub: PubSub,
        clock: SharedClock,
        signatures: Signatures,
        verifier: Verifier,
        dropped: DroppedMessages,
    ) -> None:
        self._keys = keys
        self._commands = commands
        self._pubsub = pubsub
        self._clock = clock
        self._signatures = signatures
        self._dropped = dropped
        self._verifier = verifier
        self._new_requests = NewRequests(clock)
        self._responses = ""  # the pub/sub name of the responses to this node
        self._handler: ControlHandler | None = None
        self._pending: dict[int, PendingRequest] = {}
        self._ids = itertools.count(1)
        self._known: dict[str, NodeInfo] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._other_versions = encoding.OtherVersions()

    async def start(self, handler: ControlHandler) -> None:
        """Call `handler` with requests from now on. Raises EngineError if the node cannot subscribe."""
        self._handler = handler
        self._new_requests.start()
        self._responses = self._keys.responses(handler.uid)
        await self._pubsub.subscribe(self._keys.control, self._on_request)
        await self._pubsub.subscribe(self._responses, self._on_response)

    def stop(self) -> None:
        """Release the handler. Idempotent."""
        self._handler = None
        for answering in self._answering:
            answering.cancel()

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
            request = NodeRequest(number, self._responses, command, survey, self._clock.stamp())
            message = self._signatures.sign(encoding.REQUEST, self._keys.control, _encode_json(request))
            others = await self._other_nodes(handler)
            await self._commands.execute(self._commands.publish_command, self._keys.control, message)
            response = NodeResponse(number, handler.uid)
            if survey is not None:
                response.info = await handler.node_info(survey)
            _when_applied(handler, command, lambda: pending.add(response))
            await self._wait_for_responses(pending, {*others, handler.uid})
            if pending.silent:  # a node that died in the meantime is not silent
                pending.silent &= {*await self._other_nodes(handler), handler.uid}
        finally:
            del self._pending[number]
        return pending

    async def _wait_for_responses(self, pending: PendingRequest, nodes: set[str]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(RESPONSE_SECONDS):
                while nodes - pending.responses.keys():
                    pending.response_received.clear()
                    await pending.response_received.wait()
        pending.silent = nodes - pending.responses.keys()

    async def _other_nodes(self, handler: ControlHandler) -> set[str]:
        """The uids of all other nodes with a lease that is not dead."""
        flat = await self._commands.execute("HGETALL", self._keys.nodes)
        alive = {node_of(lease) for lease, count in zip(flat[::2], flat[1::2], strict=True) if count != DEAD}
        return alive - {handler.uid}

    def _on_request(self, message: bytes) -> None:
        if not message.startswith(encoding.REQUEST):
            self._other_versions.ignore("requests")
        else:
            self._verifier.verify(encoding.REQUEST, self._keys.control, message, self._handle_request)

    def _on_response(self, message: bytes) -> None:
        if not message.startswith(encoding.RESPONSE):
            self._other_versions.ignore("responses")
        else:
            self._verifier.verify(encoding.RESPONSE, self._responses, message, self._handle_response)

    def _handle_request(self, payload: bytes) -> None:
        handler = self._handler
        if handler is None:
            return
        try:
            request = _decode_request(payload)
        except msgspec.DecodeError as error:
            self._dropped.drop("malformed_node_request_dropped", error=type(error).__name__)
            return
        if request.reply_to == self._responses:
            return
        if not self._new_requests.is_new(request.reply_to, request.id, request.sent_at):
            self._dropped.drop_forged("request", "repeated or too old")
            return
        if request.survey is None:
            response = NodeResponse(request.id, handler.uid)
            _when_applied(handler, request.command, lambda: self._send(request, response))
            return
        if len(self._answering) >= ANSWERS_LIMIT:
            self._dropped.drop("node_request_dropped", reason=f"{ANSWERS_LIMIT} surveys are being answered")
            return
        answering = asyncio.get_running_loop().create_task(self._answer(handler, request, request.survey))
        self._answering.add(answering)
        answering.add_done_callback(self._answering.discard)

    async def _answer(self, handler: ControlHandler, request: NodeRequest, survey: SurveyRequest) -> None:
        info = await handler.node_info(survey)
        self._send(request, NodeResponse(request.id, handler.uid, info))

    def _send(self, request: NodeRequest, response: NodeResponse) -> None:
        message = self._signatures.sign(encoding.RESPONSE, request.reply_to, _encode_json(response))
        reply = self._commands.execute(self._commands.publish_command, request.reply_to, message)
        reply.add_done_callback(_ignore_outcome)

    def _handle_response(self, payload: bytes) -> None:
        try:
            response = _decode_response(payload)
        except msgspec.DecodeError as error:
            self._dropped.drop("malformed_node_response_dropped", error=type(error).__name__)
            return
        pending = self._pending.get(response.id)
        if pending is not None:
            pending.add(response)


def _when_applied(
    handler: ControlHandler, command: ControlCommand | None, respond: Callable[[], None]
) -> None:
    """Apply a control command, if there is one, and respond as soon as it counts as applied."""
    left = set(handler.on_control(command)) if command is not None else set()
    if not left:
        respond()

    def on_done(future: asyncio.Future[None]) -> None:
        left.discard(future)
        if not left:
            respond()

    for future in [*left]:
        future.add_done_callback(on_done)


def _silent_info(uid: str, known: NodeInfo | None = None) -> NodeInfo:
    """The info of a silent node: what an earlier survey returned about it, without figures."""
    name, version, address = (known.name, known.version, known.address) if known else ("", "", "")
    return NodeInfo(uid, name, version, 0, 0, 0, 0, 0, address=address, state="silent")


def _ignore_outcome(reply: asyncio.Future[object]) -> None:
    """Retrieve the exception of a response that could not be sent. Its node then counts as silent."""
    if not reply.cancelled():
        reply.exception()
