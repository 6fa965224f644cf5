"""The Chromium that tests drive: that of the system."""

import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str:
    """Its path. One of its names must be on the PATH, which `make tools` checks."""
    for name in NAMES:
        if found := shutil.which(name):
            return found
    raise FileNotFoundError(f"None of {', '.join(NAMES)} is on the PATH.")
