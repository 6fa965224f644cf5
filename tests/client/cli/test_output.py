"""Lines on standard output."""

import asyncio
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.timing import SOON
from tocsin.cli.options import read_data
from tocsin.cli.output import ClosedOutput, Output, printable, to_line
from tocsin.protocol.codec import encode_json


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        try:
            os.close(descriptor)
        except OSError:
            continue


async def test_a_line_larger_than_the_pipe_is_written_completely_without_blocking(
    pipe: tuple[int, int],
) -> None:
    reader, writer = pipe
    line = "x" * 300_000
    writing = asyncio.create_task(Output(writer).write(line))
    received = b""
    while len(received) <= len(line):
        received += await asyncio.to_thread(os.read, reader, 50_000)
    await writing
    assert received == line.encode() + b"\n"


async def test_lines_of_several_writers_are_not_mixed(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    output = Output(writer)
    lines = [letter * 40_000 for letter in "abc"]
    writing = asyncio.gather(*map(output.write, lines))
    received = b""
    while received.count(b"\n") < 3:
        received += await asyncio.to_thread(os.read, reader, 50_000)
    await writing
    assert received.decode().splitlines() == lines


async def test_a_closed_pipe_is_noticed_by_write_and_by_watch(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    output, closed = Output(writer), asyncio.Event()
    output.watch(closed.set)
    await output.write("read in time")
    assert not closed.is_set()
    os.close(reader)
    async with asyncio.timeout(SOON):
        await closed.wait()
    with pytest.raises(ClosedOutput):
        await output.write("too late")


async def test_a_file_is_written_like_a_pipe(tmp_path: Path) -> None:
    with (tmp_path / "lines").open("wb") as file:
        output = Output(file.fileno())
        output.watch(lambda: None)
        await output.write("one")
        await output.write("zwö")
    assert (tmp_path / "lines").read_text() == "one\nzwö\n"


@pytest.mark.parametrize("value", [{"ö": [1, None]}, "\ud800", [math.inf, -math.inf], "a\nb", "\u2028"])
def test_a_json_line_is_one_line_that_every_parser_accepts(value: Any) -> None:
    line = to_line(value)
    assert "\n" not in line
    line.encode()
    assert json.loads(line) == value
    assert "Infinity" not in line


def test_a_payload_that_is_too_deep_for_a_recursive_encoder_is_written() -> None:
    deep: Any = []
    for _ in range(50_000):
        deep = [deep]
    assert to_line(deep) == "[" * 50_001 + "]" * 50_001


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ("1e999", "1e999"),
        ("text", '"text"'),
        ("", '""'),
        ("NaN", '"NaN"'),
        ('"quoted"', '"quoted"'),
    ],
)
def test_text_is_sent_as_json_if_it_is_json_and_otherwise_as_a_string(text: str, sent: str) -> None:
    assert encode_json(read_data(text)) == sent


def test_words_of_a_server_cannot_control_the_terminal() -> None:
    """A reason of any length with escape sequences is one short line. JSON stays JSON."""
    assert printable("closed: \x1b[2J\r\nroot# \x9b5m\u202e") == r"closed: \x1b[2J\r\nroot# \x9b5m\u202e"
    assert len(printable("x" * 10_000)) == 1001
    value = {"data": "\x1b\x7f\x9b\u00e9"}
    assert to_line(value) == '{"data":"\\u001b\\u007f\\u009b\u00e9"}'
    assert json.loads(to_line(value)) == value
