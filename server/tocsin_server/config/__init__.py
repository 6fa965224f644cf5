"""Configuration: options, where they are read from, and what is wrong with them."""
