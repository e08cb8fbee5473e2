"""Where settings come from: the environment and `.env`, of which this is the only reader.

Empty, `[]` and `None` mean unset.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from chat2api.errors import ConfigError
from chat2api.setting_forms import NO_FOLDER

_UNSET = {"", "[]", "none"}

KNOWN_ELSEWHERE = frozenset({
    "CF_FILE_URL", "ENABLE_GATEWAY", "AUTO_SEED", "FORCE_NO_HISTORY", "NO_SENTINEL", "SENTINEL_PROXY_URL", "FILE_HOST",
    "VOICE_HOST", "X_SIGN", "ADMIN_IP_WHITELIST", "ADMIN_TRUST_PROXY", "SITE_PASSWORD",
    "ACCEPT_LANGUAGE", "CLIENT_TIMEZONE", "CLIENT_TIMEZONE_OFFSET_MIN", "CHAT_REQUIREMENTS_TIMEOUT",
    "CHAT_REQUEST_TIMEOUT", "OAI_CLIENT_VERSION", "OAI_CLIENT_BUILD_NUMBER", "OPENAI_AUTH_AUTHORIZE_URL",
    "OPENAI_AUTH_REDIRECT_URI", "OPENAI_AUTH_SCOPE", "ENABLE_SESSION_STICKY", "SESSION_TTL_DAYS", "SESSION_LC_FIELD",
    "SESSION_TRIM_TO_LAST_USER", "CHECK_MODEL", "UPLOAD_BY_URL", "EXPORT_PROXY_URL", "USER_AGENTS", "ARKOSE_TOKEN_URL",
    "OPENAI_EMAIL", "OPENAI_PASSWORD", "CONTINUE_SIGNAL", "ENABLE_HISTORY", "IMITATE_accessToken", "TLS_CERT", "TLS_KEY",
})  # fmt: skip
"""Settings of similar servers that this one does not read; they get one warning line at start."""


def load_environment(env_file: Path = Path(".env")) -> dict[str, str]:
    """The process environment over the values of an `.env` file, where there is one."""
    try:
        stored = dotenv_values(env_file, interpolate=False) if env_file.is_file() else {}
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{env_file} cannot be read ({error}). It must be a UTF-8 text of NAME=value lines."
        ) from error
    return {name: value for name, value in stored.items() if value is not None} | dict(os.environ)


def unused_settings(environ: Mapping[str, str]) -> list[str]:
    """Names known from similar servers that are set but that this server does not read."""
    return sorted(name for name in KNOWN_ELSEWHERE if look_up(environ, name)[1] is not None)


def look_up(environ: Mapping[str, str], name: str, alias: str = "") -> tuple[str, str | None]:
    """Give the name under which a setting is set, its own before the other one, and what it says; None for one that is unset."""
    for candidate in (name, alias):
        raw = environ.get(candidate, "").strip() if candidate else ""
        if raw.lower() not in _UNSET or (candidate == "DATA_DIR" and raw.lower() == NO_FOLDER):
            return candidate, raw
    return name, None
