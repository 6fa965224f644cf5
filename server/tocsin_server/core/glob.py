r"""Glob patterns for channel names, with the syntax of Centrifugo's `channels` method.

`*` matches any characters, `?` one, `[abc]` one of these, `[!a-c]` one that is not among these, `{one,other}`
any of these patterns. `\` escapes the next character. An unclosed bracket or brace matches itself. Matching
takes time in proportion to the lengths of pattern and name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tocsin_server.config.patterns import LinearPattern

LENGTH_LIMIT = 1000
"""Characters of a glob that a caller sends."""

_ANY_CHARACTER = "(?s:.)"
_NO_CHARACTER = r"[^\x00-\x{10FFFF}]"


class Glob:
    """A compiled glob."""

    __slots__ = ("_pattern",)

    def __init__(self, glob: str) -> None:
        self._pattern = LinearPattern(_alternatives(glob.encode(errors="replace").decode()))

    def matches(self, name: str) -> bool:
        """Whether the glob matches the whole name."""
        return self._pattern.matches(name)


_TOKEN = re.compile(r"\\.|\[!?+\]?+[^\]]*\]|[*?{},]|[^\\\[*?{},]+|.", re.DOTALL)
"""An escaped character, a set, a character with a meaning, or the text between them."""


def _alternatives(glob: str) -> str:
    """Translate a glob to a regular expression, with the alternatives of open braces on a stack."""
    parts = _TOKEN.findall(glob)
    closing = _closed(parts)
    open_braces: list[list[str]] = [[""]]
    for number, part in enumerate(parts):
        within = open_braces[-1]
        if part == "{" and number in closing:
            open_braces.append([""])
        elif part == "}" and len(open_braces) > 1:
            open_braces.pop()
            open_braces[-1][-1] += f"(?:{'|'.join(within)})"
        elif part == "," and len(open_braces) > 1:
            within.append("")
        else:
            within[-1] += _plain(part)
    return open_braces[0][0]


def _closed(parts: list[str]) -> set[int]:
    """Return the indexes of opening braces that are closed later."""
    opened: list[int] = []
    closed: set[int] = set()
    for number, part in enumerate(parts):
        if part == "{":
            opened.append(number)
        elif part == "}" and opened:
            closed.add(opened.pop())
    return closed


def _plain(part: str) -> str:
    """Translate a part without braces."""
    if part == "*":
        return f"{_ANY_CHARACTER}*"
    if part == "?":
        return _ANY_CHARACTER
    if len(part) > 1 and part[0] == "\\":
        return re.escape(part[1:])
    return _set(part[1:-1]) if len(part) > 1 and part[0] == "[" else re.escape(part)


def _set(content: str) -> str:
    """Translate a set. A range whose end comes before its start has no characters."""
    is_negated = content.startswith("!")
    ranges = "".join(
        f"{re.escape(first)}-{re.escape(last)}"
        for first, last in _ranges(content[is_negated:])
        if first <= last
    )
    if not ranges:
        return _ANY_CHARACTER if is_negated else _NO_CHARACTER
    return f"[{'^' if is_negated else ''}{ranges}]"


def _ranges(content: str) -> Iterator[tuple[str, str]]:
    """The first and last character of each range; a single character is a range of one."""
    position = 0
    while position < len(content):
        first = last = content[position]
        if content[position + 1 : position + 2] == "-" and position + 2 < len(content):
            last = content[position + 2]
            position += 2
        position += 1
        yield first, last
