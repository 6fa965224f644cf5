"""Connections to Redis: addresses, connecting, Sentinels, and the connection itself."""
