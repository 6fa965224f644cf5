"""The table of docs/permissions.md, made by asking `decide` about every cell.

`python -m tests.server.core.permission_table` prints it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import NamedTuple

from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core.capabilities import Action, Capabilities, Capability
from tocsin_server.core.channel_names import ChannelRules, Kind
from tocsin_server.core.permissions import Caller, decide

CHANNELS = {
    Kind.PLAIN: "news",
    Kind.PRIVATE: "$news",
    Kind.USER_LIMITED: "room#ann,bob",
    Kind.PERSONAL: "#ann",
}
GROUPS = ("for_client", "for_subscriber", "for_anonymous")
ALWAYS, NEVER = "yes", "no"


class CallerKind(NamedTuple):
    """A row's caller: a user of the channel's name, another one, or none; and what it has."""

    name: str
    user: str
    is_subscribed: bool = False
    has_capability: bool = False

    def caller(self, channel: str) -> Caller:
        granted = Capabilities([Capability((channel,), ("sub", "pub", "hst", "prs"))])
        return Caller(
            self.user, capabilities=granted if self.has_capability else None, is_subscribed=self.is_subscribed
        )


CALLERS = (
    CallerKind("anonymous", ""),
    CallerKind("anonymous, subscribed", "", is_subscribed=True),
    CallerKind("user", "zoe"),
    CallerKind("user, subscribed", "zoe", is_subscribed=True),
    CallerKind("user of the name", "ann"),
    CallerKind("user of the name, subscribed", "ann", is_subscribed=True),
    CallerKind("user with `caps`", "zoe", has_capability=True),
)


class Row(NamedTuple):
    kind: Kind
    caller: CallerKind
    cells: dict[Action, str]


def permission_options(kind: Kind, action: Action, groups: Iterable[str]) -> ChannelOptions:
    """Options with every feature, in which only these groups may do `action`."""
    allowed = {f"allow_{action.value}_{group}": True for group in groups}
    allowed.pop("allow_subscribe_for_subscriber", None)
    options = ChannelOptions(presence=True, history_size=1, history_ttl=1, **allowed)
    return options.model_copy(update={"allow_user_limited_channels": kind is Kind.USER_LIMITED})


def rows() -> Iterator[Row]:
    """Every row of the table."""
    for kind in Kind:
        for caller in CALLERS:
            if caller.user != "ann" or kind in (Kind.USER_LIMITED, Kind.PERSONAL):
                yield Row(kind, caller, {action: cell(kind, caller, action) for action in Action})


def cell(kind: Kind, caller: CallerKind, action: Action) -> str:
    """What a caller needs: nothing, one of some options, or something that no option gives."""
    if _is_permitted(kind, caller, action, ()):
        return ALWAYS
    sufficient = [group for group in GROUPS if _is_permitted(kind, caller, action, (group,))]
    return " or ".join(f"`{group}`" for group in sufficient) or NEVER


def needs(text: str, groups: Iterable[str]) -> bool:
    """Whether a cell says that these options suffice."""
    return text == ALWAYS or any(f"`{group}`" in text for group in groups)


def subsets() -> Iterator[tuple[str, ...]]:
    """All sets of the three options."""
    return (chosen for size in range(4) for chosen in combinations(GROUPS, size))


def _is_permitted(kind: Kind, caller: CallerKind, action: Action, groups: Iterable[str]) -> bool:
    channel = CHANNELS[kind]
    options = permission_options(kind, action, groups)
    rules = ChannelRules(options, {}, personal_namespace="")
    assert rules.kind_of(channel, options) is kind
    return decide(action, caller.caller(channel), channel, options, kind) is None


def table() -> str:
    """The table in Markdown."""
    lines = ["| channel | caller | subscribe | publish | history | presence |", "|---|---|---|---|---|---|"]
    for kind, caller, cells in rows():
        shown = [f"{kind.value}, `{CHANNELS[kind]}`", caller.name, *cells.values()]
        lines.append(f"| {' | '.join(shown)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())  # noqa: T201 # a command
