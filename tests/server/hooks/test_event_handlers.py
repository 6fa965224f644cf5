"""Handlers of the embedding application: what is called with which events, and what a failure does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

import pytest
from structlog.testing import capture_logs

from tests.server.hooks.lifecycle_events import event, events
from tests.server.served_node import until
from tests.support.timing import SOON
from tocsin_server.core.delivery import Outcome, Result
from tocsin_server.core.lifecycle import LifecycleEvent
from tocsin_server.hooks.event_handlers import HANGING, THREADS, EventHandlers, HandlerSubscriber
from tocsin_server.hooks.subscriber import Subscriber


async def test_an_async_function_gets_the_events() -> None:
    got: list[Sequence[LifecycleEvent]] = []

    async def attendance(batch: Sequence[LifecycleEvent]) -> None:
        await asyncio.sleep(0)
        got.append(batch)

    handler = HandlerSubscriber(attendance)
    async with handler.open():
        assert await handler.deliver("d1", events(3)) == Outcome(Result.DELIVERED)
    assert [[one.id for one in batch] for batch in got] == [["e0", "e1", "e2"]]
    assert handler.name == "handlers.attendance"


async def test_a_plain_function_runs_in_a_thread() -> None:
    """So it may block, and the event loop goes on."""
    got: list[tuple[str, bool]] = []

    def attendance(batch: Sequence[LifecycleEvent]) -> None:
        got.append((batch[0].id, threading.current_thread() is threading.main_thread()))

    handler = HandlerSubscriber(attendance)
    async with handler.open():
        assert (await handler.deliver("d1", events(1))).result is Result.DELIVERED
    assert got == [("e0", False)]


@pytest.mark.parametrize("is_plain", [True, False])
@pytest.mark.parametrize(
    "error", [RuntimeError("a fault"), TimeoutError(), KeyError("x"), asyncio.CancelledError()]
)
async def test_an_exception_is_logged_and_the_events_come_again(error: Exception, is_plain: bool) -> None:
    """Its own TimeoutError is not taken for that of the call, nor its CancelledError for that of the node.

    The latter comes of a task of the function that was cancelled, as by a library's pool that is closed.
    """

    def plain(_: Sequence[LifecycleEvent]) -> None:
        raise error

    async def asynchronous(_: Sequence[LifecycleEvent]) -> None:
        raise error

    handler = HandlerSubscriber(plain if is_plain else asynchronous)
    with capture_logs() as logs:
        async with handler.open():
            outcome = await handler.deliver("d1", events(1))
    assert outcome == Outcome(Result.FAILED, "the function raised")
    assert [line["event"] for line in logs] == ["event_handler_raised"]


async def test_an_async_function_that_hangs_is_cancelled() -> None:
    cancelled = False

    async def hangs(_: Sequence[LifecycleEvent]) -> None:
        nonlocal cancelled
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled = True
            raise

    handler = HandlerSubscriber(hangs, seconds=0.01)
    async with handler.open():
        outcome = await handler.deliver("d1", events(1))
    assert outcome == Outcome(Result.UNREACHABLE, "the call did not return within 0.01 s")
    assert cancelled


async def test_an_async_function_that_ignores_its_cancellation_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Such calls are bounded in number. Once they end, the next call is made."""
    monkeypatch.setattr("tocsin_server.cancellation.CANCEL_SECONDS", 0.005)
    released = asyncio.Event()

    async def hangs(_: Sequence[LifecycleEvent]) -> None:
        while not released.is_set():
            with suppress(asyncio.CancelledError):
                await released.wait()

    handler = HandlerSubscriber(hangs, seconds=0.005)
    with capture_logs() as logs:
        async with asyncio.timeout(SOON), handler.open():
            for _ in range(THREADS):
                outcome = await handler.deliver("d1", events(1))
                assert outcome == Outcome(Result.UNREACHABLE, "the call did not return within 0.005 s")
            assert await handler.deliver("d1", events(1)) == HANGING
            released.set()
            await until(lambda: not handler._left)
            assert (await handler.deliver("d1", events(1))).result is Result.DELIVERED
    assert [(line["event"], line["subscriber"]) for line in logs] == [
        ("event_handler_ignores_cancellation", "handlers.hangs")
    ] * THREADS


async def test_plain_functions_that_hang_are_bounded_in_number() -> None:
    """Once they return, the next call is made."""
    released, calls = threading.Event(), 0

    def hangs(_: Sequence[LifecycleEvent]) -> None:
        nonlocal calls
        calls += 1
        released.wait()

    handler = HandlerSubscriber(hangs, seconds=0.005)
    async with handler.open():
        for _ in range(THREADS + 3):
            outcome = await handler.deliver("d1", events(1))
        assert outcome == HANGING
        await until(lambda: calls == THREADS)
        released.set()
        await until(lambda: handler._threads.busy_count == 0)
        handler._seconds = SOON
        assert (await handler.deliver("d1", events(1))).result is Result.DELIVERED


async def test_a_call_that_is_cancelled_ends() -> None:
    """As when a caller no longer waits for it."""
    began = asyncio.Event()

    async def hangs(_: Sequence[LifecycleEvent]) -> None:
        began.set()
        await asyncio.Event().wait()

    handler = HandlerSubscriber(hangs)
    async with handler.open():
        task = asyncio.create_task(handler.deliver("d1", events(1)))
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_more_parts_than_threads_wait_for_one() -> None:
    """While calls return, none of them counts as hanging."""
    handler = HandlerSubscriber(lambda _: time.sleep(0.001), name="slow")
    async with handler.open():
        calls = (handler.deliver("d1", events(1)) for _ in range(4 * THREADS))
        assert {outcome.result for outcome in await asyncio.gather(*calls)} == {Result.DELIVERED}
        assert handler._threads.count <= THREADS


async def test_a_thread_that_cannot_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may refuse threads for a while."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    handler = HandlerSubscriber(lambda _: None, name="rooms")
    async with handler.open():
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            for _ in range(THREADS + 1):
                assert (await handler.deliver("d1", events(1))).result is Result.FAILED
        assert handler._threads.busy_count == 0
        assert (await handler.deliver("d1", events(1))).result is Result.DELIVERED


def test_a_handler_is_for_types_and_channels() -> None:
    added: list[Subscriber] = []
    handlers = EventHandlers(added.append, ("connected", "occupied"))

    @handlers("occupied", "state_lost", channels=["chat:*"], name="rooms")
    def _rooms(_: Sequence[LifecycleEvent]) -> None:
        pass

    (rooms,) = added
    assert rooms.name == "handlers.rooms"
    assert rooms.wants(event(1, kind="occupied", channel="chat:1"))
    assert rooms.wants(event(1, kind="state_lost"))
    assert not rooms.wants(event(1, kind="occupied", channel="news"))
    assert not rooms.wants(event(1, kind="connected"))


def test_a_handler_for_events_that_are_not_recorded_is_refused() -> None:
    """It would never be called."""
    with pytest.raises(ValueError, match=r"events\.types is empty"):
        EventHandlers(lambda _: None, ())("connected")
    with pytest.raises(ValueError, match=r"events\.types has not 'vacated'"):
        EventHandlers(lambda _: None, ("connected",))("vacated")


def test_a_handler_needs_a_name() -> None:
    """It is the same on all nodes, and after a restart."""
    with pytest.raises(ValueError, match="needs a name"):
        HandlerSubscriber(lambda _: None)
    assert HandlerSubscriber(lambda _: None, name="rooms").name == "handlers.rooms"
