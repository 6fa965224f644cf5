"""Eager futures: steps and callbacks run in the call that ends the future, and a task may wait for it."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from tocsin_server.eager_future import EagerFuture


def refuse(_result: object) -> int:
    """A step that fails."""
    raise ValueError("refused")


def len_of_text(error: Exception) -> int:
    """A step for an exception."""
    return len(str(error))


def as_text(value: object) -> str:
    """A step that changes what it gets."""
    return f"<{value}>"


def note_end(seen: list[str], error: BaseException | None) -> None:
    """A step for any end."""
    seen.append(f"end: {error}")


def test_steps_run_in_their_order_in_the_call_that_sets_the_result() -> None:
    """A layer that is called later on the way back adds its step later."""
    future: EagerFuture[int] = EagerFuture()
    seen: list[str] = []
    future.then(as_text).then(as_text).always(note_end, seen)
    future.add_done_callback(lambda ended: seen.append(str(ended.result())))
    assert not future.done()
    future.set_result(1)
    assert seen == ["end: None", "<<1>>"]


def test_steps_after_the_end_run_at_once() -> None:
    """A command that fails at once has failed before any layer adds a step."""
    future: EagerFuture[int] = EagerFuture()
    future.set_exception(ValueError("early"))
    assert future.then(as_text).catch(as_text).result() == "<early>"
    ended: list[object] = []
    future.add_done_callback(ended.append)
    assert ended == [future]


def test_a_step_may_have_a_context() -> None:
    """Its functions get it first, the one that is called."""
    for ends in ("set_result", "set_exception"):
        future: EagerFuture[object] = EagerFuture()
        future.then(lambda name, result: f"{name}: {result}", lambda name, error: f"{name}! {error}", "step")
        getattr(future, ends)(ValueError("one"))
        assert future.then(as_text).result() == ("<step: one>" if ends == "set_result" else "<step! one>")


def test_an_exception_passes_steps_for_results_until_one_catches_it() -> None:
    """An exception of a step is the exception of the future, and a step may replace it."""
    future: EagerFuture[int] = EagerFuture()
    seen: list[str] = []
    future.then(refuse).then(lambda _: seen.append("no")).always(note_end, seen)
    caught = future.catch(as_text).then(as_text)
    future.set_result(1)
    assert (caught.result(), seen) == ("<<refused>>", ["end: refused"])
    other: EagerFuture[int] = EagerFuture()
    other.then(refuse)
    other.set_result(1)
    assert isinstance(other.exception(), ValueError)
    both: EagerFuture[int] = EagerFuture()
    both.set_exception(ValueError("early"))
    assert both.then(refuse, len_of_text).result() == len("early")
    with pytest.raises(ValueError, match="refused"):
        other.result()


def test_nothing_catches_a_cancellation() -> None:
    """The steps for any end run, and what comes later changes nothing."""
    future: EagerFuture[int] = EagerFuture()
    seen: list[str] = []
    future.then(as_text, as_text).catch(as_text).always(note_end, seen)
    assert future.cancel()
    assert not future.cancel()
    assert (future.done(), future.cancelled(), seen) == (True, True, ["end: "])
    with pytest.raises(asyncio.CancelledError):
        future.exception()


async def test_a_task_waits_for_the_result_or_the_exception() -> None:
    """As for a future of asyncio."""
    good: EagerFuture[int] = EagerFuture()
    bad: EagerFuture[int] = EagerFuture()
    waiting = [asyncio.ensure_future(future) for future in (good.then(as_text), bad)]
    await asyncio.sleep(0)
    good.set_result(1)
    bad.set_exception(ValueError("refused"))
    text, error = await asyncio.gather(*waiting, return_exceptions=True)
    assert text == "<1>"
    assert isinstance(error, ValueError)


async def test_a_task_that_is_cancelled_cancels_the_future() -> None:
    """A queued command is not sent if its caller does not wait any longer."""
    future: EagerFuture[int] = EagerFuture()
    waiting = asyncio.ensure_future(future)
    await asyncio.sleep(0)
    waiting.cancel()
    assert future.done(), "not only when the task runs"
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert future.cancelled()


async def test_an_exception_of_a_callback_is_logged_and_hinders_no_other() -> None:
    """The loop reports it, as for callbacks of its own futures."""
    contexts: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))
    future: EagerFuture[int] = EagerFuture()
    ended: list[object] = []
    future.add_done_callback(refuse)
    future.add_done_callback(ended.append)
    future.set_result(1)
    assert ended == [future]
    assert [str(context["exception"]) for context in contexts] == ["refused"]


async def test_a_failed_future_is_freed_without_the_garbage_collector() -> None:
    """The traceback of its exception does not lead back to it."""
    gc.collect()
    gc.disable()
    try:
        assert (await _fail())() is None
    finally:
        gc.enable()


class _Error(ValueError):
    """An exception to which a weak reference is possible."""


async def _fail() -> weakref.ref[_Error]:
    future: EagerFuture[int] = EagerFuture()

    def fail(_result: int) -> None:
        raise _Error

    future.then(fail)
    asyncio.get_running_loop().call_soon(future.set_result, 1)
    try:
        await future
    except _Error as error:
        return weakref.ref(error)
    raise AssertionError
