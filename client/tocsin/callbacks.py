"""The callbacks of a caller. They are called in order, one at a time."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypedDict

from .errors import TocsinError
from .models import Event, Joined, Left, Publication, StateChanged, Subscribed, Unsubscribed

Callback = Callable[[Any], Any]
TokenProvider = Callable[[], Awaitable[str]]
logger = logging.getLogger("tocsin")


class Callbacks(TypedDict, total=False):
    """Plain or async functions of one argument: Publication, Subscribed, Unsubscribed, Joined or Left."""

    on_publication: Callback
    on_subscribed: Callback
    on_unsubscribed: Callback
    on_join: Callback
    on_leave: Callback


class ClientCallbacks(Callbacks, total=False):
    """The same callbacks, and one for each StateChanged of the connection."""

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
    """Index callbacks by the type of their event. Raises ``TypeError`` for an unknown name."""
    unknown = callbacks.keys() - _EVENTS.keys()
    if unknown:
        raise TypeError(f"unknown argument {min(unknown)!r}: expected one of {', '.join(_EVENTS)}")
    return {_EVENTS[name]: callback for name, callback in callbacks.items() if callable(callback)}


async def fetch_token(provider: TokenProvider) -> str:
    """Await a token, without surrounding white space. Raises ``TypeError`` for bytes or None."""
    token: object = await provider()
    if not isinstance(token, str):
        raise TypeError(f"get_token must return a string, and returned {type(token).__name__}")
    return token.strip()


async def dispatch(events: AsyncIterator[Event], callbacks: dict[type, Callback]) -> None:
    """Call the matching callback for each event, until the events end."""
    try:
        async for event in events:
            await call(callbacks.get(type(event)), event)
    except TocsinError as error:  # the subscription ended
        if Unsubscribed not in callbacks:
            logger.warning("subscription_ended error=%s", error)


async def call(callback: Callback | None, event: Event) -> None:
    """Call one callback, and await it if it is async. An exception is logged, and not raised."""
    if callback is None:
        return
    try:
        result = callback(event)
        if inspect.isawaitable(result):
            await result
    except Exception:
        logger.exception("callback_failed event=%s", type(event).__name__)
