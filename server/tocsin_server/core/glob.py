r"""Globs of channel names, as Centrifugo's `channels` has them (pure).

`*` any characters, `?` one, `[abc]` and `[!a-c]` one of these, or none of them, `{one,other}` any of these
patterns, and `\` takes the next character as it is. What is never closed stands for itself.
"""

from __future__ import annotations

import re
from fnmatch import translate


def compile_glob(pattern: str) -> re.Pattern[str]:
    """What `fullmatch`es the names that the pattern is for."""
    return re.compile(_alternatives(pattern))


_TOKEN = re.compile(r"\\.|\[!?\]?[^\]]*\]|[{},]|[^\\\[{},]+|.", re.DOTALL)
"""An escaped character, a set, a brace or comma, or whatever lies between them."""


def _alternatives(pattern: str) -> str:
    """A regular expression; braces are opened and closed on a stack of alternatives that are under way."""
    parts = _TOKEN.findall(pattern)
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
            within[-1] += re.escape(part[1:]) if part[0] == "\\" and len(part) > 1 else _plain(part)
    return open_braces[0][0]


def _closed(parts: list[str]) -> set[int]:
    """Where braces open that are closed later."""
    waiting: list[int] = []
    closed: set[int] = set()
    for number, part in enumerate(parts):
        if part == "{":
            waiting.append(number)
        elif part == "}" and waiting:
            closed.add(waiting.pop())
    return closed


def _plain(part: str) -> str:
    """Python's own translation, without the end it adds."""
    return translate(part).removesuffix(r"\Z").removesuffix(r"\z")
