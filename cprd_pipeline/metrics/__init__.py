"""Retrieval metrics in pure NumPy."""
