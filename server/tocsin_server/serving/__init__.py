"""uvicorn around the application, and several worker processes on one port."""
