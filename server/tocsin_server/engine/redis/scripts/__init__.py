"""The Lua scripts: each is a `.lua` file in this package that Redis runs as one atomic step."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files


@dataclass(frozen=True)
class Script:
    """The text of a script, which is loaded into Redis once, and the digest by which it is called."""

    text: str
    digest: str


def _load(*names: str) -> Script:
    """Build a script from several files: first the functions that a file uses, then that file."""
    folder = files(__package__)
    text = "\n".join((folder / f"{name}.lua").read_text(encoding="utf-8") for name in names)
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


PUBLISH = _load("publish", "lib/history", "publish_others")
HISTORY_READ = _load("lib/history", "history_read")
PRESENCE_ADD = _load("lib/presence", "presence_add")
PRESENCE_REMOVE = _load("lib/presence", "presence_remove")
PRESENCE_STATS = _load("presence_stats")
PRESENCE_CHECK = _load("presence_check")
PRESENCE_RECOUNT = _load("lib/presence", "presence_recount")
USER_ADD = _load("user_add")
USER_RENEW = _load("user_renew")
REAP = _load("lib/presence", "reap")
LEASE_ACQUIRE = _load("lease_acquire")
LEASE_RENEW = _load("lease_renew")
LEASE_LIST = _load("lease_list")
LEASE_EXPIRE = _load("lease_expire")
KEYS_EXPIRE = _load("keys_expire")
GET_OR_SET = _load("get_or_set")
REVOKE = _load("revoke")
EVENTS_OPEN = _load("lib/events", "events_open")
EVENTS_WRITE = _load("lib/events", "events_write")
EVENTS_MARK_DEAD = _load("lib/events", "events_mark_dead")
EVENTS_END_SESSIONS = _load("lib/events", "events_end_sessions")
EVENTS_VACATE = _load("lib/events", "events_vacate")
EVENTS_FORGET = _load("lib/events", "events_forget")
EVENTS_CLAIM = _load("lib/events", "lib/event_readers", "events_claim")
EVENTS_SURPLUS = _load("lib/events", "lib/event_readers", "events_surplus")
EVENTS_READ = _load("lib/events", "events_read")
EVENTS_ACKNOWLEDGE = _load("lib/events", "events_acknowledge")
EVENTS_FIGURES = _load("lib/events", "events_figures")
DEAD_LETTERS_ADD = _load("dead_letters_add")
STREAM_CLAIM = _load("stream_claim")
STREAM_READ = _load("lib/stream", "stream_read")
STREAM_FAIL = _load("lib/stream", "stream_fail")
TIME = _load("time")
PERMISSIONS = _load("permissions")

ALL = (
    PUBLISH,
    HISTORY_READ,
    PRESENCE_ADD,
    PRESENCE_REMOVE,
    PRESENCE_STATS,
    PRESENCE_CHECK,
    PRESENCE_RECOUNT,
    USER_ADD,
    USER_RENEW,
    REAP,
    LEASE_ACQUIRE,
    LEASE_RENEW,
    LEASE_LIST,
    LEASE_EXPIRE,
    KEYS_EXPIRE,
    GET_OR_SET,
    REVOKE,
    EVENTS_OPEN,
    EVENTS_WRITE,
    EVENTS_MARK_DEAD,
    EVENTS_END_SESSIONS,
    EVENTS_VACATE,
    EVENTS_FORGET,
    EVENTS_CLAIM,
    EVENTS_SURPLUS,
    EVENTS_READ,
    EVENTS_ACKNOWLEDGE,
    EVENTS_FIGURES,
    DEAD_LETTERS_ADD,
    STREAM_CLAIM,
    STREAM_READ,
    STREAM_FAIL,
    TIME,
    PERMISSIONS,
)
