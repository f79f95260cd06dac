"""Stage `score-teacher`: the plan, the scorer loop, the rankings."""
