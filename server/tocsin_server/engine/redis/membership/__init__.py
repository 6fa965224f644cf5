"""Which nodes are alive, and what happens to the entries of those that are not."""
