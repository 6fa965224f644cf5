"""Connections that are the response to one HTTP request."""
