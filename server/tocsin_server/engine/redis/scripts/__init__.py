"""Scripts: what Redis does in one step, each a `.lua` file beside this one."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files


@dataclass(frozen=True)
class Script:
    """A text that Redis is told once, and its digest, by which it is called."""

    text: str
    digest: str


def _load(*names: str) -> Script:
    """One script of several files, of which the last is the script and the others what it builds on."""
    folder = files(__package__)
    text = "\n".join((folder / f"{name}.lua").read_text(encoding="utf-8") for name in names)
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


PUBLISH = _load("lib/log", "publish")
READ = _load("lib/log", "history_read")
REMOVE_HISTORY = _load("remove_history")
ADD = _load("lib/presence", "presence_add")
REMOVE = _load("lib/presence", "presence_remove")
STATS = _load("presence_stats")
REAP = _load("lib/presence", "reap")
BEAT = _load("lease_renew")
BURY = _load("lease_expire")
TIME = _load("time")

ALL = (PUBLISH, READ, REMOVE_HISTORY, ADD, REMOVE, STATS, REAP, BEAT, BURY, TIME)
