"""The forms of settings' values, each with what it takes and what it refuses."""

from collections.abc import Callable
from pathlib import Path

import pytest

from chat2api import setting_forms as forms


@pytest.mark.parametrize(
    ("form", "text", "value"),
    [
        (forms.text, " any text ", " any text "),
        (forms.number(0), "0", 0.0),
        (forms.number(0.1), "1e3", 1000.0),
        (forms.whole(1, 20), "20", 20),
        (forms.boolean, "Yes", True),
        (forms.boolean, "F", False),
        (forms.choice("debug", "info"), "INFO", "info"),
        (forms.reach, "no", "off"),
        (forms.reach, "1", "on"),
        (forms.reach, "Loopback", "loopback"),
        (forms.list_of(forms.key), "a, b,,a", ("a", "b")),
        (forms.list_of(forms.key), '["a", " b "]', ("a", "b")),
        (forms.list_of(forms.address), "::1,localhost", ("::1", "localhost")),
        (forms.list_of(forms.address), "[::1]", ("::1",)),
        (forms.list_of(forms.address), "[2001:DB8::1], 127.0.0.1", ("2001:db8::1", "127.0.0.1")),
        (forms.origin, "https://a.example/v1/", "https://a.example/v1"),
        (forms.proxy, "socks5h://u:p@a:1", "socks5h://u:p@a:1"),
        (forms.public_mode, "Off", "off"),
        (forms.public_mode, "Blog_2", "blog_2"),
        (forms.prefix, "/a/b~c/", "a/b~c"),
        (forms.key, "k!", "k!"),
        (forms.api_key, "sk-1", "sk-1"),
        (forms.model_route, " gpt-4* = ChatGPT | openai ", "gpt-4*=chatgpt|openai"),
        (forms.language, "zh-Hans-CN", "zh-Hans-CN"),
        (forms.difficulty, "00FF", "00ff"),
        (forms.address, "[::1]", "::1"),
        (forms.network, "10.1.2.3/8", "10.0.0.0/8"),
        (forms.directory, "NONE", Path("none")),
        (forms.directory, "/a/b", Path("/a/b")),
        (forms.path, "tiers.toml", "tiers.toml"),
    ],
)
def test_a_form_gives_the_value_that_is_meant(form: Callable[[str], object], text: str, value: object) -> None:
    assert form(text) == value


@pytest.mark.parametrize(
    ("form", "text", "told"),
    [
        (forms.number(0.1), "0", "0.1 or more"),
        (forms.number(0), "inf", "number of seconds"),
        (forms.number(0), "nan", "number of seconds"),
        (forms.whole(1, 20), "21", "from 1 to 20"),
        (forms.whole(0, 20), "٣", "whole number"),
        (forms.boolean, "2", "true or false"),
        (forms.choice("debug", "info"), "loud", "debug, info"),
        (forms.reach, "lan", "on, loopback, off"),
        (forms.list_of(forms.key), '["a", 1]', "must be a string"),
        (forms.list_of(forms.key), "[" * 100_000, "not valid JSON"),
        (forms.origin, "ftp://a", "http or https"),
        (forms.origin, "https://u@a", "without user name"),
        (forms.origin, "https://a?b", "without user name"),
        (forms.origin, "https://a b", "not a URL"),
        (forms.origin, "https://a:port", "not a URL"),
        (forms.proxy, "gopher://a", "socks5"),
        (forms.public_mode, "on", "name of a tier"),
        (forms.prefix, "a//b", "path made of"),
        (forms.prefix, "a/../b", "path made of"),
        (forms.key, "a b", "without blanks"),
        (forms.key, "ä", "ASCII"),
        (forms.api_key, "sk-c2a-1", "this server's own"),
        (forms.model_route, "gpt-4", "a pattern"),
        (forms.model_route, "gpt-4=chatgpt|chatgpt", "a pattern"),
        (forms.language, "english please", "such as en-US"),
        (forms.difficulty, "0x10", "hexadecimal"),
        (forms.address, "example.org", "IP address"),
        (forms.network, "10.0.0.0/33", "network"),
        (forms.directory, "a\0b", "folder"),
        (forms.path, "a\0b", "file"),
    ],
)
def test_R23_what_cannot_be_is_told_with_what_is_allowed(form: Callable[[str], object], text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        form(text)
