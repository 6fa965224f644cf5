"""The word list: words that no file of the repository uses, with what to write instead.

`python -m tests.words` (= `make words`) prints each finding as `file:line: word: write …`, and ends with exit
code 1 if there is one. It checks every text file in git, and the files' names. A word is found whole,
in the inflected forms that `FORBIDDEN` names, and also as a part of an identifier: `_let_in`, `isWitness`.
"""

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

TOP = Path(__file__).parents[1]
SKIPPED = ("LICENSE", "*.png", "*.svg")
"""Files that are not ours to write, or not text."""

PERSON = "the client, user, caller, node, operator …"
THING = "a noun of docs/glossary.md, any, all"

FORBIDDEN = {
    "whoever|whomever|whosoever": PERSON,
    "whatever|whatsoever": THING,
    "whichever": "any, each, the first",
    "somebody": PERSON,
    "nobody": "no client, no node …; or turn the sentence around",
    "anybody": "any client, any user …",
    "everybody": "all clients, every subscriber …",
    "anew": "again",
    "no more": "no longer, at most, not another",
    "any more|anymore": "any longer, further",
    "gives? rise|gave rise|giving rise": "cause",
    "(?:see|sees|seen|saw|seeing) to it|sees to": "ensure",
    "at present": "now, currently",
    "what waits": "queued, pending",
    "what is heard": "received publications",
    "as (?:it|they) stands?": "unchanged, as is",
    "lament(?:s|ed|ing)?": "report, log",
    "sing|sings|singing|sang|sung": "publish a probe",
    "surrender(?:s|ed|ing)?": "release",
    "bury|buries|buried|burying": "mark dead, expire",
    "mend(?:s|ed|ing|er)?": "backfill, repair, recover",
    "obey(?:s|ed|ing)?": "execute, follow",
    "heed(?:s|ed|ing|less)?": "follow, respect",
    "wish(?:es|ed|ing)?": "want, request, pending subscription",
    "doubts?|doubted|doubting|doubtful|doubtless": "invalidate, stale",
    "hearers?": "subscriber, receiver",
    "listeners?": "subscriber, handler (an event listener of the DOM may be called so)",
    "whence": "from where",
    "thereby": "so, by this",
    "hitherto": "until now",
    "ought": "should, must",
    "stands? for|stood for": "means, represents",
    "of (?:its|their|his|her) own accord": "by itself, unasked",
    "untold": "not told, without notice",
    "befalls?|befell|befallen": "happens to",
    "perish(?:es|ed|ing)?": "end, fail",
    "households?": "engine handler, session context",
    "residents?": "engine handler",
    "house|houses|housed": "session context, served node",
    "onlookers?": "checking client, observer",
    "witness(?:es|ed|ing)?": "recording handler",
    "stages?|staged": "environment, phase, step",
    "herds?": "mass reconnect",
    "towns?": "fake router",
    "lookouts?": "topology watcher",
    "scouts?|scouted|scouting": "discovery",
    "detours?": "redirect",
    "astray": "interrupted, lost",
    "homeless": "unassigned",
    "newcomers?": "new client, new subscriber",
    "farewells?": "disconnect, last event",
    "goodbyes?|good byes?": "disconnect, close",
    "(?:take|takes|took|taken|taking) leave": "drain, stop",
    "(?:let|lets|letting) in": "authorize, accept",
    "(?:let|lets|letting) go": "release, close",
    "(?:send|sends|sent|sending) away": "disconnect, redirect",
}
"""Each word in its forms (a regular expression; a space is any gap between words); what to write instead."""

SENTENCE_START = "So that"
"""Forbidden with its capital only: `so that` may join two halves of a sentence, and not begin one."""


class Allowed(NamedTuple):
    """An exception: in files that match the pattern, the phrase may be written, for this reason."""

    files: str
    phrase: str
    reason: str


ALLOWED = (
    Allowed("tests/words.py", ".*", "the list itself"),
    Allowed("tests/test_words.py", ".*", "the tests of the list"),
    Allowed("*", "(?:add|remove) event listener|event listeners?", "the DOM's name"),
    Allowed("static/*.js", "listeners", "listeners of DOM events"),
    Allowed("server/tocsin_demo/*.py", "listeners?", "a listening socket"),
    Allowed("server/tocsin_server/sources/postgres/outbox.py", "listeners?", "asyncpg's name"),
    Allowed("CHANGELOG.md", "tocsin mended publications total", "the former name of a metric"),
    Allowed("*", "resident (?:memory|set|bytes)", "the kernel's and Prometheus' name"),
)


class Finding(NamedTuple):
    """A forbidden word in a file. Line 0 is the file's name."""

    file: str
    line: int
    word: str
    instead: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.word}: write {self.instead}"


_WORD_ENDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
"""Where one word of a camel-case identifier ends and the next begins."""
_GAP = r"(?:[\t _#/*>-]+|[\t #/*>-]*\n[\t #/*>-]*)"
"""What may be between two words of a phrase: at most one line break, with the comment signs around it."""


def _pattern(phrases: Iterable[str]) -> re.Pattern[str]:
    """Any of the phrases, as whole words, in text of lower-case letters."""
    return re.compile(f"(?<![a-z])(?:{'|'.join(phrases).replace(' ', _GAP)})(?![a-z])")


_ANY = _pattern(FORBIDDEN)
_EACH = [(_pattern([phrase]), instead) for phrase, instead in FORBIDDEN.items()]
_SENTENCE_START = re.compile(rf"\b{SENTENCE_START.replace(' ', _GAP)}\b")


def findings(file: str, text: str, allowed: Sequence[Allowed] = ALLOWED) -> Iterator[Finding]:
    """The forbidden words of one file, its name (line 0) first."""
    here = [entry for entry in allowed if fnmatch(file, entry.files)]
    if any(entry.phrase == ".*" for entry in here):
        return
    exempt = _pattern([entry.phrase for entry in here] or ["(?!)"])
    yield from _in(file, file, exempt, first_line=0)
    yield from _in(file, text, exempt, first_line=1)


def _in(file: str, text: str, exempt: re.Pattern[str], first_line: int) -> Iterator[Finding]:
    words = _in_words(text)
    spared = [found.span() for found in exempt.finditer(words)]
    for found in _ANY.finditer(words):
        if not any(start <= found.start() and found.end() <= end for start, end in spared):
            instead = next(instead for pattern, instead in _EACH if pattern.fullmatch(found[0]))
            yield _finding(file, first_line + words.count("\n", 0, found.start()), found[0], instead)
    for found in _SENTENCE_START.finditer(text):
        yield _finding(file, first_line + text.count("\n", 0, found.start()), found[0], "two sentences")


def _in_words(text: str) -> str:
    """The text in lower case, with `_` between the words of camel-case identifiers."""
    return _WORD_ENDS.sub("_", text).lower()


def _finding(file: str, line: int, word: str, instead: str) -> Finding:
    return Finding(file, line, re.sub(_GAP, " ", word), instead)


def unused(texts: dict[str, str], allowed: Sequence[Allowed] = ALLOWED) -> list[Allowed]:
    """The exceptions that no file needs."""
    return [entry for entry in allowed if not any(_is_needed(entry, *item) for item in texts.items())]


def _is_needed(entry: Allowed, file: str, text: str) -> bool:
    if not fnmatch(file, entry.files):
        return False
    return entry.phrase == ".*" or bool(_pattern([entry.phrase]).search(_in_words(f"{file} {text}")))


def files() -> list[str]:
    """Every file that is in git or would be added to it."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=True).stdout
    names = sorted(set(listed.split("\0")) - {""})
    return [
        name
        for name in names
        if (TOP / name).is_file() and not any(fnmatch(Path(name).name, pattern) for pattern in SKIPPED)
    ]


def main() -> int:
    texts = {name: (TOP / name).read_text() for name in files()}
    found = [finding for name, text in texts.items() for finding in findings(name, text)]
    lines = [str(finding) for finding in found]
    lines += [f"tests/words.py: {entry} is needed by no file: remove it" for entry in unused(texts)]
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
