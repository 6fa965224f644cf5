"""Webhooks: lifecycle events as signed HTTP requests."""
