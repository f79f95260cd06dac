"""One file per source format; each yields the same records."""
