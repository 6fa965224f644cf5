"""The Chromium that tests drive: the system's, under whichever of its names it is there."""

import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str:
    """Where it is. One of the names must be on the PATH, which `make tools` sees to."""
    for name in NAMES:
        if found := shutil.which(name):
            return found
    raise FileNotFoundError(f"None of {', '.join(NAMES)} is on the PATH.")
