"""The outbox: a table of PostgreSQL. Only this package imports asyncpg."""
