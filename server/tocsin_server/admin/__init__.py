"""Health, metrics and the demo page over HTTP."""
