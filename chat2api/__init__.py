"""One self-hosted server through which any OpenAI client uses ChatGPT accounts and OpenAI API keys."""

from importlib.metadata import version
from pathlib import Path

_VERSION_FILE = Path(__file__).parent.parent / "version.txt"

__version__ = _VERSION_FILE.read_text(encoding="utf-8").strip() if _VERSION_FILE.is_file() else version("chat2api")
"""The release, as version.txt at the project's root has it (or what was built from it)."""
