"""A node: it carries out its sessions' effects and owns every task."""
