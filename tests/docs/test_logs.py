"""docs/logs.md names every event of the log, with its level, and no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TOP = Path(__file__).parents[2]
PAGE = (TOP / "docs" / "logs.md").read_text()
ROW = re.compile(r"(?m)^\| `([a-z_]+)` \| (debug|info|warning|error) \| (yes|no) \|")
LOGGERS = ("log", "logger")
LEVELS = {"debug", "info", "warning", "error", "exception"}


def events_of(package: str) -> Iterator[tuple[str, str, bool]]:
    """The event, level and whether it is sampled, of each call that logs."""
    for file in (TOP / package).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                event = node.args[0]
                if isinstance(event, ast.Constant) and isinstance(event.value, str):
                    yield from _event(node, node.func, event.value.partition(" ")[0])


def _event(call: ast.Call, function: ast.Attribute, name: str) -> Iterator[tuple[str, str, bool]]:
    owner, method = ast.unparse(function.value), function.attr
    if owner in LOGGERS and method in LEVELS:
        yield name, "error" if method == "exception" else method, False
    elif method == "log_refusal" or (method == "write" and owner.endswith(("sampled_log", "._log"))):
        given = [one.value for one in call.keywords if one.arg == "level"]
        yield name, str(ast.literal_eval(given[0])) if given else "info", True
    elif method == "drop" and owner in ("self", "self._dropped"):
        yield name, "warning", True
    elif method == "fault" and owner.endswith("sampled_log"):
        yield name, "error", True


def test_every_event_of_the_server_is_documented_and_no_other() -> None:
    """An event of two levels is documented with the higher one."""
    found = dict.fromkeys(sorted(events_of("server/tocsin_server")))
    levels: dict[str, set[tuple[str, bool]]] = {}
    for name, level, is_sampled in found:
        levels.setdefault(name, set()).add((level, is_sampled))
    rows = {name: (level, sampled == "yes") for name, level, sampled in ROW.findall(PAGE)}
    assert rows.keys() == levels.keys()
    assert {name: row for name, row in rows.items() if row not in levels[name]} == {}


def test_every_event_of_the_client_is_documented() -> None:
    assert all(f"`{name}`" in PAGE for name, _, _ in events_of("client/tocsin"))
