"""Standard output and standard error that never block."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.api import NO_TLS
from tests.support.server import TOCSIN, as_toml
from tests.support.timing import SOON, STARTED
from tocsin_server.output import QUEUE_LIMIT_BYTES, OutputStream

LINE = "x" * 1023 + "\n"
FULL = QUEUE_LIMIT_BYTES // len(LINE)
"""How many lines the queue holds."""


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe: the end to read and the end to write. A test may close either with `close`."""
    ends = os.pipe()
    try:
        yield ends
    finally:
        for fd in ends:
            close(fd)


def close(fd: int) -> None:
    """Close an end of a pipe, unless it was closed before."""
    with contextlib.suppress(OSError):
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.close(fd)


def fill(fd: int) -> int:
    """Fill a pipe, whose writers then block. Returns how many bytes that took."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    os.set_blocking(fd, False)
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            count += os.write(fd, b"." * 65536)
    fcntl.fcntl(fd, fcntl.F_SETFL, flags)
    return count


def read_all(fd: int, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += os.read(fd, 65536)
    return data


def test_what_is_written_comes_out_in_order() -> None:
    with pipe() as (reading, writing):
        stream = OutputStream(writing)
        for number in range(1000):
            stream.write(f"{number} é\n")
        assert stream.drain(SOON)
        lines = read_all(reading, sum(len(f"{number} é\n".encode()) for number in range(1000)))
        assert lines.decode().splitlines() == [f"{number} é" for number in range(1000)]


def test_a_reader_that_stalls_blocks_no_writer_and_is_told_what_was_left_out() -> None:
    """The queue holds exactly its limit."""
    counts: list[int] = []
    counted = threading.Event()

    def report(count: int) -> None:
        counts.append(count)
        counted.set()

    with pipe() as (reading, writing):
        filled = fill(writing)
        stream = OutputStream(writing, report)
        for _ in range(FULL + 3):
            stream.write(LINE)
        assert not stream.drain(0)
        assert not counts
        assert read_all(reading, filled + FULL * len(LINE))[filled:] == (LINE * FULL).encode()
        assert counted.wait(SOON)
        assert counts == [3]
        stream.write("again\n")
        assert os.read(reading, 100) == b"again\n"


def test_a_reader_that_is_gone_disturbs_no_writer() -> None:
    with pipe() as (reading, writing):
        stream = OutputStream(writing)
        close(reading)
        for _ in range(2 * FULL):
            stream.write(LINE)
        assert stream.drain(SOON)


def test_a_descriptor_that_another_process_made_nonblocking_loses_nothing() -> None:
    with pipe() as (reading, writing):
        filled = fill(writing)
        os.set_blocking(writing, False)
        stream = OutputStream(writing)
        stream.write(LINE)
        assert read_all(reading, filled + len(LINE)).endswith(LINE.encode())


def test_a_forked_process_writes_its_own_lines_and_not_those_of_its_parent() -> None:
    with pipe() as (reading, writing):
        filled = fill(writing)
        stream = OutputStream(writing)
        stream.write("parent\n")
        child = os.fork()
        if not child:
            stream.write("child\n")
            stream.drain(SOON)
            os._exit(0)
        data = read_all(reading, filled + len("parent\nchild\n"))
        assert sorted(data[filled:].splitlines()) == [b"child", b"parent"]
        assert os.waitpid(child, 0)[1] == 0


# ------------------------------------------------------------------------------------------- a whole process


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "tocsin.toml"
    file.write_text(as_toml({"server": {"port": 0, "drain_seconds": 0}, "api": {"keys": ["a" * 32]}}))
    return file


def start(config: Path, err: int) -> subprocess.Popen[str]:
    command = [str(TOCSIN), "serve", "--config", str(config), "--log-level", "debug"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, text=True)


def url_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rpartition(" ")[2].strip()


def refuse_often(url: str, count: int) -> None:
    """Make requests that each leave a line in the log."""
    with httpx.Client(base_url=url, trust_env=False, verify=NO_TLS, timeout=SOON) as client:
        for _ in range(count):
            assert client.get("/events", headers={"Origin": "https://evil.example"}).status_code == 403


def test_a_server_whose_log_is_not_read_serves_on_and_ends_on_sigterm(config: Path) -> None:
    """It starts, serves and ends, although its standard error is full from the beginning."""
    with pipe() as (_, writing):
        fill(writing)
        with start(config, writing) as process:
            refuse_often(url_of(process), 100)
            process.send_signal(signal.SIGTERM)
            assert process.wait(STARTED) == 0


def test_a_server_whose_standard_error_is_closed_serves_on(config: Path) -> None:
    with pipe() as (reading, writing), start(config, writing) as process:
        close(writing)
        url = url_of(process)
        close(reading)
        refuse_often(url, 10)
        process.send_signal(signal.SIGTERM)
        assert process.wait(STARTED) == 0


def test_the_last_lines_are_written_before_the_process_ends(config: Path, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file, start(config, file.fileno()) as process:
        url_of(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(STARTED) == 0
    lines = [line for line in (tmp_path / "log").read_text().splitlines() if line.startswith("{")]
    assert json.loads(lines[-1])["event"].startswith("Finished server process")
