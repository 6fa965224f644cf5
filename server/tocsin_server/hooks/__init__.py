"""Hooks: the application decides about what clients ask for (docs/hooks.md)."""
