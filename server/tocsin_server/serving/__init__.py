"""Serving: uvicorn around the application, limits on HTTP connections, and several workers on one port."""
