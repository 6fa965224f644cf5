"""Eager futures: what follows from a result runs in the call that sets it, without a task or a turn.

    pending --set_result() | set_exception() | cancel()--> steps, in their order --> done --> callbacks

Each layer that a result passes on its way back adds its steps to the same future. So a request that waits
for one reply of Redis costs neither a coroutine nor a future for each layer.

The mutable state is that of each future. Only its own methods change it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar, cast, overload

C = TypeVar("C")
T = TypeVar("T")
U = TypeVar("U")

NO_CONTEXT: Any = object()
"""The context of a step that has none."""

Step = tuple[
    Callable[..., Any] | None,
    Callable[..., Any] | None,
    Callable[..., object] | None,
    Any,
]
"""The functions for a result, for an exception, and for any end: the first and second, or the third.

Behind them is their first argument, unless it is NO_CONTEXT.
"""

_NO_STEPS: list[Step] = []
"""The steps of a future that is done. Nothing is added to it."""

_AWAITED = RuntimeError("the future has been awaited")


class EagerFuture(Generic[T]):
    """A result that is not there yet, in one thread.

    It can be awaited like an `asyncio.Future`. A task that is cancelled meanwhile cancels it.

    A step may have a context, which its functions get as their first argument: cheaper than a `partial`.
    """

    __slots__ = ("_callbacks", "_exception", "_is_done", "_result", "_steps")

    def __init__(self) -> None:
        self._is_done = False
        self._steps: list[Step] = []
        self._callbacks: tuple[Callable[[EagerFuture[T]], object], ...] = ()
        self._result: Any = None
        self._exception: BaseException | None = None

    # --------------------------------------------------------------------------------------------- the layers

    @overload
    def then(
        self, convert: Callable[[T], U], catch: Callable[[Exception], U] | None = None
    ) -> EagerFuture[U]: ...

    @overload
    def then(
        self, convert: Callable[[C, T], U], catch: Callable[[C, Exception], U] | None, context: C
    ) -> EagerFuture[U]: ...

    def then(
        self, convert: Callable[..., U], catch: Callable[..., U] | None = None, context: Any = NO_CONTEXT
    ) -> EagerFuture[U]:
        """Replace the result by `convert(result)`, and an exception by `catch(exception)`.

        What either of them raises is the exception from then on. A cancellation stays one. Returns this
        future.
        """
        step = (convert, catch, None, context)
        if self._is_done:
            self._run((step,))
        else:
            self._steps.append(step)
        return self  # type: ignore[return-value]

    def catch(self, convert: Callable[[Exception], U]) -> EagerFuture[T | U]:
        """Replace only an exception, as `then` does. Returns this future."""
        step = (None, convert, None, NO_CONTEXT)
        if self._is_done:
            self._run((step,))
        else:
            self._steps.append(step)
        return self  # type: ignore[return-value]

    def always(self, follow: Callable[[C, BaseException | None], object], context: C) -> EagerFuture[T]:
        """Call `follow(context, exception)` at any end, even a cancellation; without an exception with None.

        Returns this future.
        """
        step = (None, None, follow, context)
        if self._is_done:
            self._run((step,))
        else:
            self._steps.append(step)
        return self

    # ---------------------------------------------------------------------------- the interface of a future

    def done(self) -> bool:
        """Whether there is a result or an exception, or the future was cancelled."""
        return self._is_done

    def cancelled(self) -> bool:
        """Whether the future was cancelled."""
        return isinstance(self._exception, asyncio.CancelledError)

    def result(self) -> T:
        """The result. Raises the exception if there is one. Only if the future is done."""
        if self._exception is None:
            return cast("T", self._result)
        try:
            raise self._exception
        finally:
            del self  # the traceback of the exception has this frame

    def exception(self) -> BaseException | None:
        """The exception, or None. Raises CancelledError if the future was cancelled. Only if it is done."""
        if self.cancelled():
            self.result()
        return self._exception

    def set_result(self, result: Any) -> None:
        """Set what the first step gets. Only if the future is not done."""
        self._result = result
        self._end()

    def set_exception(self, exception: BaseException) -> None:
        """Let the first step get an exception. Only if the future is not done."""
        self._exception = exception
        self._end()

    def cancel(self, msg: object = None) -> bool:
        """Cancel the future. Does nothing and returns False if it is done."""
        if self._is_done:
            return False
        self.set_exception(asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg))
        return True

    def add_done_callback(self, callback: Callable[[EagerFuture[T]], object]) -> None:
        """Call `callback(self)` once all steps have run; now if they have. No step may be added later."""
        if self._is_done:
            self._call(callback)
        else:
            self._callbacks += (callback,)

    def __await__(self) -> Generator[Any, None, T]:
        """Wait for the result. It can be awaited once: then its exception is released.

        The exception's traceback has the frames of the tasks that awaited it, which may refer to this future.
        """
        if not self._is_done:
            woken = _Wait(self)
            self.add_done_callback(lambda _: None if woken.done() else woken.set_result(None))
            try:
                yield from woken
            except BaseException:
                self.cancel()
                raise
        if self._exception is None:
            return cast("T", self._result)
        exception, self._exception = self._exception, _AWAITED
        try:
            raise exception
        finally:
            del exception  # the traceback of the exception has this frame

    # ---------------------------------------------------------------------------------------------------- end

    def _end(self) -> None:
        self._is_done = True
        steps, self._steps = self._steps, _NO_STEPS
        self._run(steps)
        if self._callbacks:
            callbacks, self._callbacks = self._callbacks, ()
            for callback in callbacks:
                self._call(callback)

    def _run(self, steps: list[Step] | tuple[Step]) -> None:
        for on_result, on_exception, on_end, context in steps:
            try:
                if on_end is not None:
                    on_end(context, self._exception)
                elif self._exception is None:
                    if on_result is not None:
                        value = self._result
                        self._result = (
                            on_result(value) if context is NO_CONTEXT else on_result(context, value)
                        )
                elif on_exception is not None and isinstance(self._exception, Exception):
                    self._result = on_exception(*_given(context), self._exception)
                    self._exception = None
            except Exception as exception:  # noqa: BLE001 - it is the exception of this future
                self._exception = exception
        del self  # the traceback of the exception has this frame

    def _call(self, callback: Callable[[EagerFuture[T]], object]) -> None:
        """Call a callback. As with asyncio, the loop logs its exception, and the other callbacks run."""
        try:
            callback(self)
        except Exception as exception:  # noqa: BLE001 - it is logged
            context = {"message": "Exception in a callback of a future", "exception": exception}
            asyncio.get_running_loop().call_exception_handler(context)


def _given(context: Any) -> tuple[Any, ...]:
    return () if context is NO_CONTEXT else (context,)


class _Wait(asyncio.Future[None]):
    """What a task waits for that awaits an eager future. A task that is cancelled cancels this first."""

    def __init__(self, awaited: EagerFuture[Any]) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self._awaited = awaited

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel both at once, and not when the task runs: what is queued until then could be sent."""
        is_cancelled = super().cancel(msg)
        if is_cancelled:
            self._awaited.cancel()
        return is_cancelled
