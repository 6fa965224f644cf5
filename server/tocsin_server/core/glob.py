r"""Glob patterns for channel names, with the syntax of Centrifugo's `channels` method.

`*` matches any characters, `?` one, `[abc]` one of these, `[!a-c]` one that is not among these, `{one,other}`
any of these patterns. `\` escapes the next character. An unclosed bracket or brace matches itself.
"""

from __future__ import annotations

import re
from fnmatch import translate


def compile_glob(pattern: str) -> re.Pattern[str]:
    """Return an expression whose `fullmatch` accepts the names that the pattern matches."""
    return re.compile(_alternatives(pattern))


_TOKEN = re.compile(r"\\.|\[!?\]?[^\]]*\]|[{},]|[^\\\[{},]+|.", re.DOTALL)
"""An escaped character, a set, a brace or comma, or the text between them."""


def _alternatives(pattern: str) -> str:
    """Translate a pattern to a regular expression, with the alternatives of open braces on a stack."""
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
    """Translate a part without braces, as `fnmatch` does, without the end marker it adds."""
    return translate(part).removesuffix(r"\Z").removesuffix(r"\z")
