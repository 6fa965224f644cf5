"""Calls: one method of the API as a value, and how one is carried out without ever raising."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import msgspec
import structlog
from msgspec import Raw, Struct

from tocsin_server import errors
from tocsin_server.api.types import CALLS_LIMIT, Failure
from tocsin_server.errors import EngineError, Refusal, Refused, Unanswered
from tocsin_server.node.node import Node

SLICE = 500
"""How many calls of one request run before others have their turn: some milliseconds' worth."""

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(frozen=True)
class Method:
    """What is asked, what is answered, and the function between them."""

    call: Callable[[Node, Any], Awaitable[Any]]
    request: type[Struct]
    result: type[Struct]
    is_wrapped: bool = True
    """Whether an answer holds the result under `result`, or is the result."""

    @cached_property
    def _decoder(self) -> msgspec.json.Decoder[Struct]:
        return msgspec.json.Decoder(self.request)

    def read(self, params: Raw) -> Struct:
        """The request that a JSON object says. Raises Refused, naming the member whose type is wrong."""
        return read(self._decoder, params)


def read(decoder: msgspec.json.Decoder[T], text: Raw) -> T:
    """A typed value from a JSON object. Raises Refused, naming the member whose type is wrong."""
    try:
        return decoder.decode(text)
    except msgspec.ValidationError as error:
        raise Refused(bad_request(_in_words(str(error)))) from None
    except RecursionError:
        raise Refused(bad_request("nested too deeply")) from None


def bad_request(detail: str) -> Refusal:
    """Error 107 that says what is bad about the request."""
    return replace(errors.BAD_REQUEST, message=f"{errors.BAD_REQUEST.message}: {detail}")


def too_many_calls(what: str) -> Refusal:
    """Error 107 that says how many calls a request may hold."""
    return bad_request(f"more than {CALLS_LIMIT} {what}")


def failure(refusal: Refusal) -> Failure:
    """A refusal as the API writes it."""
    return Failure(refusal.code, refusal.message)


async def attempt(answer: Awaitable[T]) -> T | Refusal:
    """Await an answer; whatever goes wrong is a refusal.

    What is our fault is logged, and tells the caller nothing but which nodes did not answer.
    """
    try:
        return await answer
    except Refused as error:
        return error.refusal
    except Unanswered as error:
        log.warning("could not answer an API call", error=str(error))
        return replace(errors.INTERNAL_ERROR, message=f"{errors.INTERNAL_ERROR.message}: {error}")
    except EngineError as error:
        log.warning("could not answer an API call", error=str(error))
    except Exception:
        log.exception("an API call failed")
    return errors.INTERNAL_ERROR


async def in_turn(answers: Iterable[Awaitable[T]]) -> list[T]:
    """Await answers of which each begins when the one before has ended."""
    outcomes: list[T] = []
    for number, answer in enumerate(answers, 1):
        outcomes.append(await answer)
        if number % SLICE == 0:
            await asyncio.sleep(0)  # where the engine is in memory nothing else gives way
    return outcomes


async def attempt_in_turn(calls: Sequence[Callable[[], Awaitable[T]]]) -> list[T | Refusal]:
    """The outcomes of calls of which each begins when the one before has ended."""
    return await in_turn(attempt(call()) for call in calls)


async def attempt_together(calls: Sequence[Callable[[], Awaitable[T]]]) -> list[T | Refusal]:
    """The outcomes, in order, of calls that do not wait for each other."""
    outcomes: list[T | Refusal] = []
    for start in range(0, len(calls), SLICE):
        some = calls[start : start + SLICE]
        outcomes += await asyncio.gather(*(attempt(call()) for call in some))
    return outcomes


def _in_words(complaint: str) -> str:
    """What msgspec says, as the end of a sentence: "expected `str`, got `int` at `$.channel`"."""
    return (complaint[:1].lower() + complaint[1:]).replace(" - at ", " at ")
