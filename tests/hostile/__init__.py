"""Hostile clients against real nodes, and what honest clients notice of them."""
