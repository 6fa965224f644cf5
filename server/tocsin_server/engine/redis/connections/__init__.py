"""Connections to Redis: addresses, Sentinels, reconnecting."""
