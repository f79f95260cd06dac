"""Dual encoders with their embedding cache, cross-encoders (one adapter per family), loading, device and dtype."""
