"""The engine of a node that stands alone: everything in this process, nothing survives it."""
