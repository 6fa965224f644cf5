"""The page of metrics, read as Prometheus would."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tocsin_server.node.node import Node


def read(page: bytes) -> dict[str, float]:
    """Every sample by name and labels, as Prometheus would write it."""
    samples = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples


def of(node: Node) -> dict[str, float]:
    """What a node's page says now."""
    return read(node.metrics.page())


def kinds_of(page: bytes) -> dict[str, str]:
    """The type of each metric, by the name under which it is asked for: a counter's ends in `_total`."""
    return {
        family.name + ("_total" if family.type == "counter" else ""): family.type
        for family in text_string_to_metric_families(page.decode())
    }
