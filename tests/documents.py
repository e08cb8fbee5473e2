"""The parts of the documents that follow from Config: README's table of settings in each language, and `.env.example`.

`python -m tests.documents` writes them anew; the suite fails while they differ. A table that people keep by hand is wrong
after the second change. What a setting means in Chinese stands in README.zh-CN.md alone and is kept; a setting that is
not there yet comes with its English words, for somebody to translate.
"""

import re
from pathlib import Path

from chat2api.config import SettingInfo, describe_settings

ROOT = Path(__file__).parent.parent

_TABLE_HEAD = "| Setting | Default | Meaning |\n|---|---|---|\n"
_TABLE = re.compile(re.escape(_TABLE_HEAD) + r"(?:\|.*\n)*")
_CHINESE_HEAD = "| 设置 | 默认值 | 含义 |\n|---|---|---|\n"
_CHINESE_TABLE = re.compile(re.escape(_CHINESE_HEAD) + r"((?:\|.*\n)*)")
_CHINESE_UNITS = {"s": "秒", "": ""}

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


def with_chinese_settings_table(readme: str) -> str:
    """Give the Chinese README's text with the table as it should be. Raises ValueError when there is no such table in it."""
    found = _CHINESE_TABLE.search(readme)
    if not found:
        raise ValueError("README.zh-CN.md has no table of settings")
    known = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| (.*) \|$", found[1], re.MULTILINE))
    rows = (
        f"| `{setting.name}` | {_chinese_default(setting)} | {known.get(setting.name, setting.text)} |\n"
        for setting in _all()
    )
    return readme[: found.start()] + _CHINESE_HEAD + "".join(rows) + readme[found.end() :]


def _all() -> list[SettingInfo]:
    return describe_settings()


def _default(setting: SettingInfo) -> str:
    return " ".join(filter(None, (f"`{setting.default}`", setting.unit))) if setting.default else "unset"


def _chinese_default(setting: SettingInfo) -> str:
    return (
        " ".join(filter(None, (f"`{setting.default}`", _CHINESE_UNITS[setting.unit]))) if setting.default else "未设置"
    )


def _sentence(setting: SettingInfo) -> str:
    unit = f" ({_UNITS.get(setting.unit, setting.unit)})" if setting.unit else ""
    return setting.text[0].upper() + setting.text[1:] + unit


def main() -> None:
    """Write the files anew."""
    (ROOT / ".env.example").write_text(env_example(), encoding="utf-8")
    readme = ROOT / "README.md"
    readme.write_text(with_settings_table(readme.read_text(encoding="utf-8")), encoding="utf-8")
    chinese = ROOT / "README.zh-CN.md"
    chinese.write_text(with_chinese_settings_table(chinese.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
