"""What a new database begins with: links that a check can reach without leaving this machine."""

from pathlib import Path

from tocsin_demo.database import Database
from tocsin_demo.store import Store

FIRST_LINKS = (
    ("Is this node ready?", "/health/ready"),
    ("The HTTP API, described", "/api/openapi.json"),
    ("What this node counts", "/metrics"),
)


def prepare(database: Path, push_server: str) -> Database:
    """The database, made if it is not there. Where processes will share it, before any of them starts."""
    tables = Database(database)
    store = Store(tables)
    if store.changes().version == 0:
        for title, path in FIRST_LINKS:
            store.add(push_server + path, title)
    return tables
