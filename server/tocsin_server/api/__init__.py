"""The HTTP API for back ends."""
