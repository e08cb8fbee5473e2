"""The routes of the OpenAI API, one blueprint a family."""
