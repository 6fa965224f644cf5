"""The nodes that share a Redis: orders and questions go to all of them, and each answers."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress

import msgspec
import structlog
from msgspec import Struct

from tocsin_server.engine.nodes import ControlCommand, ControlHandler, NodeInfo, Survey, SurveyRequest
from tocsin_server.engine.redis.interfaces import Calls, Ears
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.engine.redis.membership.failure_detector import DEAD, node_of
from tocsin_server.errors import EngineError, Unanswered

ANSWER_SECONDS = 2.0
"""How long a node may take to answer."""

log = structlog.get_logger()


class Asked(Struct, array_like=True):
    """What goes to every node: an order or a question. `back` is where the answers go."""

    id: int
    back: str
    order: ControlCommand | None = None
    question: SurveyRequest | None = None


class Answer(Struct, array_like=True):
    """What comes back from each: the report if it was a question."""

    id: int
    uid: str
    report: NodeInfo | None = None


_encode = msgspec.json.Encoder().encode
_decode_asked = msgspec.json.Decoder(Asked).decode
_decode_answer = msgspec.json.Decoder(Answer).decode


class Inquiry:
    """One order or question under way, and who has answered."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.silent: set[str] = set()
        """The uids of those that live and did not answer in time."""
        self.news = asyncio.Event()


class RedisNodeRegistry:
    """Every other node hears what is asked, and answers to whoever asked.

    This one, which may be deaf, obeys and answers without Redis.
    """

    def __init__(self, keys: Keys, calls: Calls, ears: Ears) -> None:
        self._keys = keys
        self._calls = calls
        self._ears = ears
        self._household: ControlHandler | None = None
        self._inquiries: dict[int, Inquiry] = {}
        self._ids = itertools.count(1)
        self._known: dict[str, NodeInfo] = {}

    async def start(self, household: ControlHandler) -> None:
        """Let `household` obey and report from now on. Raises EngineError if Redis cannot be heard."""
        self._household = household
        await self._ears.listen(self._keys.control, self._hear)
        await self._ears.listen(self._keys.answers(household.uid), self._hear_answer)

    def stop(self) -> None:
        """Obey and reach nobody any more. Idempotent."""
        self._household = None

    async def publish_control(self, order: ControlCommand) -> None:
        """Every node, this one included, obeys. Raises Unanswered if not all of them have said so in time."""
        inquiry = await self._ask(order=order)
        if inquiry.silent:
            raise Unanswered(inquiry.silent)

    async def survey(self, question: SurveyRequest) -> Survey:
        """Every living node answers, or is among the silent ones."""
        inquiry = await self._ask(question=question)
        reports = [answer.report for answer in inquiry.answers.values() if answer.report is not None]
        silent = [self._known.get(uid) or _silent(uid) for uid in sorted(inquiry.silent)]
        self._known = {one.uid: _silent(one.uid, one) for one in [*reports, *silent]}
        return Survey(reports, silent)

    async def _ask(
        self, order: ControlCommand | None = None, question: SurveyRequest | None = None
    ) -> Inquiry:
        household = self._household
        if household is None:
            raise EngineError("the engine is not running")
        inquiry = Inquiry()
        number = next(self._ids)
        self._inquiries[number] = inquiry
        try:
            asked = Asked(number, self._keys.answers(household.uid), order, question)
            others = await self._others(household)
            await self._calls.call(self._calls.publish, self._keys.control, _encode(asked))
            inquiry.answers[household.uid] = _answer(household, asked)
            await self._answered(inquiry, others)
            if inquiry.silent:  # who has died meanwhile cannot be waited for
                inquiry.silent &= await self._others(household)
        finally:
            del self._inquiries[number]
        return inquiry

    async def _answered(self, inquiry: Inquiry, others: set[str]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                while others - inquiry.answers.keys():
                    inquiry.news.clear()
                    await inquiry.news.wait()
        inquiry.silent = others - inquiry.answers.keys()

    async def _others(self, household: ControlHandler) -> set[str]:
        """The uids of all other nodes with a lease."""
        flat = await self._calls.call("HGETALL", self._keys.nodes)
        living = {node_of(lease) for lease, beat in zip(flat[::2], flat[1::2], strict=True) if beat != DEAD}
        return living - {household.uid}

    def _hear(self, message: bytes) -> None:
        household = self._household
        if household is None:
            return
        try:
            asked = _decode_asked(message)
        except msgspec.DecodeError:
            log.warning("an order or question was not understood", exc_info=True)
            return
        if asked.back == self._keys.answers(household.uid):
            return
        answer = self._calls.call(self._calls.publish, asked.back, _encode(_answer(household, asked)))
        answer.add_done_callback(_ignore)

    def _hear_answer(self, message: bytes) -> None:
        answer = _decode_answer(message)
        inquiry = self._inquiries.get(answer.id)
        if inquiry is not None:
            inquiry.answers[answer.uid] = answer
            inquiry.news.set()


def _answer(household: ControlHandler, asked: Asked) -> Answer:
    """Obey, or report."""
    if asked.order is not None:
        household.on_control(asked.order)
    report = None if asked.question is None else household.node_info(asked.question)
    return Answer(asked.id, household.uid, report)


def _silent(uid: str, known: NodeInfo | None = None) -> NodeInfo:
    """A node that does not say how it is, with what is known of it from earlier."""
    name, version, address = (known.name, known.version, known.address) if known else ("", "", "")
    return NodeInfo(uid, name, version, 0, 0, 0, 0, 0, address=address, state="silent")


def _ignore(answer: asyncio.Future[object]) -> None:
    """An answer that could not be given is missed by whoever asked."""
    if not answer.cancelled():
        answer.exception()
