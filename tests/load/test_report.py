"""The report of a run."""

import io

from rich.console import Console

from tocsin_load.deliveries import Deliveries
from tocsin_load.histogram import Histogram
from tocsin_load.report import Report, show


def report(deliveries: Deliveries, **fields: int) -> Report:
    result = Report(
        connections=4,
        connected=fields.get("connected", 4),
        connect_seconds=2.0,
        lost_connections=1,
        still_disconnected=1,
        sent=10,
        acknowledged=10,
        publish_seconds=5.0,
        delivered=38,
        foreign=0,
        dead_workers=fields.get("dead_workers", 0),
        deliveries=deliveries,
        connect_failures={"cannot connect: HTTP 503": 2},
        publish_failures={},
    )
    for second in (100, 102):
        latency = Histogram()
        latency.add(0.01, times=19)
        result.add_second(second, latency)
    return result


def printed(report: Report) -> str:
    output = io.StringIO()
    show(report, Console(file=output, width=200))
    return output.getvalue()


def test_the_text_has_every_figure() -> None:
    text = printed(report(Deliveries(expected=40, lost=2, lost_disconnected=1), dead_workers=1))
    for words in (
        "4 of 4 in 2.00 s, 2 a second",
        "1 connections lost, 0 reconnected after",
        "1 still disconnected",
        "10 acknowledged of 10 sent, 2 a second",
        "38 of 40 expected, 8 a second",
        "2  cannot connect: HTTP 503",
        "lost 2 · duplicated 0 · reordered 0 · in gaps 0",
        "1 of the losses by connections that were still disconnected",
        "1 worker processes died",
    ):
        assert words in text


def test_the_json_counts_seconds_from_the_first_delivery() -> None:
    written = report(Deliveries(expected=40, lost=2)).as_json()
    assert [(one["second"], one["delivered"]) for one in written["over_time"]] == [(0, 19), (2, 19)]
    assert written["deliveries"]["lost"] == 2
    assert written["connections"]["failures"] == {"cannot connect: HTTP 503": 2}


def test_a_run_is_good_only_if_it_is_clean_and_complete() -> None:
    assert report(Deliveries(expected=38)).is_good
    assert report(Deliveries(expected=40, in_gaps=2)).is_good
    assert not report(Deliveries(expected=40, lost=2)).is_good
    assert not report(Deliveries(), connected=0).is_good
    assert not report(Deliveries(expected=38), dead_workers=1).is_good
