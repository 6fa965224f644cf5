"""What ``tocsin doctor`` finds: one line each, with its fix."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypedDict

Level = Literal["ok", "warning", "error"]


class Finding(TypedDict):
    """One finding. ``fix`` says what to do about it, and is empty if it is ok.

    A dict, since the server's package makes some and must not import this one.
    """

    level: Level
    check: str
    text: str
    fix: str


def ok(check: str, text: str) -> Finding:
    """Return a finding that needs no fix."""
    return Finding(level="ok", check=check, text=text, fix="")


def warning(check: str, text: str, fix: str) -> Finding:
    """Return a finding that may be on purpose, or becomes a problem later."""
    return Finding(level="warning", check=check, text=text, fix=fix)


def error(check: str, text: str, fix: str) -> Finding:
    """Return a finding that is a problem now."""
    return Finding(level="error", check=check, text=text, fix=fix)


def line(finding: Finding) -> str:
    """Return a finding as one line."""
    fix = f"  Fix: {finding['fix']}" if finding["fix"] else ""
    return f"{finding['level']:<8}{finding['check']}: {finding['text']}{fix}"


def has_error(findings: Iterable[Finding]) -> bool:
    """Return whether one of the findings is an error."""
    return any(finding["level"] == "error" for finding in findings)
