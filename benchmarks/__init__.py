"""Measurements of this server against a plain one, on one machine and in one run. Start them by `python -m benchmarks`."""
