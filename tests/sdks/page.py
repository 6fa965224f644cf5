"""docs/sdks.md, made from the outcomes of scenarios.py."""

import re
from collections.abc import Mapping
from pathlib import Path

from tests.sdks.combinations import COMBINATIONS, Combination

FEATURES = {
    "tokens": "test_a_connection_and_a_subscription_outlive_their_tokens",
    "expired subscription token": "test_an_expired_subscription_token_is_replaced",
    "publish, presence, history": "test_clients_of_two_nodes_share_a_channel",
    "joins, leaves": "test_joins_and_leaves_reach_the_subscribers_of_another_node",
    "server-side subscriptions": "test_a_token_and_the_back_end_subscribe_a_client",
    "recovery": "test_exactly_what_was_missed_is_recovered_on_the_other_node",
    "refusals": "test_every_refused_command_has_its_code",
    "disconnects": "test_every_disconnect_has_its_code",
    "bytes": "test_bytes_arrive_unchanged",
    "delta": "test_deltas_arrive_as_what_was_published",
    "tags filter": "test_a_tags_filter_selects_publications",
}
"""Each column, with the test of scenarios.py that it is the result of."""

Outcomes = Mapping[tuple[str, str], bool]
"""Whether each test of each combination passed, by the names of both."""

PAGE = Path(__file__).with_name("page.md")
"""The page with `{table}` in place of the table."""


def rendered(outcomes: Outcomes) -> str:
    """The whole page."""
    header = ["SDK", "version", "transport", "format", *FEATURES]
    rows = [header, ["---"] * len(header), *(_row(each, outcomes) for each in COMBINATIONS)]
    return PAGE.read_text().replace("{table}", "\n".join(f"| {' | '.join(row)} |" for row in rows))


def complete() -> set[tuple[str, str]]:
    """All tests of all combinations."""
    return {
        (test, str(combination))
        for column, test in FEATURES.items()
        for combination in COMBINATIONS
        if combination.offers(column)
    }


def item_of(node_id: str) -> tuple[str, str] | None:
    """The test and the combination of an item of pytest, or None if it is of another file."""
    found = re.search(r"scenarios\.py::(\w+)\[(.+)\]$", node_id)
    return (found[1], found[2]) if found else None


def _row(combination: Combination, outcomes: Outcomes) -> list[str]:
    sdk = combination.sdk
    cells = [
        _cell(combination, column, outcomes.get((test, str(combination)), False))
        for column, test in FEATURES.items()
    ]
    return [
        f"`{sdk.name}` ({sdk.language})",
        sdk.version(),
        combination.transport,
        combination.format,
        *cells,
    ]


def _cell(combination: Combination, column: str, passed: bool) -> str:
    if not combination.offers(column):
        return "-"
    return "yes" if passed else "no"
