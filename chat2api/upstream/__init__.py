"""I/O towards other people's servers."""
