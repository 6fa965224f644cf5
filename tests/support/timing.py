"""Every time limit of the tests, as a multiple of one constant.

On a slow machine set `TOCSIN_TEST_TICK` higher; nothing else has to change.
"""

import os

TICK = float(os.environ.get("TOCSIN_TEST_TICK", "0.1"))
"""Seconds. The smallest time that a loaded machine keeps to."""

SOON = 100 * TICK
"""The longest wait for something that must happen."""

STARTED = 300 * TICK
"""The longest wait for a process to say that it is ready, or to end when told to."""

QUIET = 2 * TICK
"""How long to listen for something that must not happen."""
