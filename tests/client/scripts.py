"""Python programs in processes of their own, for tests that fork or end the interpreter."""

from __future__ import annotations

import subprocess
import sys
import textwrap

from tests.support.timing import STARTED


def run_script(source: str, *arguments: str) -> str:
    """Run a program to its end. Returns its output; it must write nothing to standard error."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source), *arguments],
        capture_output=True,
        text=True,
        timeout=STARTED,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout
