"""What outlives a request: records and shared state."""
