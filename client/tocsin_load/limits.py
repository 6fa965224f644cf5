"""The limits of the operating system: open files of a process, and connections from one address."""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from math import ceil
from urllib.parse import urlsplit

SPARE_FILES = 64  # that a process opens besides its connections
PORTS_PER_ADDRESS = 25_000  # Linux has 28,232 ports for a source address and a destination
CONNECTIONS_PER_PROCESS = 5_000  # one core can serve so many without being the slowest part


class TooManyFiles(Exception):
    """The limit of open files is too low. The message is a sentence that names the remedy."""


def raise_file_limit() -> int:
    """Raise this process's limit of open files as far as permitted, and return it. Children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):  # some systems report a limit that they do not grant
            return soft
    return hard if hard != resource.RLIM_INFINITY else 2**31


def processes_for(connections: int, processes: int, files: int) -> int:
    """Return the number of worker processes: ``processes``, or for 0 a number that fits limits and cores.

    Raises ``TooManyFiles`` if ``processes`` are too few.
    """
    most = files - SPARE_FILES
    if not processes:
        least = max(1, ceil(connections / max(1, most)))
        return max(least, min(os.cpu_count() or 1, ceil(connections / CONNECTIONS_PER_PROCESS)))
    if connections > processes * most:
        each = ceil(connections / processes) + SPARE_FILES
        raise TooManyFiles(
            f"{connections} connections in {processes} processes need {each} open files in each, "
            f"and the limit is {files}: use --processes {ceil(connections / most)}, or raise the limit "
            "(ulimit -Hn, LimitNOFILE)"
        )
    return processes


def sources_for(connections: int, urls: Sequence[str]) -> list[str]:
    """Return the source addresses of connections. Empty: the system chooses, since one has enough ports.

    Several are used only if every target is in 127.0.0.0/8, where Linux has every address. Elsewhere the
    machine would need more addresses.
    """
    per_target = ceil(connections / len(urls))
    is_local = all((urlsplit(url).hostname or "").startswith("127.") for url in urls)
    if per_target <= PORTS_PER_ADDRESS or not is_local:
        return []
    return [f"127.0.0.{number + 1}" for number in range(min(254, ceil(per_target / PORTS_PER_ADDRESS)))]
