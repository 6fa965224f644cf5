"""Why a back end did not answer."""

from __future__ import annotations


class ProxyFault(Exception):
    """A call has no answer that counts. The message is a clause for the operator, without any payload.

    Its subject is the back end: "it answered with status 500".
    """

    def __init__(self, reason: str, label: str) -> None:
        """`label` is the reason's name in metrics."""
        super().__init__(reason)
        self.label = label
