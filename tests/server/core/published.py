"""Publications whose data and tags follow from their epoch and offset, so that clients can check them."""

from __future__ import annotations

import json

from msgspec import Raw

from tocsin_server.protocol.messages import Publication

TEXT = "Ein Gerücht über Äpfel 🍏, Birnen 🍐 und € 3.50"
"""Text whose characters have one to four bytes."""

EVEN = {"key": "parity", "cmp": "eq", "val": "even"}
"""The filter for publications with even numbers."""


def payload(epoch: str, number: int) -> bytes:
    """The data of a publication. Most resemble the one before; every fifth does not."""
    text = TEXT[number % 7 :] + TEXT[: number % 3] if number % 5 else f"🍋{number}" * 9
    return json.dumps([epoch, number, text], ensure_ascii=False, separators=(",", ":")).encode()


def published(epoch: str, number: int, offset: int) -> Publication:
    """A publication with its data and tags."""
    return Publication(Raw(payload(epoch, number)), offset, tags=tags(number))


def tags(number: int) -> dict[str, str]:
    """Its tags."""
    return {"parity": "odd" if number % 2 else "even", "room": str(number % 3)}


def may_be_delta(number: int) -> bool:
    """Whether its publisher permits to deliver it as a delta."""
    return number % 4 != 3
