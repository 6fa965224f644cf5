"""Regular expressions that match in linear time, by RE2: no expression and no name can keep the node busy.

Python's own expressions try every way to match: `(a+)+$` takes longer than the age of the universe for a
name of 255 letters. RE2 has no lookaround and no back references, since these need such tries.
"""

from __future__ import annotations


class PatternError(ValueError):
    """A text is not an expression that RE2 knows. The message says what is wrong with it."""


class LinearPattern:
    """An expression. Raises PatternError when it is made.

    RE2 is imported when the first expression is made, so that a node without any needs no memory for it.
    """

    __slots__ = ("_compiled",)

    def __init__(self, expression: str) -> None:
        import re2  # noqa: PLC0415 # see the class

        options = re2.Options()
        options.log_errors = False
        try:
            self._compiled = re2.compile(_as_utf8(expression), options)
        except re2.error as error:
            reason = error.args[0]
            text = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
            raise PatternError(text) from None

    def is_found_in(self, text: str) -> bool:
        """Whether the expression matches a part of a text."""
        return self._compiled.search(_as_utf8(text)) is not None

    def matches(self, text: str) -> bool:
        """Whether the expression matches the whole text."""
        return self._compiled.fullmatch(_as_utf8(text)) is not None


def _as_utf8(text: str) -> str:
    """A text that can be encoded: "?" for each half of a surrogate pair."""
    return text if text.isascii() else text.encode(errors="replace").decode()
