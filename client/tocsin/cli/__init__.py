"""The ``tocsin`` command: the commands of all installed packages, each imported when it is used."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points, version
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from tocsin.errors import TocsinError

from .output import printable

GROUP = "tocsin.commands"
ORDER = (
    *("demo", "serve", "sub", "pub", "load", "token", "check-config", "doctor", "nodes", "revoke"),
    "webhooks",
)


class Commands(Mapping[str, Any]):
    """Commands by name, in the order of the help. A command that cannot be imported says what to install."""

    def __init__(self) -> None:
        found = {point.name: point for point in entry_points(group=GROUP)}
        names = [name for name in ORDER if name in found]
        self._points = {name: found[name] for name in (*names, *sorted(found.keys() - set(names)))}

    def __getitem__(self, name: str) -> Any:
        point = self._points[name]
        try:
            return _command(name, _imported(point))
        except ModuleNotFoundError as error:
            anything = {"ignore_unknown_options": True, "allow_extra_args": True}
            return _command(name, _missing(point, error), **anything)

    def __iter__(self) -> Iterator[str]:
        return iter(self._points)

    def __len__(self) -> int:
        return len(self._points)


def main() -> None:
    """Run the command line. A ``TocsinError`` becomes one sentence on standard error and exit code 1."""
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        help="Real-time push: publish over HTTP, subscribe over WebSocket or Server-Sent Events.",
    )
    app.callback(invoke_without_command=True)(_top)
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)  # noqa: S101 # it has a callback, so it is a group
    group.commands = Commands()  # type: ignore[assignment] # it is only read
    try:
        group(prog_name="tocsin")
    except TocsinError as error:
        fail(str(error))
    except KeyboardInterrupt:  # also while a command's packages are being imported
        sys.exit(130)


def fail(sentence: str) -> NoReturn:
    """Print one sentence on standard error and exit with code 1."""
    print(f"tocsin: {printable(sentence)}", file=sys.stderr)  # noqa: T201 # this is the command line
    sys.exit(1)


def _imported(point: EntryPoint) -> Callable[..., Any]:
    """Import a command. The garbage collector does not visit what was imported, now or at the end."""
    gc.disable()
    try:
        function: Callable[..., Any] = point.load()
    finally:
        gc.enable()
    gc.freeze()
    return function


def _command(name: str, function: Callable[..., Any], **settings: Any) -> Any:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(name, context_settings=settings)(function)
    return typer.main.get_command(app)


def _missing(point: EntryPoint, error: ModuleNotFoundError) -> Callable[..., Any]:
    extra = "" if point.value.startswith(("tocsin.", "tocsin_load.")) else "[server]"
    needed = "the server" if extra else "a package that is not installed"
    sentence = f"tocsin {point.name} needs {needed}: pip install 'tocsin{extra}' ({error.name} is missing)"

    def missing() -> None:
        fail(sentence)

    missing.__doc__ = f"Not installed: {sentence}".replace("[", r"\[")  # help is markup
    return missing


def _top(
    show_version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if show_version:
        typer.echo(f"tocsin {version('tocsin')}")
        raise typer.Exit
