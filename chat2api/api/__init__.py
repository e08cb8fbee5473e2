"""The HTTP surface, in Quart."""
