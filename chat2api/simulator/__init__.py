"""A stand-in for the ChatGPT web backend, for the demo and the tests."""
