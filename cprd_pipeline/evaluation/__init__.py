"""Stage `evaluate`: students side by side, and the teacher reranking the head of one's lists, read from rankings."""
