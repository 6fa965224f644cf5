"""How callbacks are chosen and called."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tocsin import Joined, Publication, SubscriptionEnded, Unsubscribed
from tocsin.callbacks import by_event, call, dispatch
from tocsin.models import Event

ENDED = SubscriptionEnded("news", 2000, "server unsubscribe")


async def events(*items: Event, error: Exception | None = None) -> AsyncIterator[Event]:
    for item in items:
        yield item
    if error is not None:
        raise error


def test_callbacks_are_indexed_by_the_type_of_their_event() -> None:
    assert by_event({"on_publication": print, "on_join": repr}) == {Publication: print, Joined: repr}


def test_an_unknown_callback_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="unknown argument 'on_message'"):
        by_event({"on_message": print})  # type: ignore[arg-type]


async def test_async_callbacks_are_awaited_one_after_the_other() -> None:
    order: list[Any] = []

    async def on_publication(publication: Publication) -> None:
        order.append(("begin", publication.data))
        await asyncio.sleep(0)
        order.append(("end", publication.data))

    await dispatch(events(Publication("news", 1), Publication("news", 2)), {Publication: on_publication})
    assert order == [("begin", 1), ("end", 1), ("begin", 2), ("end", 2)]


async def test_an_event_without_a_callback_is_ignored() -> None:
    await call(None, Publication("news", 1))


async def test_the_end_of_a_subscription_is_logged_unless_a_callback_reports_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await dispatch(events(error=ENDED), {Unsubscribed: print})
    assert caplog.text == ""
    await dispatch(events(error=ENDED), {Publication: print})
    assert "subscription_ended" in caplog.text
