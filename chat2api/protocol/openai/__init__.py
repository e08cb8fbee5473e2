"""The OpenAI API's dialect."""
