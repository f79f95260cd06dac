"""Judged sets: human judgments beyond the annotated positives, one file a set."""
