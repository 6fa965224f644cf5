"""Calls of API methods: how one is decoded, run without raising, and answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import CoroutineType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, TypeVarTuple

import msgspec
import structlog
from msgspec import Meta, Raw, Struct

from tocsin_server import errors
from tocsin_server.api.callers import Caller
from tocsin_server.api.types import CALLS_LIMIT, ApiError, BatchCommand, BatchRequest
from tocsin_server.eager_future import EagerFuture
from tocsin_server.errors import EngineError, Refusal, Refused, Unanswered, bad_request
from tocsin_server.hooks.dead_letters import DeadLetters
from tocsin_server.loop_turns import LoopTurns
from tocsin_server.node.node import Node
from tocsin_server.protocol.canonical import canonical

CONCURRENT_CALLS = 250
"""How many calls of one request run concurrently: enough to fill a pipeline to Redis."""

T = TypeVar("T")
Item = TypeVar("Item")
Items = TypeVarTuple("Items")

if TYPE_CHECKING:
    from collections.abc import Coroutine

    Later = Coroutine[Any, Any, T] | EagerFuture[T]
    """A result that has to be waited for. A future has no task: what follows is called with its result."""

    Pending = (EagerFuture, Coroutine)
else:
    Pending = (EagerFuture, CoroutineType)
    """The classes of every `Later`. To test for the abstract one takes five times as long."""

log = structlog.get_logger()


class Context(Struct, frozen=True):
    """In which a call runs: its node, who calls, and the turns that it shares with all other calls."""

    node: Node
    caller: Caller
    turns: LoopTurns
    dead_letters: DeadLetters

    def permit(self, method: str, request: Struct) -> None:
        """Raise Refused unless the caller may make this call. A broadcast checks its channels itself."""
        if not self.caller.scope.is_limited:
            return
        try:
            self.caller.check(method, getattr(request, "channel", None))
        except Refused as error:
            self.log_refusal(method, error.refusal)
            raise

    def log_refusal(self, method: str, refusal: Refusal) -> None:
        """Log that the scope of the caller's key refuses a call."""
        self.node.sampled_log.write(
            "api_call_refused", key=self.caller.name, method=method, error=refusal.message
        )


@dataclass(frozen=True)
class Method:
    """One method of the API: its function, and the types of its request and result."""

    call: Callable[[Context, Any], Any]
    """Returns the result, or what to wait for. A method that needs no waiting is not a coroutine."""
    request: type[Struct]
    result: type[Struct]
    is_wrapped: bool = True
    """Whether the response has the result under `result`. Otherwise the response is the result."""
    weigh: Callable[[Any], int] | None = None
    """How many calls a request counts as. May raise Refused. None: one."""

    @cached_property
    def decoder(self) -> msgspec.json.Decoder[Struct]:
        """Decodes a request in the canonical form."""
        return msgspec.json.Decoder(self.request)

    async def decode_in_turns(self, params: Raw, turns: LoopTurns) -> Struct:
        """The request in a JSON object, decoded in several turns if it is large and not in canonical form.

        Such a batch is decoded command by command. Raises Refused, which names the member with a wrong type.
        """
        await turns.wait()
        try:
            return self.decoder.decode(params)
        except (msgspec.ValidationError, RecursionError):
            if self.request is BatchRequest:
                return await _decode_batch(params, turns)
        await turns.wait()
        repaired = Raw(canonical(params, self.request))
        await turns.wait()
        return decode(self.decoder, repaired)


def decode(decoder: msgspec.json.Decoder[T], text: Raw, place: str = "$") -> T:
    """A typed value of a JSON object. Raises Refused, which names the member with a wrong type.

    `place` is where the object is in the request.
    """
    try:
        try:
            return decoder.decode(text)
        except msgspec.ValidationError:
            return decoder.decode(canonical(text, decoder.type))
    except msgspec.ValidationError as error:
        raise Refused(bad_request(_detail(str(error), place))) from None
    except RecursionError:
        raise Refused(bad_request("nested too deeply")) from None


class _RawBatch(Struct):
    """A batch whose commands are not decoded."""

    commands: Annotated[list[Raw], Meta(max_length=CALLS_LIMIT)]
    parallel: bool | None = None


_raw_batch = msgspec.json.Decoder(_RawBatch)
_command = msgspec.json.Decoder(BatchCommand | None)


async def _decode_batch(params: Raw, turns: LoopTurns) -> BatchRequest:
    batch = decode(_raw_batch, params)
    commands: list[BatchCommand | None] = []
    for number, text in enumerate(batch.commands):
        await turns.wait()
        commands.append(decode(_command, text, f"$.commands[{number}]"))
    return BatchRequest(commands, bool(batch.parallel))


def too_many_calls(subject: str) -> Refusal:
    """Error 107 with the limit of calls in one request."""
    return bad_request(f"more than {CALLS_LIMIT} {subject}")


def api_error(refusal: Refusal) -> ApiError:
    """A refusal as the API returns it."""
    return ApiError(refusal.code, refusal.message)


def begin(call: Callable[[*Items], T | Later[T]], *items: *Items) -> T | Refusal | Later[T | Refusal]:
    """The result of `call(*items)`, or what to wait for. Every exception becomes a refusal.

    Errors of the server are logged. Their refusal says nothing about them, except which nodes did not answer.
    """
    try:
        outcome = call(*items)
    except Exception as error:  # noqa: BLE001 - it is logged
        return _refusal_of(error)
    if not isinstance(outcome, Pending):
        return outcome
    return outcome.catch(_refusal_of) if isinstance(outcome, EagerFuture) else _finish(outcome)


async def _finish(call: Coroutine[Any, Any, T]) -> T | Refusal:
    try:
        return await call
    except Exception as error:  # noqa: BLE001 - it is logged
        return _refusal_of(error)


def _refusal_of(error: Exception) -> Refusal:
    match error:
        case Refused():
            return error.refusal
        case Unanswered():
            log.warning("api_call_failed", error=str(error))
            return errors.because(errors.INTERNAL_ERROR, str(error))
        case EngineError():
            log.warning("api_call_failed", error=str(error))
        case _:
            log.error("api_call_crashed", exc_info=error)
    return errors.INTERNAL_ERROR


async def attempt_in_turn(
    turns: LoopTurns, call: Callable[[Item], T | Later[T]], items: Iterable[Item]
) -> list[T | Refusal]:
    """The results or refusals of `call(item)`, one item after the other."""
    results: list[T | Refusal] = []
    for item in items:
        if not turns.take():  # calls to an engine in memory never yield to the loop by themselves
            await turns.wait()
        outcome = begin(call, item)
        results.append(await outcome if isinstance(outcome, Pending) else outcome)
    return results


async def attempt_together(
    turns: LoopTurns, call: Callable[[Item], T | Later[T]], items: Sequence[Item]
) -> list[T | Refusal]:
    """The results or refusals of `call(item)`, which run concurrently and begin in the order of the items.

    Nothing is kept of a call until one waits: with an engine in memory none does.
    """
    results: list[T | Refusal] = []
    for number, item in enumerate(items):
        if not turns.take():
            await turns.wait()
        outcome = begin(call, item)
        if isinstance(outcome, Pending):
            return results + await _Concurrent(turns).outcomes(outcome, call, items[number + 1 :])
        results.append(outcome)
    return results


class _Concurrent:
    """Calls of one request, of which at most CONCURRENT_CALLS run. Only a coroutine gets a task.

    The mutable state is how many calls run, and the future that wakes the request when one ends.
    """

    def __init__(self, turns: LoopTurns) -> None:
        self._turns = turns
        self._running = 0
        self._ended: asyncio.Future[None] | None = None

    async def outcomes(
        self, first: Later[T | Refusal], call: Callable[[Item], T | Later[T]], items: Sequence[Item]
    ) -> list[T | Refusal]:
        """The outcome of a call that has begun, and those of the calls that follow it."""
        outcomes: list[T | Refusal | EagerFuture[T | Refusal] | asyncio.Task[T | Refusal]] = []
        try:
            outcomes.append(self._run(first))
            for item in items:
                if self._running >= CONCURRENT_CALLS:
                    await self._wait(CONCURRENT_CALLS - 1)
                if not self._turns.take():
                    await self._turns.wait()
                outcome = begin(call, item)
                outcomes.append(self._run(outcome) if isinstance(outcome, Pending) else outcome)
            await self._wait(0)
        except BaseException:
            for running in outcomes:
                if isinstance(running, _Running):
                    running.cancel()
            raise
        return [ended.result() if isinstance(ended, _Running) else ended for ended in outcomes]

    def _run(self, call: Later[T | Refusal]) -> EagerFuture[T | Refusal] | asyncio.Task[T | Refusal]:
        running = call if isinstance(call, EagerFuture) else asyncio.create_task(call)
        self._running += 1
        running.add_done_callback(self._end)
        return running

    def _end(self, _ended: object) -> None:
        self._running -= 1
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    async def _wait(self, at_most: int) -> None:
        """Wait until at most so many calls run."""
        while self._running > at_most:
            self._ended = asyncio.get_running_loop().create_future()
            await self._ended


_Running = (EagerFuture, asyncio.Task)


def _detail(message: str, place: str) -> str:
    """Msgspec's message as the end of a sentence: "expected `str`, got `int` at `$.channel`"."""
    reason, found, member = message.partition(" - at `$")
    reason = reason[:1].lower() + reason[1:]
    if not found:
        return reason if place == "$" else f"{reason} at `{place}`"
    return f"{reason} at `{place}{member}"
