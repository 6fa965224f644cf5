"""The Redis engine's forwarding: commands are published to one node, which publishes a receipt for them.

    node --commands--> Redis --> node that has the connection --receipt--> Redis --> node

Redis says how many nodes receive a message. If none does, the other node is gone, and no receipt is awaited.
Both messages are signed, and commands are accepted once, so that no other program can give commands or
repeat them. A program that may subscribe in Redis can read them.
"""

from __future__ import annotations

import asyncio
import itertools

import msgspec
from msgspec import Struct

from tocsin_server.engine.forwarding import ForwardingHandler
from tocsin_server.engine.redis import encoding
from tocsin_server.engine.redis.clock import SharedClock
from tocsin_server.engine.redis.dropped_messages import DroppedMessages
from tocsin_server.engine.redis.interfaces import Commands, PubSub
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.engine.redis.signatures import Signatures
from tocsin_server.engine.redis.verification import NewRequests, Verifier
from tocsin_server.errors import EngineError, Unanswered

RECEIPT_SECONDS = 2.0
"""How long a node may take to confirm commands. SDKs wait 5 s for the reply to a command."""


class ForwardedCommands(Struct, array_like=True):
    """Commands for one session of a node."""

    number: int
    """Increases with each message of a node."""
    receipts: str
    """The pub/sub name of the receipt."""
    sent_at: int
    """A stamp (see clock)."""
    session: bytes
    data: bytes


class Receipt(Struct, array_like=True):
    """The answer of a node to forwarded commands."""

    number: int
    was_received: bool
    """False: the node has no such session."""


_encode = msgspec.msgpack.Encoder().encode
_decode_commands = msgspec.msgpack.Decoder(ForwardedCommands).decode
_decode_receipt = msgspec.msgpack.Decoder(Receipt).decode


class RedisForwarding:
    """Implements Forwarding. The mutable state is the commands without a receipt, by number."""

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
        self._verifier = verifier
        self._dropped = dropped
        self._new_requests = NewRequests(clock)
        self._numbers = itertools.count(1)
        self._pending: dict[int, asyncio.Future[bool]] = {}
        self._handler: ForwardingHandler | None = None
        self._own_commands = self._own_receipts = ""
        self._other_versions = encoding.OtherVersions()

    async def start(self, handler: ForwardingHandler) -> None:
        """Call `handler` with commands from now on. Raises EngineError if the node cannot subscribe."""
        self._handler = handler
        self._own_commands = self._keys.commands(handler.uid)
        self._own_receipts = self._keys.receipts(handler.uid)
        await self._pubsub.subscribe(self._own_commands, self._on_commands)
        await self._pubsub.subscribe(self._own_receipts, self._on_receipt)

    def stop(self) -> None:
        """Release the handler. Idempotent."""
        self._handler = None

    async def forward(self, node: str, session: bytes, data: bytes) -> bool:
        """Hand commands to a session of another node, as Forwarding describes."""
        if self._handler is None:
            raise EngineError("the engine is not running")
        number = next(self._numbers)
        receipt: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._pending[number] = receipt
        try:
            if not await self._publish(number, node, session, data):
                return False
            async with asyncio.timeout(RECEIPT_SECONDS):
                return await receipt
        except TimeoutError:
            raise Unanswered([node]) from None
        finally:
            del self._pending[number]

    async def _publish(self, number: int, node: str, session: bytes, data: bytes) -> int:
        """Publish commands, and return how many nodes receive them."""
        name = self._keys.commands(node)
        commands = ForwardedCommands(number, self._own_receipts, self._clock.stamp(), session, data)
        message = self._signatures.sign(encoding.COMMANDS, name, _encode(commands))
        return int(await self._commands.execute(self._commands.publish_command, name, message))

    # -------------------------------------------------------------------------------------------- from Redis

    def _on_commands(self, message: bytes) -> None:
        if message.startswith(encoding.COMMANDS):
            self._verifier.verify(encoding.COMMANDS, self._own_commands, message, self._take_commands)
        else:
            self._other_versions.ignore("commands")

    def _on_receipt(self, message: bytes) -> None:
        if message.startswith(encoding.RECEIPT):
            self._verifier.verify(encoding.RECEIPT, self._own_receipts, message, self._take_receipt)
        else:
            self._other_versions.ignore("receipts")

    def _take_commands(self, payload: bytes) -> None:
        handler = self._handler
        if handler is None:
            return
        try:
            commands = _decode_commands(payload)
        except msgspec.DecodeError as error:
            self._dropped.drop("malformed_commands_dropped", error=type(error).__name__)
            return
        if not self._new_requests.is_new(commands.receipts, commands.number, commands.sent_at):
            self._dropped.drop_forged("commands", "repeated or too old")
            return
        receipt = Receipt(commands.number, handler.on_commands(commands.session, commands.data))
        message = self._signatures.sign(encoding.RECEIPT, commands.receipts, _encode(receipt))
        reply = self._commands.execute(self._commands.publish_command, commands.receipts, message)
        reply.add_done_callback(_ignore_outcome)

    def _take_receipt(self, payload: bytes) -> None:
        try:
            receipt = _decode_receipt(payload)
        except msgspec.DecodeError as error:
            self._dropped.drop("malformed_receipt_dropped", error=type(error).__name__)
            return
        pending = self._pending.get(receipt.number)
        if pending is not None and not pending.done():
            pending.set_result(receipt.was_received)


def _ignore_outcome(reply: asyncio.Future[object]) -> None:
    """Retrieve the exception of a receipt that could not be sent. The node then counts as silent."""
    if not reply.cancelled():
        reply.exception()
