"""Where settings come from: the environment over an `.env` file, what counts as unset, and names of other servers."""

import random
import string
from pathlib import Path

import pytest

from chat2api.config import Config, describe_settings
from chat2api.environment import KNOWN_ELSEWHERE, load_environment, look_up, unused_settings
from chat2api.errors import ConfigError


@pytest.mark.parametrize("unset", ["", "  ", "[]", "None", "none"])
def test_R23_empty_values_mean_unset(unset: str) -> None:
    # DATA_DIR=none has a meaning of its own; see below.
    environ = {spec.name: unset for spec in describe_settings() if (spec.name, unset.lower()) != ("DATA_DIR", "none")}
    assert Config.from_env(environ) == Config()


def test_the_other_name_of_the_proxy_setting_works_and_the_own_name_wins() -> None:
    assert Config.from_env({"GO_CHATGPT_API_PROXY": "http://a:1"}).proxy_url == ("http://a:1",)
    both = {"GO_CHATGPT_API_PROXY": "http://a:1", "PROXY_URL": "http://b:1"}
    assert Config.from_env(both).proxy_url == ("http://b:1",)


def test_R23_a_hundred_bad_env_files_end_in_a_config_error_or_a_config(tmp_path: Path) -> None:
    chooser = random.Random(20261121)
    names = [spec.name for spec in describe_settings()]
    for _ in range(100):
        lines = []
        for _ in range(chooser.randint(1, 6)):
            junk = "".join(chooser.choice(string.printable) for _ in range(chooser.randint(0, 30)))
            lines.append(f"{chooser.choice(names)}={junk}".encode())
        if chooser.random() < 0.3:
            lines.append(chooser.randbytes(20))
        file = tmp_path / ".env"
        file.write_bytes(b"\n".join(lines))
        try:
            Config.from_env(load_environment(file))
        except ConfigError as error:
            assert error.message


def test_the_env_file_gives_values_and_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("PORT=6001\nRETRY_TIMES=7\n")
    monkeypatch.setenv("PORT", "6002")
    config = Config.from_env(load_environment(tmp_path / ".env"))
    assert (config.port, config.retry_times) == (6002, 7)


def test_a_file_that_is_no_text_is_told_by_its_name(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"PORT=\xff")
    with pytest.raises(ConfigError, match=r"\.env cannot be read .*UTF-8"):
        load_environment(tmp_path / ".env")
    (tmp_path / ".env").unlink()
    assert "PORT" not in load_environment(tmp_path / ".env")


def test_none_says_something_for_the_data_folder_alone() -> None:
    assert look_up({"DATA_DIR": " None "}, "DATA_DIR") == ("DATA_DIR", "None")
    assert look_up({"PORT": "None"}, "PORT", "PORT_TOO") == ("PORT", None)


def test_names_known_elsewhere_are_told_and_are_no_error() -> None:
    environ = {"AUTO_SEED": "true", "ADMIN_IP_WHITELIST": "", "PORT": "5005"}
    assert unused_settings(environ) == ["AUTO_SEED"]
    assert Config.from_env(environ) == Config()
    assert not KNOWN_ELSEWHERE & {spec.name for spec in describe_settings()}
