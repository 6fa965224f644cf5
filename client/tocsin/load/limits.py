"""What the operating system allows: open files in a process, and connections from one address."""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from math import ceil
from urllib.parse import urlsplit

SPARE_FILES = 64  # what a process has open besides its connections
PORTS_PER_ADDRESS = 25_000  # Linux hands out 28,232 ports per source address and destination
CONNECTIONS_PER_PROCESS = 5_000  # what one core can listen to without being the slowest part


class TooManyFiles(Exception):
    """The limit of open files is too low, said in a sentence."""


def raise_file_limit() -> int:
    """Raise this process's limit of open files as far as it may; its children inherit it. Gives the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):  # some systems report a limit that they do not grant
            return soft
    return hard if hard != resource.RLIM_INFINITY else 2**31


def processes_for(connections: int, wanted: int, files: int) -> int:
    """Give the number of worker processes: the wanted one, or (0) one that fits limits and cores."""
    most = files - SPARE_FILES
    if not wanted:
        least = max(1, ceil(connections / max(1, most)))
        return max(least, min(os.cpu_count() or 1, ceil(connections / CONNECTIONS_PER_PROCESS)))
    if connections > wanted * most:
        each = ceil(connections / wanted) + SPARE_FILES
        raise TooManyFiles(
            f"{connections} connections in {wanted} processes need {each} open files in each, "
            f"and the limit is {files}: use --processes {ceil(connections / most)}, or raise the limit "
            "(ulimit -Hn, LimitNOFILE)"
        )
    return wanted


def sources_for(connections: int, urls: Sequence[str]) -> list[str]:
    """Give the addresses to connect from: the system's choice (none), unless one has too few ports.

    Only where every target is on 127.0.0.0/8, all of which Linux answers to; elsewhere one needs more
    addresses of one's own.
    """
    per_target = ceil(connections / len(urls))
    is_local = all((urlsplit(url).hostname or "").startswith("127.") for url in urls)
    if per_target <= PORTS_PER_ADDRESS or not is_local:
        return []
    return [f"127.0.0.{number + 1}" for number in range(min(254, ceil(per_target / PORTS_PER_ADDRESS)))]
