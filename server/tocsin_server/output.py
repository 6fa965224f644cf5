"""Standard output and standard error that never block: a bounded queue, and a thread that writes it.

A pipe whose reader stalls takes 64 KiB, and then a write to it waits for ever; so would the event loop, and
every client with it. Here only the thread waits. What does not fit into the queue is left out and counted,
and once the reader reads again, a line says how many.

The mutable state is the queue, its size, and the counter of an `OutputStream`. `write` and the thread change
them under one lock. A forked process begins with an empty queue and a thread of its own.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import io
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

QUEUE_LIMIT_BYTES = 1_048_576
"""How much may be queued for one stream: some thousand lines."""

EXIT_SECONDS = 2.0
"""How long the end of a process waits for a reader that stalls."""

PIECE_BYTES = 65_536
"""How much one system call is given."""


class OutputStream(io.TextIOBase):
    """A text stream on a file descriptor. `write` never blocks and never raises.

    `report_left_out` is called from the stream's thread after writes were left out, with their number.
    Without a reader, as with a closed pipe, everything is discarded.
    """

    def __init__(self, fd: int, report_left_out: Callable[[int], None] | None = None) -> None:
        super().__init__()
        self._fd = fd
        self._report_left_out = report_left_out
        self._restart()
        os.register_at_fork(after_in_child=self._restart)

    def _restart(self) -> None:
        self._changed = threading.Condition()
        self._queue: collections.deque[bytes] = collections.deque()
        self._queued_bytes = 0
        self._left_out = 0
        self._thread: threading.Thread | None = None
        self._is_broken = False

    # ------------------------------------------------------------------------------------------ a text stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Everything is written as UTF-8."""
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """A lone surrogate is written as an escape sequence."""
        return "backslashreplace"

    def fileno(self) -> int:
        """The file descriptor."""
        return self._fd

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._fd)

    def writable(self) -> bool:
        """It always is."""
        return True

    def write(self, text: str, /) -> int:
        """Queue the text as a whole, or leave it out as a whole."""
        data = text.encode(self.encoding, self.errors)
        with self._changed:
            if self._is_broken or not data:
                return len(text)
            if self._queued_bytes + len(data) > QUEUE_LIMIT_BYTES:
                self._left_out += 1
                return len(text)
            self._queue.append(data)
            self._queued_bytes += len(data)
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_all, name="output", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return len(text)

    def flush(self) -> None:
        """Return at once: the thread writes as fast as the reader reads."""

    def drain(self, seconds: float = EXIT_SECONDS) -> bool:
        """Wait until everything is written, so long at most. Whether it is."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while self._queued_bytes and not self._is_broken:
                if not self._changed.wait(deadline - time.monotonic()):
                    return False
        return True

    # --------------------------------------------------------------------------------------------- the thread

    def _write_all(self) -> None:
        while True:
            with self._changed:
                while not self._queue:
                    self._changed.wait()
                piece = self._take()
            self._write_piece(piece)
            with self._changed:
                self._queued_bytes -= len(piece)
                left_out, self._left_out = self._left_out, 0
                self._changed.notify_all()
            if left_out and self._report_left_out is not None:
                self._report_left_out(left_out)

    def _take(self) -> bytes:
        piece = bytearray(self._queue.popleft())
        while self._queue and len(piece) + len(self._queue[0]) <= PIECE_BYTES:
            piece += self._queue.popleft()
        return bytes(piece)

    def _write_piece(self, piece: bytes) -> None:
        try:
            while piece:
                try:
                    piece = piece[os.write(self._fd, piece) :]
                except BlockingIOError:  # another process that shares the descriptor does not block
                    select.select([], [self._fd], [])
        except OSError:
            with self._changed:
                self._is_broken = True
                self._queue.clear()
                self._changed.notify_all()


def replace_standard_streams(report_left_out: Callable[[int], None]) -> None:
    """Make `sys.stdout` and `sys.stderr` streams that never block, until the process ends.

    `report_left_out` is that of standard error. Tracebacks and warnings go there too.
    """
    _open_missing_descriptors()
    out, err = OutputStream(1), OutputStream(2, report_left_out)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # None: the descriptor was closed
            with contextlib.suppress(OSError):
                stream.flush()
    sys.stdout, sys.stderr = _as_text(out), _as_text(err)
    atexit.register(drain_standard_streams)


def drain_standard_streams() -> None:
    """Wait until both streams are written, EXIT_SECONDS at most, before the process ends."""
    deadline = time.monotonic() + EXIT_SECONDS
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, OutputStream):
            stream.drain(max(0.0, deadline - time.monotonic()))


def _as_text(stream: OutputStream) -> TextIO:
    return stream  # type: ignore[return-value]  # TextIO has the buffer of a file, which is not used


def _open_missing_descriptors() -> None:
    """Give 0, 1 and 2 to the null device where they are closed. A socket would get the number otherwise."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
