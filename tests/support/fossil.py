"""Apply Fossil deltas, with the decoder of centrifuge-python: another implementation than the server's."""

from centrifuge import fossil


def apply_delta(base: bytes, delta: bytes) -> bytes:
    """Return what the delta makes of `base`. Raises ValueError if its checksum does not match."""
    result: bytes = fossil.apply_delta(base, delta)  # type: ignore[no-untyped-call]
    return result
