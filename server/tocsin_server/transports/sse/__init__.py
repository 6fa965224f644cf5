"""Server-Sent Events connections."""
