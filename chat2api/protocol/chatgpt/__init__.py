"""The ChatGPT web backend's dialect."""
