"""distill: from a large reasoning teacher to small dense students, in one checked way."""

__version__ = "0.1.0"
