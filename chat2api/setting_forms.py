"""The forms of settings' values: each function reads the text of a variable, and some make such a function for a bound.

A text that cannot be raises ValueError, whose words go on from the setting's name: "it must be ...".
"""

import ipaddress
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

NO_FOLDER = "none"
"""What DATA_DIR says where nothing is to be kept; for this setting alone the word means something."""
_TRUE = {"true", "1", "t", "y", "yes", "on"}
_FALSE = {"false", "0", "f", "n", "no", "off"}
_BRACKETED = re.compile(r"\[[0-9A-Fa-f]*:")
"""How an IPv6 address in brackets begins, and no list in JSON does."""


def text(value: str) -> str:
    """Any text as it is."""
    return value


def number(minimum: float) -> Callable[[str], float]:
    """A number of seconds, `minimum` or more."""

    def parse(value: str) -> float:
        try:
            seconds = float(value)
        except ValueError:
            raise ValueError(f"it must be a number of seconds, {minimum:g} or more") from None
        if not minimum <= seconds < 1e9:
            raise ValueError(f"it must be a number of seconds, {minimum:g} or more")
        return seconds

    return parse


def whole(minimum: int, maximum: int) -> Callable[[str], int]:
    """A whole number from `minimum` to `maximum`."""

    def parse(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", value) or not minimum <= int(value) <= maximum:
            raise ValueError(f"it must be a whole number from {minimum} to {maximum}")
        return int(value)

    return parse


def boolean(value: str) -> bool:
    """Yes or no, in any of their usual words."""
    word = value.lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise ValueError("it must be true or false (also 1/0, t/f, y/n, yes/no, on/off)")


def choice(*allowed: str) -> Callable[[str], str]:
    """One of the words that are allowed, in small letters."""

    def parse(value: str) -> str:
        if value.lower() in allowed:
            return value.lower()
        raise ValueError(f"it must be one of {', '.join(allowed)}")

    return parse


def reach(value: str) -> str:
    """How far something is open: `on`, `loopback` or `off`, or another word for the first and last."""
    word = value.lower()
    if word in _FALSE:
        return "off"
    return "on" if word in _TRUE else choice("on", "loopback", "off")(value)


def _items(value: str) -> tuple[str, ...]:
    if value.startswith("[") and not _BRACKETED.match(value):
        try:
            parsed = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError('it is not valid JSON; write a, b or ["a", "b"]') from None
        if not all(isinstance(item, str) for item in parsed):
            raise ValueError("every item of the list must be a string")
        raw = cast(list[str], parsed)
    else:
        raw = value.split(",")
    return tuple(dict.fromkeys(item.strip() for item in raw if item.strip()))


def list_of(parse: Callable[[str], str]) -> Callable[[str], tuple[str, ...]]:
    """Several values of one form, written with commas or as JSON; none twice."""

    def parse_all(value: str) -> tuple[str, ...]:
        return tuple(parse(item) for item in _items(value))

    return parse_all


def origin(value: str) -> str:
    """Where a server is: an http or https URL without what belongs to one call."""
    parts = _split_url(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError("it must be an http or https URL without user name, query or fragment")
    return value.rstrip("/")


def proxy(value: str) -> str:
    """A proxy's URL, with user name and password where it wants them."""
    parts = _split_url(value)
    if parts.scheme not in ("http", "https", "socks5", "socks5h") or not parts.hostname:
        raise ValueError("it must be an http://, https://, socks5:// or socks5h:// URL")
    return value


def _split_url(value: str) -> Any:
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise ValueError("it is not a URL") from None
    if any(character.isspace() or ord(character) < 32 for character in value):
        raise ValueError("it is not a URL")
    return parts


def public_mode(value: str) -> str:
    """`off`, or a tier's name."""
    word = value.lower()
    if word in _FALSE:
        return "off"
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,31}", word) or word in _TRUE:
        raise ValueError("it must be `off` or the name of a tier, such as free")
    return word


def prefix(value: str) -> str:
    """A path without its outer slashes."""
    word = value.strip("/")
    if not re.fullmatch(r"[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*", word) or ".." in word:
        raise ValueError("it must be a path made of letters, digits, '.', '_', '~' and '-'")
    return word


def key(value: str) -> str:
    """A key that fits into a header."""
    if not value.isascii() or not value.isprintable() or any(character.isspace() for character in value):
        raise ValueError("a key must be printable ASCII without blanks")
    return value


def api_key(value: str) -> str:
    """A key of somebody else's API."""
    if key(value).startswith("sk-c2a-"):
        raise ValueError("a key that begins with sk-c2a- is one of this server's own")
    return value


def model_route(value: str) -> str:
    """A rule for who serves a model: `pattern=who`, or two with `|` between them."""
    pattern, _, targets = (part.strip() for part in value.partition("="))
    names = [name.strip().lower() for name in targets.split("|")]
    if not pattern or not set(names) <= {"chatgpt", "openai"} or len(set(names)) != len(names):
        raise ValueError("each rule must be a pattern, `=` and who serves, such as gpt-4*=chatgpt|openai")
    return f"{pattern}={'|'.join(names)}"


def language(value: str) -> str:
    """A language tag."""
    if not re.fullmatch(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*", value):
        raise ValueError("it must be a language tag such as en-US")
    return value


def difficulty(value: str) -> str:
    """Hexadecimal digits."""
    if not re.fullmatch(r"[0-9a-fA-F]{1,16}", value):
        raise ValueError("it must be hexadecimal digits such as 000010 (smaller is harder)")
    return value.lower()


def address(value: str) -> str:
    """An address to listen on."""
    if value == "localhost":
        return value
    try:
        return str(ipaddress.ip_address(value.strip("[]")))
    except ValueError:
        raise ValueError("it must be an IP address such as 127.0.0.1 or 0.0.0.0") from None


def network(value: str) -> str:
    """An address, or a network of them."""
    try:
        return str(ipaddress.ip_network(value, strict=False))
    except ValueError:
        raise ValueError("it must be an IP address or network such as 10.0.0.0/8") from None


def directory(value: str) -> Path:
    """A folder; `NO_FOLDER` stands for none."""
    if "\0" in value:
        raise ValueError("it must be a folder's path")
    return Path(NO_FOLDER) if value.lower() == NO_FOLDER else Path(value)


def path(value: str) -> str:
    """A file's path."""
    if "\0" in value:
        raise ValueError("it must be a file's path")
    return value
