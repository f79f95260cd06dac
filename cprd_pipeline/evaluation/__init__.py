"""Stage `evaluate`: students side by side, and the teacher's upper bound read from rankings."""
