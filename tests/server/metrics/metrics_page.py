"""The metrics page, parsed as Prometheus parses it."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tocsin_server.node.node import Node


def read(page: bytes) -> dict[str, float]:
    """Every sample, by its name and labels in Prometheus' notation."""
    samples = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples


def of(node: Node) -> dict[str, float]:
    """The samples of a node's metrics page now."""
    return read(node.metrics.page())


def kinds_of(page: bytes) -> dict[str, str]:
    """The type of each metric, by the name that queries use: a counter's ends in `_total`."""
    return {
        family.name + ("_total" if family.type == "counter" else ""): family.type
        for family in text_string_to_metric_families(page.decode())
    }
