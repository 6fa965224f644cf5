"""Whether a secret or an API key can be guessed, in clauses (pure)."""

from __future__ import annotations

import math
from collections import Counter

SECRET_BYTES = 32
"""HS256 requires a key at least as long as its hash (RFC 7518 §3.2)."""

KEY_BYTES = 16
"""128 bits in any encoding that has eight bits for each byte are the least that a random key has."""

LEAST_BITS = 2.5
"""Random hexadecimal digits have 4 bits a character; words and repetitions have less variety than that."""

WELL_KNOWN = (
    "secret",
    "changeme",
    "change-me",
    "password",
    "passwort",
    "test",
    "example",
    "default",
    "admin",
)
WELL_KNOWN_PARTS = (
    "my-secret",
    "my_secret",
    "your-secret",
    "your_secret",
    "keyboard cat",
    "shhhh",
    "that only you know",
    "better set in the environment",
    "a secret of 32 random bytes",
    "a long random text",
    "a key of the news desk",
    "a secret of the back end",
    "a-key-of-your-own",
)
"""What documents and templates have where a secret belongs: of others, then of this repository."""


def weakness(secret: str, least_bytes: int) -> str:
    """Why a secret can be guessed, as a clause with "it" as its subject. Empty if nothing speaks for that."""
    if (length := len(secret.encode())) < least_bytes:
        return f"it has {length} bytes, and must have {least_bytes}"
    plain = secret.lower()
    is_word = plain.strip("-_ .!0123456789") in WELL_KNOWN
    if is_word or _has_digits_in_order(plain) or any(part in plain for part in WELL_KNOWN_PARTS):
        return "it is, or contains, what documents and templates have in place of a secret"
    if _bits_per_character(secret) < LEAST_BITS:
        return "it repeats few characters"
    return ""


def _has_digits_in_order(text: str) -> bool:
    """Whether it is `1234567890` again and again. Within a random secret a few such digits are chance."""
    return text in "1234567890" * (len(text) // 10 + 1)


def _bits_per_character(text: str) -> float:
    """The entropy of the characters by their frequency: an upper bound of that of the text."""
    counts = Counter(text)
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts.values())
