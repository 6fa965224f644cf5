"""What a caller wants to be called with, and the calling: in order, one at a time, never from the reader."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, TypedDict

from .errors import TocsinError
from .values import Event, Joined, Left, Publication, StateChanged, Subscribed, Unsubscribed

Callback = Callable[[Any], Any]
logger = logging.getLogger("tocsin")


class Callbacks(TypedDict, total=False):
    """Plain or async functions of one argument: a Publication, Subscribed, Unsubscribed, Joined or Left."""

    on_publication: Callback
    on_subscribed: Callback
    on_unsubscribed: Callback
    on_join: Callback
    on_leave: Callback


class ClientCallbacks(Callbacks, total=False):
    """The same, and one that hears every StateChanged of the connection."""

    on_state: Callback


_EVENTS: dict[str, type] = {
    "on_publication": Publication,
    "on_subscribed": Subscribed,
    "on_unsubscribed": Unsubscribed,
    "on_join": Joined,
    "on_leave": Left,
    "on_state": StateChanged,
}


def by_event(callbacks: Callbacks | ClientCallbacks) -> dict[type, Callback]:
    """Sort callbacks by what they are called with; ``TypeError`` for a name that is none."""
    unknown = callbacks.keys() - _EVENTS.keys()
    if unknown:
        raise TypeError(f"unknown argument {min(unknown)!r}: expected one of {', '.join(_EVENTS)}")
    return {_EVENTS[name]: callback for name, callback in callbacks.items() if callable(callback)}


async def dispatch(events: AsyncIterator[Event], callbacks: dict[type, Callback]) -> None:
    """Call for each event until they end; awaits what is a coroutine, logs what fails."""
    try:
        async for event in events:
            await call(callbacks.get(type(event)), event)
    except TocsinError as error:  # the end of the subscription
        if Unsubscribed not in callbacks:
            logger.warning("%s", error)


async def call(callback: Callback | None, event: Event) -> None:
    """Call one callback; its failure is logged and ends nothing."""
    if callback is None:
        return
    try:
        result = callback(event)
        if inspect.isawaitable(result):
            await result
    except Exception:
        logger.exception("a callback for %s failed", type(event).__name__)
