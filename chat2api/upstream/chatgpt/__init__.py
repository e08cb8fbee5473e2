"""The ChatGPT web backend, one account's session at a time."""
