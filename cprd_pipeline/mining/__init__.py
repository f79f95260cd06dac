"""Stage `mine`: hard negative candidates of both directions."""
