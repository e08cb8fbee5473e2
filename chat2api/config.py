"""Settings: a frozen value, built once from the environment's variables.

Each setting is a field of Config whose metadata says how it is read and what it means. README's table and
`.env.example` are held to these fields by a test. A malformed value raises ConfigError naming the setting, what was wrong,
and what is allowed.
"""

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from chat2api import setting_forms as forms
from chat2api.environment import look_up
from chat2api.errors import ConfigError

Reach = Literal["on", "loopback", "off"]
"""From where a call without one of our keys is taken: anywhere, from this machine alone, or not at all."""

OPERATOR_KEY_LENGTH = 16
"""Shortest operator key that a server reachable from elsewhere accepts, in characters (S2)."""

SAMPLE_KEYS = frozenset({
    "your_auth_key", "your-auth-key", "your_api_key", "your-api-key", "your-api-key-1", "your-api-key-2",
    "your_api_key_1", "your_authorization", "your_first_authorization", "your_second_authorization",
    "your_password", "your-password", "your_secret", "your_secret_key", "your_access_token", "your_token",
    "sk-xxx", "sk-xxxx", "sk-xxxxxxxx", "sk-free-api", "sk-1234567890", "sk-your-key", "chatgpt2api", "chat2api",
    "go-chatgpt-api", "aurora", "authorization", "password", "admin", "changeme", "change-me", "change_me_please",
    "123456", "12345678", "1234567890123456", "secret", "test", "demo", "example-operator-key",
    "replace-with-a-long-random-key",
})  # fmt: skip
"""Keys printed in documents, ours or those of similar servers: known to everybody."""


def _setting(
    default: Any, parse: Callable[[str], Any], text: str, *, unit: str = "", secret: bool = False, alias: str = ""
) -> Any:
    metadata = {"parse": parse, "text": text, "unit": unit, "secret": secret, "alias": alias}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, repr=False)
class Config:
    """All settings. A field's environment variable is its name in capitals."""

    host: tuple[str, ...] = _setting(
        ("127.0.0.1",),
        forms.list_of(forms.address),
        "addresses to listen on; `0.0.0.0` opens the server to the network",
    )
    port: int = _setting(5005, forms.whole(0, 65535), "port to listen on")
    data_dir: Path = _setting(
        Path("data"),
        forms.directory,
        "folder of the records, made with mode 0700; `none` keeps nothing beyond this run",
    )
    authorization: tuple[str, ...] = _setting(
        (),
        forms.list_of(forms.key),
        "operator keys, each of which opens the pool; unset: one is made at the first start",
        secret=True,
    )
    admin_password: str = _setting(
        "",
        forms.text,
        "password of the pages and admin routes, which operator keys then do not open any more",
        secret=True,
    )
    allow_http: bool = _setting(
        False, forms.boolean, "signing in from other machines over plain HTTP, where the network can read the key"
    )
    secret_key: str = _setting(
        "",
        forms.text,
        "key that wraps the stored tokens' key; unset: a file of mode 0600 in the data folder",
        secret=True,
    )
    api_prefix: str = _setting("", forms.prefix, "path before all routes; the bare paths are then closed")
    own_tokens: Reach = _setting(
        "on", forms.reach, "who may send their own AccessToken or RefreshToken as bearer: `on`, `loopback`, `off`"
    )
    anonymous: Reach = _setting(
        "loopback", forms.reach, "who may chat without any bearer, sign-in-free: `on`, `loopback`, `off`"
    )
    public_mode: str = _setting(
        "off", forms.public_mode, "the tier that everybody may use without a key, such as `free`; `off`: none"
    )
    tiers_file: str = _setting(
        "", forms.path, "TOML file of the tiers; unset: one tier `free` as in `docs/tiers.example.toml`"
    )
    trusted_proxies: tuple[str, ...] = _setting(
        (), forms.list_of(forms.network), "networks of reverse proxies whose `X-Forwarded-For` is believed"
    )
    public_origins: tuple[str, ...] = _setting(
        (), forms.list_of(forms.origin), "origins by which people reach this server, such as `https://chat.example.org`"
    )
    cors_origins: tuple[str, ...] = _setting(
        (), forms.list_of(forms.origin), "web origins whose pages may make calls without a key"
    )
    chatgpt_base_url: tuple[str, ...] = _setting(
        ("https://chatgpt.com",),
        forms.list_of(forms.origin),
        "origins of the ChatGPT backend; an account keeps to one of them",
    )
    auth_key: str = _setting(
        "",
        forms.key,
        "sent as header `authkey` to gateways named in CHATGPT_BASE_URL; a gateway that sends it here may use the pool",
        secret=True,
    )
    proxy_url: tuple[str, ...] = _setting(
        (),
        forms.list_of(forms.proxy),
        "proxies towards the backend (http, https, socks5, socks5h); an account keeps to one of them",
        secret=True,
        alias="GO_CHATGPT_API_PROXY",
    )
    upstream_ca_file: str = _setting(
        "", forms.text, "PEM file of the authorities trusted for the backend; unset: the usual ones"
    )
    conversation_only: bool = _setting(
        False, forms.boolean, "send only the conversation call; the gateway named in CHATGPT_BASE_URL does the rest"
    )
    history_disabled: bool = _setting(True, forms.boolean, "temporary chats that the website does not list")
    oai_language: str = _setting("en-US", forms.language, "language told to the backend")
    pow_difficulty: str = _setting(
        "000010", forms.difficulty, "hardest proof of work that is worked on; a smaller number is harder"
    )
    retry_times: int = _setting(3, forms.whole(0, 20), "further attempts after the first, before the first content")
    enable_limit: bool = _setting(True, forms.boolean, "also wait out limits whose end the backend did not state")
    account_concurrency: int = _setting(
        4, forms.whole(1, 1000), "requests that one account serves at once; the next ones wait in line for up to 10 s"
    )
    random_token: bool = _setting(True, forms.boolean, "pick accounts at random; false: in order")
    scheduled_refresh: bool = _setting(
        False, forms.boolean, "renew access tokens at every start and every four days at 15:00"
    )
    openai_api_keys: tuple[str, ...] = _setting(
        (), forms.list_of(forms.api_key), "API keys to which calls are forwarded; several take turns", secret=True
    )
    openai_base_url: str = _setting(
        "https://api.openai.com/v1", forms.origin, "server of the OpenAI API, or of any API like it, `/v1` included"
    )
    model_routes: tuple[str, ...] = _setting(
        (),
        forms.list_of(forms.model_route),
        "who serves a model where there are accounts and API keys: `pattern=chatgpt`, `pattern=openai`, or both with `|` "
        "between them, the second for when the first cannot; the first pattern that fits decides; unset: accounts what "
        "they offer, API keys the rest",
    )
    openai_auth_token_url: str = _setting(
        "https://auth.openai.com/oauth/token", forms.origin, "where RefreshTokens are exchanged"
    )
    openai_auth_client_id: str = _setting(
        "", forms.key, "OAuth client of the RefreshTokens; unset: chosen by the token's form"
    )
    client_headers_timeout: float = _setting(5.0, forms.number(0.1), "a client's request headers", unit="s")
    client_body_timeout: float = _setting(
        30.0, forms.number(0.1), "a client's silence inside its request body", unit="s"
    )
    client_write_timeout: float = _setting(60.0, forms.number(0.1), "a client that does not read its answer", unit="s")
    connect_timeout: float = _setting(10.0, forms.number(0.1), "connecting to the backend, TLS included", unit="s")
    preparation_timeout: float = _setting(10.0, forms.number(0.1), "each preparing call to the backend", unit="s")
    proof_timeout: float = _setting(
        5.0, forms.number(0.1), "searching one proof of work, waiting not counted", unit="s"
    )
    proof_fallback_timeout: float = _setting(30.0, forms.number(0.1), "the same without the native search", unit="s")
    upstream_headers_timeout: float = _setting(30.0, forms.number(0.1), "the backend's response headers", unit="s")
    first_content_timeout: float = _setting(
        60.0, forms.number(0.1), "the answer's first content, all attempts together", unit="s"
    )
    first_content_timeout_reasoning: float = _setting(
        300.0, forms.number(0.1), "the same for reasoning models", unit="s"
    )
    event_timeout: float = _setting(60.0, forms.number(0.1), "silence between two events of an answer", unit="s")
    answer_timeout: float = _setting(900.0, forms.number(0.1), "a whole answer", unit="s")
    answer_timeout_reasoning: float = _setting(
        1800.0, forms.number(0.1), "a whole answer of a reasoning model", unit="s"
    )
    refresh_timeout: float = _setting(20.0, forms.number(0.1), "exchanging a RefreshToken", unit="s")
    keep_alive_interval: float = _setting(
        15.0,
        forms.number(0.1),
        "how long a streamed answer may stay silent before a comment line keeps it alive",
        unit="s",
    )
    drain_accept: float = _setting(
        5.0, forms.number(0), "how long a stopping server still takes new requests", unit="s"
    )
    drain_timeout: float = _setting(
        120.0, forms.number(0), "how long a stopping server lets running answers finish", unit="s"
    )
    log_level: str = _setting(
        "info", forms.choice("debug", "info", "warning", "error"), "what is logged: debug, info, warning, error"
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Config":
        """Build the settings from variables; raise ConfigError for the first malformed one."""
        values: dict[str, Any] = {}
        for spec in fields(cls):
            name, raw = look_up(environ, spec.name.upper(), spec.metadata["alias"])
            if raw is None:
                continue
            try:
                values[spec.name] = spec.metadata["parse"](raw)
            except ValueError as error:
                shown = "" if spec.metadata["secret"] else f" is {raw[:80]!r}, but"
                raise ConfigError(f"{name}{shown or ':'} {error}.") from None
        config = cls(**values)
        config._check_keys()
        config._check_upstream()
        return config

    @property
    def diskless(self) -> bool:
        """Whether nothing is kept on disk; `data_dir` then names no folder."""
        return self.data_dir == Path(forms.NO_FOLDER)

    @property
    def folder(self) -> Path:
        """The data folder. Raises ConfigError where there is none."""
        if self.diskless:
            raise ConfigError("DATA_DIR is none, so nothing is kept that a command could work on. Name a folder in it.")
        return self.data_dir

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server: loopback addresses and no reverse proxy in front."""
        return self._on_loopback and not self.trusted_proxies and not self.unnamed_proxy

    @property
    def unnamed_proxy(self) -> bool:
        """Whether a reverse proxy must stand in front that TRUSTED_PROXIES does not name, so that all callers look like it.

        PUBLIC_ORIGINS gives it away: there is no TLS without one here, and on a loopback address no other name.
        """
        origins = [] if self.trusted_proxies else [urlsplit(origin) for origin in self.public_origins]
        return any(
            not _is_this_machine(origin.hostname or "") and (self._on_loopback or origin.scheme == "https")
            for origin in origins
        )

    @property
    def _on_loopback(self) -> bool:
        return all(_is_loopback(address) for address in self.host)

    def summary(self) -> dict[str, str]:
        """Every setting as text for the start log; a secret only as set or unset."""
        return {spec.name.upper(): _shown(spec.metadata["secret"], getattr(self, spec.name)) for spec in fields(self)}

    def __repr__(self) -> str:
        """Masked, so that a traceback or a log line cannot show a secret."""
        return "Config(" + ", ".join(f"{name}={text}" for name, text in self.summary().items()) + ")"

    def _check_keys(self) -> None:
        if self._on_loopback:
            return
        if self.admin_password and _is_weak(self.admin_password):
            raise ConfigError(
                f"ADMIN_PASSWORD is shorter than {OPERATOR_KEY_LENGTH} characters or a well-known sample, and HOST opens the "
                "server to other machines. Use a long one, for example four random words."
            )
        for key in self.authorization:
            if _is_weak(key):
                raise ConfigError(
                    f"AUTHORIZATION: a key is shorter than {OPERATOR_KEY_LENGTH} characters or a well-known sample, and HOST "
                    "opens the server to other machines. Use a long random key, for example the output of "
                    "`openssl rand -hex 32`, or leave AUTHORIZATION unset and one is made for you."
                )

    def _check_upstream(self) -> None:
        """Refuse to forward to ourselves, as far as the settings show it; calls that come back are known by a header.

        Without keys nothing is forwarded: then the variable may have been meant for a client started from the same shell.
        """
        if not self.openai_api_keys:
            return
        parts = urlsplit(self.openai_base_url)
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        own = {*self.host, *(("localhost", "127.0.0.1", "::1") if self._serves_loopback() else ())}
        origins = {origin.rstrip("/") for origin in self.public_origins}
        if (host in own and port == self.port) or f"{parts.scheme}://{parts.netloc}" in origins:
            raise ConfigError(
                "OPENAI_BASE_URL names this server itself. It must be the server to which calls are forwarded, such as "
                "https://api.openai.com/v1. (Clients of this server read a variable of the same name: unset it here.)"
            )

    def _serves_loopback(self) -> bool:
        return any(_is_loopback(address) or address in ("0.0.0.0", "::") for address in self.host)


@dataclass(frozen=True, slots=True)
class SettingInfo:
    """What documents say of one setting."""

    name: str
    default: str
    unit: str
    text: str
    secret: bool


def describe_settings() -> list[SettingInfo]:
    """All settings in order, for README's table, `.env.example` and the tests that hold them to Config."""
    return [
        SettingInfo(
            name=spec.name.upper(),
            default=_written(spec.default),
            unit=spec.metadata["unit"],
            text=spec.metadata["text"],
            secret=spec.metadata["secret"],
        )
        for spec in fields(Config)
    ]


def _is_weak(key: str) -> bool:
    return len(key) < OPERATOR_KEY_LENGTH or key.lower() in SAMPLE_KEYS


def _is_loopback(address: str) -> bool:
    return address == "localhost" or ipaddress.ip_address(address).is_loopback


def _is_this_machine(name: str) -> bool:
    """Whether a host name or address never leaves this machine."""
    try:
        return _is_loopback(name)
    except ValueError:
        return name.endswith(".localhost")


def _written(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value)
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _shown(secret: bool, value: object) -> str:
    if secret:
        return "set" if value else "unset"
    return _written(value) or "unset"
