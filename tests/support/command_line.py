"""Commands of `tocsin` to their end in the process of the test, where modules are imported once.

Tests of what a process is (signals, pipes, encodings, a running server) start one. All others use this.
"""

import gc
import io
import logging
import os
import sys
import tempfile
from typing import NamedTuple
from unittest import mock

import pytest

from tocsin.cli import main

VARIABLES = {"PATH": "/usr/bin:/bin", "NO_COLOR": "1", "COLUMNS": "200", "TERM": "dumb"}
"""The environment of a command, apart from what its test adds: no proxy and no API key of a developer."""


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    lines: list[str]
    """Its standard output."""
    errors: str
    """Its standard error."""


def tocsin(*arguments: str, text: str = "", **environment: str) -> Ended:
    """Run a command with this standard input and these environment variables. It must print no traceback.

    Only if the command runs no event loop may the caller have one.
    """
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as output,
        tempfile.TemporaryFile("w+", encoding="utf-8") as errors,
        io.TextIOWrapper(io.BytesIO(text.encode())) as standard_input,
        mock.patch.multiple(
            sys, argv=["tocsin", *arguments], stdin=standard_input, stdout=output, stderr=errors
        ),
        mock.patch.dict(os.environ, VARIABLES | environment, clear=True),
        mock.patch.object(gc, "freeze"),  # the command expects to have its process for itself
        mock.patch.object(logging.getLogger(), "handlers", []),  # so logging writes to standard error
    ):
        with pytest.raises(SystemExit) as ended:
            main()
        gc.collect()  # asyncio logs the exception of a lost task when it is freed
        output.seek(0)
        errors.seek(0)
        code = ended.value.code
        assert isinstance(code, int)
        ended_with = Ended(code, output.read().splitlines(), errors.read())
        assert "Traceback" not in ended_with.errors, ended_with.errors
        return ended_with
