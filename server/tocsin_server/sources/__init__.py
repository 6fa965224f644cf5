"""Sources, in which back ends write publications: the outbox in PostgreSQL, the publish stream in Redis."""
