"""Official SDKs with deltas and tags filters: their applications get exactly what was published."""

from collections.abc import Callable
from typing import Any

from tests.conformance.sdks.contract import Sdk
from tests.conformance.test_sdk_recovery import away
from tests.support.api import Api
from tests.support.proxy import Proxy

Name = Callable[[str], str]

WORDS = [
    "Äpfel",
    "🍏",
    "und",
    "Birnen",
    "🍐",
    "zu",
    "3",
    "€",
    "das",
    "Kilo,",
    '"heute"',
    "nur",
    "\\",
    "morgen",
    "{auch}:",
    "[nicht]",
]


def document(number: int) -> dict[str, Any]:
    """A payload. Most resemble the one before; some do not."""
    words = WORDS[number % 5 :] + WORDS[: number % 7] if number % 6 else ["🍋"] * number
    return {"n": number, "words": words, "more": dict.fromkeys(WORDS, number % 3)}


async def test_an_sdk_applies_deltas_also_after_a_recovery(
    proxy: Proxy, sdk: Sdk, api: Api, channel: Name
) -> None:
    """What it missed is whole, and what follows may be deltas to that. No payload differs."""
    deltas = channel("deltas")
    await sdk.connect(proxy.websocket_url)
    await sdk.events.next("connected")
    await sdk.subscribe(deltas, delta="fossil")
    await sdk.events.next("subscribed")

    async def publish(numbers: range) -> None:
        for number in numbers:
            await api.publish(deltas, document(number))

    await publish(range(1, 31))
    first = await sdk.events.take("publication", 30)
    async with away(sdk, proxy):
        await publish(range(31, 41))
    assert (await sdk.events.next("subscribed"))["recovered"]
    missed = await sdk.events.take("publication", 10)
    await publish(range(41, 61))
    events = [*first, *missed, *await sdk.events.take("publication", 20)]
    assert [event["data"] for event in events] == [document(number) for number in range(1, 61)]
    assert [event["offset"] for event in events] == list(range(1, 61))


async def test_an_sdk_gets_what_its_filter_matches(proxy: Proxy, sdk: Sdk, api: Api, channel: Name) -> None:
    """Before, during and after an absence."""
    filtered = channel("filtered")
    await sdk.connect(proxy.websocket_url)
    await sdk.events.next("connected")
    over_three = {"op": "not", "nodes": [{"key": "n", "cmp": "lte", "val": "3"}]}
    await sdk.subscribe(filtered, tags_filter=over_three)
    await sdk.events.next("subscribed")

    async def publish(*numbers: int) -> None:
        for number in numbers:
            await api.publish(filtered, number, tags={"n": str(number)})

    await publish(1, 4, 2, 5)
    events = await sdk.events.take("publication", 2)
    async with away(sdk, proxy):
        await publish(3, 6, 3)
    assert (await sdk.events.next("subscribed"))["recovered"]
    await publish(2, 7)
    events += await sdk.events.take("publication", 2)
    assert [(event["data"], event["offset"]) for event in events] == [(4, 2), (5, 4), (6, 6), (7, 9)]
