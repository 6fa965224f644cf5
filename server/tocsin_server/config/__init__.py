"""Configuration: the options, how they are loaded, their errors, and what they leave open."""
