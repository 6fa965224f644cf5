"""What is answered over plain HTTP: the server API, health, metrics, and the page."""
