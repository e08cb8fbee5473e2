"""Settings: every form that is promised, every complaint with a name, and documents that say the same."""

import re
from pathlib import Path

import pytest

from chat2api.config import SAMPLE_KEYS, Config, describe_settings
from chat2api.errors import ConfigError

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("word", ["true", "True", "1", "t", "Y", "yes", "ON"])
def test_R23_all_words_for_true_are_understood(word: str) -> None:
    assert Config.from_env({"CONVERSATION_ONLY": word}).conversation_only is True


@pytest.mark.parametrize("word", ["false", "0", "F", "n", "No", "off"])
def test_R23_all_words_for_false_are_understood(word: str) -> None:
    assert Config.from_env({"HISTORY_DISABLED": word}).history_disabled is False


@pytest.mark.parametrize(
    "text", ["http://a:1, socks5://b:2", '["http://a:1", "socks5://b:2"]', "http://a:1,,socks5://b:2,"]
)
def test_R23_lists_are_taken_with_commas_or_as_json(text: str) -> None:
    assert Config.from_env({"PROXY_URL": text}).proxy_url == ("http://a:1", "socks5://b:2")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "70000"),
        ("PORT", "-1"),
        ("PORT", "5005.0"),
        ("HOST", "example.org"),
        ("API_PREFIX", "a b"),
        ("API_PREFIX", "../x"),
        ("OWN_TOKENS", "sometimes"),
        ("ANONYMOUS", "lan"),
        ("CHATGPT_BASE_URL", "chatgpt.com"),
        ("CHATGPT_BASE_URL", "file:///etc/passwd"),
        ("CHATGPT_BASE_URL", '["https://a", 1]'),
        ("CHATGPT_BASE_URL", '["https://a"'),
        ("PROXY_URL", "ftp://proxy:21"),
        ("PROXY_URL", "http://proxy:port"),
        ("HISTORY_DISABLED", "maybe"),
        ("POW_DIFFICULTY", "0x10"),
        ("RETRY_TIMES", "many"),
        ("RETRY_TIMES", "-3"),
        ("CONNECT_TIMEOUT", "soon"),
        ("CONNECT_TIMEOUT", "nan"),
        ("CONNECT_TIMEOUT", "0"),
        ("TRUSTED_PROXIES", "everyone"),
        ("AUTHORIZATION", "key one"),
        ("OAI_LANGUAGE", "english please"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_R23_a_malformed_value_names_the_setting_and_what_is_allowed(name: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.from_env({name: value})
    assert caught.value.message.startswith(name)
    assert "must" in caught.value.message or "JSON" in caught.value.message or "URL" in caught.value.message


def test_R23_a_complaint_about_a_secret_never_repeats_it() -> None:
    with pytest.raises(ConfigError) as caught:
        Config.from_env({"PROXY_URL": "gopher://user:hunter2secret@proxy"})
    assert "hunter2secret" not in caught.value.message


@pytest.mark.parametrize("sample", sorted(SAMPLE_KEYS)[:40])
def test_S2_samples_and_short_keys_are_refused_where_others_can_reach_the_server(sample: str) -> None:
    with pytest.raises(ConfigError, match="AUTHORIZATION"):
        Config.from_env({"HOST": "0.0.0.0", "AUTHORIZATION": sample})
    assert Config.from_env({"HOST": "127.0.0.1", "AUTHORIZATION": sample}).authorization == (sample,)


@pytest.mark.parametrize("sample", ["", *sorted(SAMPLE_KEYS)[:30], "fifteen chars !", "x"])
def test_S2_a_weak_password_stops_a_server_that_others_can_reach(sample: str) -> None:
    if not sample:
        assert Config.from_env({"HOST": "0.0.0.0", "ADMIN_PASSWORD": ""}).admin_password == ""
        return
    with pytest.raises(ConfigError, match="ADMIN_PASSWORD") as refusal:
        Config.from_env({"HOST": "0.0.0.0", "ADMIN_PASSWORD": sample})
    assert f" {sample} " not in refusal.value.message or len(sample) < 8
    assert Config.from_env({"HOST": "127.0.0.1", "ADMIN_PASSWORD": sample}).admin_password == sample
    assert Config.from_env({"HOST": "0.0.0.0", "ADMIN_PASSWORD": "four quiet words together"}).admin_password


def test_S2_every_key_that_a_document_of_ours_prints_counts_as_a_sample() -> None:
    printed = set()
    for document in [ROOT / ".env.example", ROOT / "README.md", *ROOT.glob("docker-compose*.yml")]:
        printed |= set(re.findall(r"AUTHORIZATION[=:]\s*([\w-]{3,})", document.read_text(encoding="utf-8")))
    assert printed <= SAMPLE_KEYS


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, True),
        ({"HOST": "127.0.0.1,::1"}, True),
        ({"HOST": "0.0.0.0"}, False),
        ({"HOST": "127.0.0.1,192.0.2.1"}, False),
        ({"TRUSTED_PROXIES": "127.0.0.1"}, False),
        ({"PUBLIC_ORIGINS": "https://chat.example.org"}, False),
        ({"PUBLIC_ORIGINS": "http://localhost:5005,https://[::1]"}, True),
    ],
)
def test_loopback_means_every_address_and_no_proxy_in_front(environ: dict[str, str], expected: bool) -> None:
    assert Config.from_env(environ).loopback is expected


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"PUBLIC_ORIGINS": "http://nas.example"}, True),
        ({"PUBLIC_ORIGINS": "http://nas.example", "HOST": "0.0.0.0"}, False),
        ({"PUBLIC_ORIGINS": "HTTPS://nas.example", "HOST": "0.0.0.0"}, True),
        ({"PUBLIC_ORIGINS": "https://nas.example", "TRUSTED_PROXIES": "10.0.0.0/8"}, False),
        ({"PUBLIC_ORIGINS": "https://chat.localhost"}, False),
        ({"PUBLIC_ORIGINS": "https://192.0.2.1"}, True),
    ],
)
def test_public_origins_tell_of_a_proxy_that_nobody_named(environ: dict[str, str], expected: bool) -> None:
    assert Config.from_env(environ).unnamed_proxy is expected


def test_S18_printing_settings_shows_secrets_as_set_or_unset_only() -> None:
    config = Config.from_env({"AUTHORIZATION": "canary-operator-key", "PROXY_URL": "http://u:canary-pass@h:1"})
    shown = repr(config) + str(config) + str(config.summary())
    assert "canary" not in shown
    assert config.summary()["AUTHORIZATION"] == "set"
    assert config.summary()["SECRET_KEY"] == "unset"


def test_the_settings_table_of_the_readme_says_what_config_says() -> None:
    rows = re.findall(
        r"^\| `([A-Z0-9_]+)` \| (.*?) \| (.*?) \|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M
    )
    expected = [
        (spec.name, f"`{spec.default}`{' ' + spec.unit if spec.unit else ''}" if spec.default else "unset", spec.text)
        for spec in describe_settings()
    ]
    assert rows == expected


def test_the_example_env_file_names_every_setting_with_its_default() -> None:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    values = dict(line.removeprefix("# ").split("=", 1) for line in lines if re.match(r"# [A-Z0-9_]+=", line))
    assert values == {spec.name: spec.default for spec in describe_settings()}


OWN_NAMES = [
    {"OPENAI_BASE_URL": "http://localhost:5005/v1"},
    {"OPENAI_BASE_URL": "http://127.0.0.1:5005/v1"},
    {"OPENAI_BASE_URL": "http://[::1]:7000/v1", "PORT": "7000"},
    {"OPENAI_BASE_URL": "http://localhost/v1", "PORT": "80"},
    {"OPENAI_BASE_URL": "http://localhost:5005/v1", "HOST": "0.0.0.0", "AUTHORIZATION": "a-long-operator-key-of-ours"},
    {"OPENAI_BASE_URL": "https://chat.example.org/v1", "PUBLIC_ORIGINS": "https://chat.example.org"},
]


@pytest.mark.parametrize("environ", OWN_NAMES)
def test_forwarding_to_this_server_itself_is_refused(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="OPENAI_BASE_URL"):
        Config.from_env(environ | {"OPENAI_API_KEYS": "sk-1"})
    assert Config.from_env(environ).openai_api_keys == (), "without keys nothing is forwarded"


@pytest.mark.parametrize(
    "environ",
    [
        {"OPENAI_BASE_URL": "http://localhost:5006/v1"},
        {"OPENAI_BASE_URL": "http://192.0.2.1:5005/v1"},
        {
            "OPENAI_BASE_URL": "http://127.0.0.1:5005/v1",
            "HOST": "192.0.2.7",
            "AUTHORIZATION": "a-long-operator-key-of-ours",
        },
        {"OPENAI_BASE_URL": "https://api.openai.com/v1", "PORT": "443"},
    ],
)
def test_forwarding_to_another_server_is_not(environ: dict[str, str]) -> None:
    assert Config.from_env(environ | {"OPENAI_API_KEYS": "sk-1,sk-2"}).openai_api_keys == ("sk-1", "sk-2")


def test_a_key_of_ours_is_no_api_key() -> None:
    with pytest.raises(ConfigError, match="sk-c2a-"):
        Config.from_env({"OPENAI_API_KEYS": '["sk-1", "sk-c2a-ours"]'})


def test_S18_api_keys_are_never_shown() -> None:
    config = Config.from_env({"OPENAI_API_KEYS": "sk-very-secret"})
    assert "very-secret" not in repr(config)
    assert "very-secret" not in str(config.summary())


@pytest.mark.parametrize("word", ["none", "None", " NONE "])
def test_DATA_DIR_none_keeps_nothing_and_commands_say_so(word: str) -> None:
    config = Config.from_env({"DATA_DIR": word})
    assert config.diskless
    assert config.summary()["DATA_DIR"] == "none"
    with pytest.raises(ConfigError, match="DATA_DIR is none"):
        _ = config.folder


@pytest.mark.parametrize("value", ["", "[]", "data", "none/x", "../none"])
def test_every_other_DATA_DIR_is_a_folder(value: str) -> None:
    config = Config.from_env({"DATA_DIR": value})
    assert not config.diskless
    assert config.folder == config.data_dir


@pytest.mark.parametrize(
    ("value", "expected"),
    [("", "off"), ("off", "off"), ("False", "off"), ("none", "off"), ("Free", "free"), ("a-1", "a-1")],
)
def test_PUBLIC_MODE_names_a_tier_or_is_off(value: str, expected: str) -> None:
    assert Config.from_env({"PUBLIC_MODE": value}).public_mode == expected


@pytest.mark.parametrize("value", ["on", "true", "1", "two tiers", "/free", "x" * 33])
def test_R23_PUBLIC_MODE_is_no_switch(value: str) -> None:
    with pytest.raises(ConfigError, match=r"PUBLIC_MODE is .* the name of a tier"):
        Config.from_env({"PUBLIC_MODE": value})
