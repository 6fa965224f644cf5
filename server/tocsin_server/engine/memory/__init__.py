"""The engine of a single node: all state is in this process and is lost with it."""
