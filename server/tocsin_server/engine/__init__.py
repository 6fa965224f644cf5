"""The engine: state that outlives a connection, behind a broker, a presence store and a node registry."""
