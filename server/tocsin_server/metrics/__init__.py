"""Prometheus metrics: instruments, the registry of a node, and one page for several workers."""
