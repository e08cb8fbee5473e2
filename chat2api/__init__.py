"""One self-hosted server through which any OpenAI client uses ChatGPT accounts and OpenAI API keys."""

from pathlib import Path

__version__ = (Path(__file__).parent.parent / "version.txt").read_text(encoding="utf-8").strip()
"""The release, as version.txt at the project's root has it."""
