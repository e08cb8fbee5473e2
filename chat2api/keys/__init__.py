"""Keys for people."""
