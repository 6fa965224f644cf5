"""Leases: which nodes are alive, and the reaping of the presence entries of dead nodes."""
