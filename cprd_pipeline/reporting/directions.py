"""The two directions of retrieval."""

DIRECTIONS = ("i2t", "t2i")
"""Images ask for captions; captions ask for images."""

TITLES = {"i2t": "image → text", "t2i": "text → image"}
"""What the page calls them."""
