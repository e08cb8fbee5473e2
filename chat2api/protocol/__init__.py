"""Pure translation: bytes and values in, bytes and values out."""
