"""Prometheus metrics: what is counted, with which instruments, and across workers."""
