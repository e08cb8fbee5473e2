"""The parts of the documents that follow from Config: README's table of settings, and `.env.example`.

`python -m tests.documents` writes both anew; the suite fails while they differ. A table that people keep by hand is wrong
after the second change.
"""

import re
from pathlib import Path

from chat2api.config import SettingInfo, describe_settings

ROOT = Path(__file__).parent.parent

_TABLE_HEAD = "| Setting | Default | Meaning |\n|---|---|---|\n"
_TABLE = re.compile(re.escape(_TABLE_HEAD) + r"(?:\|.*\n)*")

_ENV_HEAD = """\
# Settings of chat2api. Copy this file to .env and uncomment what you change; the environment wins over .env.
# Lists take commas or JSON. Booleans take true/false, yes/no, on/off, 1/0. Empty means the default.
"""
_UNITS = {"s": "seconds"}


def settings_table() -> str:
    """Give README's table of settings, its head included, in the order of Config."""
    return _TABLE_HEAD + "".join(f"| `{setting.name}` | {_default(setting)} | {setting.text} |\n" for setting in _all())


def env_example() -> str:
    """Give `.env.example`: each setting commented out, with its meaning above it and its default as the value."""
    return _ENV_HEAD + "".join(f"\n## {_sentence(setting)}\n# {setting.name}={setting.default}\n" for setting in _all())


def with_settings_table(readme: str) -> str:
    """Give README's text with the table as it should be. Raises ValueError when there is no such table in it."""
    if not _TABLE.search(readme):
        raise ValueError("README.md has no table of settings")
    return _TABLE.sub(lambda _: settings_table(), readme, count=1)


def _all() -> list[SettingInfo]:
    return describe_settings()


def _default(setting: SettingInfo) -> str:
    return " ".join(filter(None, (f"`{setting.default}`", setting.unit))) if setting.default else "unset"


def _sentence(setting: SettingInfo) -> str:
    unit = f" ({_UNITS.get(setting.unit, setting.unit)})" if setting.unit else ""
    return setting.text[0].upper() + setting.text[1:] + unit


def main() -> None:
    """Write both files anew."""
    (ROOT / ".env.example").write_text(env_example(), encoding="utf-8")
    readme = ROOT / "README.md"
    readme.write_text(with_settings_table(readme.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
