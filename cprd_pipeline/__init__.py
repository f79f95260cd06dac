"""Buy a cross-encoder's knowledge once and distil it into a dual encoder for image-text retrieval."""

__version__ = "0.3.0"
