"""The nodes that share a Redis: orders and questions go to all of them, and each answers."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import suppress

import msgspec
import structlog
from msgspec import Struct

from tocsin_server.cluster.nodes import Household, NodeReport, Order, Question
from tocsin_server.cluster.redis.calls import Calls, Ears
from tocsin_server.cluster.redis.keys import Keys
from tocsin_server.cluster.redis.watch import DEAD, node_of
from tocsin_server.errors import EngineError

ANSWER_SECONDS = 2.0
"""How long a node may take to answer."""

log = structlog.get_logger()


class Asked(Struct, array_like=True):
    """What goes to every node: an order or a question. `back` is where the answers go."""

    id: int
    back: str
    order: Order | None = None
    question: Question | None = None


class Answer(Struct, array_like=True):
    """What comes back from each: the report if it was a question."""

    id: int
    uid: str
    report: NodeReport | None = None


_encode = msgspec.json.Encoder().encode
_decode_asked = msgspec.json.Decoder(Asked).decode
_decode_answer = msgspec.json.Decoder(Answer).decode


class Inquiry:
    """One order or question under way, and who has answered."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.news = asyncio.Event()


class RedisNodes:
    """Every node hears what is asked, this one included, and answers to whoever asked."""

    def __init__(self, keys: Keys, calls: Calls, ears: Ears) -> None:
        self._keys = keys
        self._calls = calls
        self._ears = ears
        self._household: Household | None = None
        self._inquiries: dict[int, Inquiry] = {}
        self._ids = itertools.count(1)

    async def start(self, household: Household) -> None:
        """Let `household` obey and report from now on. Raises EngineError if Redis cannot be heard."""
        self._household = household
        await self._ears.listen(self._keys.control, self._hear)
        await self._ears.listen(self._keys.answers(household.uid), self._hear_answer)

    def stop(self) -> None:
        """Obey and reach nobody any more. Idempotent."""
        self._household = None

    async def order(self, order: Order) -> None:
        """Every node, this one included, obeys.

        Raises EngineError naming those that did not say so in time; the others have obeyed.
        """
        await self._ask(order=order)

    async def survey(self, question: Question) -> Sequence[NodeReport]:
        """Every living node answers. Raises EngineError naming those that did not in time."""
        answers = await self._ask(question=question)
        return [answer.report for answer in answers if answer.report is not None]

    async def _ask(self, order: Order | None = None, question: Question | None = None) -> list[Answer]:
        household = self._household
        if household is None:
            raise EngineError("the engine is not running")
        inquiry = Inquiry()
        number = next(self._ids)
        self._inquiries[number] = inquiry
        try:
            asked = Asked(number, self._keys.answers(household.uid), order, question)
            living = await self._living()
            await self._calls.call(self._calls.publish, self._keys.control, _encode(asked))
            await self._answered(inquiry, living)
        finally:
            del self._inquiries[number]
        return list(inquiry.answers.values())

    async def _answered(self, inquiry: Inquiry, living: set[str]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                while living - inquiry.answers.keys():
                    inquiry.news.clear()
                    await inquiry.news.wait()
        silent = living - inquiry.answers.keys()
        if silent:
            silent &= await self._living()  # who has died meanwhile cannot be waited for
        if silent:
            raise EngineError(f"no answer from node {', '.join(sorted(silent))}")

    async def _living(self) -> set[str]:
        """The uids of all nodes with a lease; this one's too, should Redis just have forgotten it."""
        flat = await self._calls.call("HGETALL", self._keys.nodes)
        living = {node_of(lease) for lease, beat in zip(flat[::2], flat[1::2], strict=True) if beat != DEAD}
        return living | ({self._household.uid} if self._household else set())

    def _hear(self, message: bytes) -> None:
        if self._household is None:
            return
        try:
            asked = _decode_asked(message)
        except msgspec.DecodeError:
            log.warning("an order or question was not understood", exc_info=True)
            return
        if asked.order is not None:
            self._household.obey(asked.order)
        report = None if asked.question is None else self._household.report(asked.question)
        answer = self._calls.call(
            self._calls.publish, asked.back, _encode(Answer(asked.id, self._household.uid, report))
        )
        answer.add_done_callback(_ignore)

    def _hear_answer(self, message: bytes) -> None:
        answer = _decode_answer(message)
        inquiry = self._inquiries.get(answer.id)
        if inquiry is not None:
            inquiry.answers[answer.uid] = answer
            inquiry.news.set()


def _ignore(answer: asyncio.Future[object]) -> None:
    """An answer that could not be given is missed by whoever asked."""
    if not answer.cancelled():
        answer.exception()
