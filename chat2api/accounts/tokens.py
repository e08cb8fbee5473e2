"""What a token is, who it belongs to, when it ends: read from the token alone, without asking anybody.

Signatures are not checked: these tokens are issued to us, and only their issuer has to believe them. Sources: the web
client's own tokens, as public clients of 2023 to 2026 read them.
"""

import base64
import binascii
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from chat2api.sentences import Phrases, Sentence
from chat2api.storage.values import AccountKind, Identity, NewAccount, Secrets

TokenKind = Literal["access", "refresh", "session", "share", "device", "api_key", "issued_key"]
"""access, refresh, session, share (`fk-`) and device make accounts; api_key and issued_key do not."""

REFRESH_MARGIN = 600.0
"""A token counts as ending this many seconds early, or a tenth of its life if that is less."""

SAY = Phrases(
    "token",
    {
        "workspace": "The account id after the comma has characters that no account id has.",
        "api_key": "This is an OpenAI API key. API keys are a setting of their own, not an account.",
        "issued_key": "This is a key that this server issued, not an account's token.",
        "unknown": "This is no AccessToken (eyJ…), RefreshToken (45 characters or rt_…) or session token.",
    },
)
"""Why a text makes no account."""

UNKNOWN_LIFE = 5 * 24 * 3600.0
"""What an access token without readable end is taken to last; a 401 corrects it. Seen in public servers of 2024."""

SESSION_SEPARATOR = "|||"
"""Joins the chunks of a session cookie that was too long for one."""

_OLD_REFRESH = re.compile(r"[A-Za-z0-9_-]{45}")
_NEW_REFRESH = re.compile(r"rt_[A-Za-z0-9._~+/=-]{57,}")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+={0,2}")
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_WORKSPACE = re.compile(r"[A-Za-z0-9_-]{1,128}")
_AUTH_CLAIM = "https://api.openai.com/auth"
_PROFILE_CLAIM = "https://api.openai.com/profile"


@dataclass(frozen=True, slots=True)
class Claims:
    """What an access token says: instants in Unix seconds, None where it says nothing."""

    identity: Identity
    issued_at: float | None
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class Credential:
    """One account's worth of an import: its tokens, and where they stood (line 1 is the first)."""

    line: int
    kind: AccountKind
    access: str | None = field(default=None, repr=False)
    renewable: str | None = field(default=None, repr=False)
    device_id: str | None = None
    workspace_id: str | None = None


class UnusableTokenError(ValueError):
    """A text that makes no account; `sentence` says why and never repeats it."""

    def __init__(self, sentence: Sentence) -> None:
        """Say why."""
        super().__init__(sentence)
        self.sentence = sentence


def tell_kind(token: str) -> TokenKind | None:
    """Tell what kind of token this is by its form, None for none that we know.

    A JWT and an encrypted JWE begin with the same letters; the header's `alg` and the number of parts tell them
    apart. `sk-c2a-` is ours, any other `sk-` an API key, whatever its length.
    """
    if not _PRINTABLE.fullmatch(token):
        return None
    prefixes: tuple[tuple[str, TokenKind], ...] = (
        ("sk-c2a-", "issued_key"),
        ("sk-", "api_key"),
        ("fk-", "share"),
        ("sess-", "session"),
    )
    for prefix, kind in prefixes:
        if token.startswith(prefix):
            return kind if len(token) > len(prefix) else None
    if _NEW_REFRESH.fullmatch(token):
        return "refresh"
    if token.startswith("eyJ"):
        return _tell_jose(token)
    if _OLD_REFRESH.fullmatch(token):
        return "refresh"
    return "device" if _is_uuid(token) else None


def session_cookie(token: str) -> str:
    """Give a session token as the cookie has it, without the `sess-` that some exports put in front."""
    return token.removeprefix("sess-")


def read_claims(token: str) -> Claims:
    """Read an access token's claims; an unreadable one gives a Claims of None, never an error.

    Since 2025 the account and plan stand inside the auth claim; some tokens have them at the top; those of 2023
    have only the user.
    """
    payload = _decode_part(token.split(".")[1]) if token.count(".") == 2 else None
    if payload is None:
        return Claims(Identity(), None, None)
    auth, profile = _mapping(payload.get(_AUTH_CLAIM)), _mapping(payload.get(_PROFILE_CLAIM))
    email = _text(profile.get("email")) or _text(payload.get("email"))
    identity = Identity(
        user_id=_first_text(auth, ("chatgpt_user_id", "user_id"))
        or _first_text(payload, ("chatgpt_user_id", "user_id")),
        home_workspace_id=_text(auth.get("chatgpt_account_id")) or _text(payload.get("chatgpt_account_id")),
        plan=_text(auth.get("chatgpt_plan_type")) or _text(payload.get("chatgpt_plan_type")),
        email=mask_email(email) if email else None,
    )
    return Claims(identity, _instant(payload.get("iat")), _instant(payload.get("exp")))


def is_fresh(
    expires_at: float | None,
    now: float,
    *,
    issued_at: float | None = None,
    skew: float = 0.0,
    margin: float = REFRESH_MARGIN,
) -> bool:
    """Tell whether a token may still be used without renewing it.

    `skew` is how far the issuer's clock is ahead of ours, in seconds. The margin is never more than a tenth of the
    token's life, so a short-lived token is not renewed all the time. None as the end counts as fresh.
    """
    if expires_at is None:
        return True
    if issued_at is not None and expires_at > issued_at:
        margin = min(margin, (expires_at - issued_at) / 10)
    return now + skew < expires_at - margin


def mask_email(email: str) -> str:
    """Give an address that its owner knows again and others cannot use: `x•••@e•••.test`."""
    local, at, domain = email.partition("@")
    name, dot, top = domain.rpartition(".")
    if not (local and at and name and dot):
        return "•••"
    return f"{local[0]}•••@{name[0]}•••.{top}"


def split_workspace(bearer: str) -> tuple[str, str | None]:
    """Split `token,account-id` at its first comma; a token alone has None."""
    token, comma, workspace = bearer.partition(",")
    return token.strip(), (workspace.strip() or None) if comma else None


def is_workspace(text: str) -> bool:
    """Whether a text may be the id of a ChatGPT account or workspace."""
    return _WORKSPACE.fullmatch(text) is not None


def to_new_account(credential: Credential, *, owner: str | None = None) -> NewAccount:
    """Give the account that a credential makes, with what its access token tells."""
    claims = read_claims(credential.access) if credential.access else Claims(Identity(), None, None)
    return NewAccount(
        kind=credential.kind,
        secrets=Secrets(access=credential.access, renewable=credential.renewable),
        identity=claims.identity,
        workspace_id=credential.workspace_id,
        expires_at=claims.expires_at,
        device_id=credential.device_id,
        owner=owner,
    )


def to_credential(token: str, workspace_id: str | None = None, *, line: int = 1) -> Credential:
    """Give the credential of one token; UnusableTokenError when it makes no account."""
    if workspace_id is not None and not is_workspace(workspace_id):
        raise UnusableTokenError(SAY("workspace"))
    match tell_kind(token):
        case "access":
            return Credential(line, "access", access=token, workspace_id=workspace_id)
        case "share":
            return Credential(line, "share", access=token, workspace_id=workspace_id)
        case "refresh":
            return Credential(line, "refresh", renewable=token, workspace_id=workspace_id)
        case "session":
            return Credential(line, "session", renewable=session_cookie(token), workspace_id=workspace_id)
        case "device":
            return Credential(line, "device", device_id=token.lower(), workspace_id=workspace_id)
        case "api_key":
            raise UnusableTokenError(SAY("api_key"))
        case "issued_key":
            raise UnusableTokenError(SAY("issued_key"))
        case None:
            raise UnusableTokenError(SAY("unknown"))


def _tell_jose(token: str) -> TokenKind | None:
    """Tell a signed token from an encrypted cookie; chunks of a cookie may be joined by `|||`."""
    parts = token.replace(SESSION_SEPARATOR, "").split(".")
    header = _decode_part(parts[0])
    if header is None:
        return None
    if len(parts) == 5:
        return "session"
    if len(parts) == 3 and header.get("alg") not in ("dir", "none", None):
        return "access" if all(_BASE64URL.fullmatch(part) for part in parts) else None
    return None


def _decode_part(part: str) -> Mapping[str, object] | None:
    try:
        raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        value = json.loads(raw)
    except (binascii.Error, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _first_text(values: Mapping[str, object], names: tuple[str, ...]) -> str | None:
    return next((text for name in names if (text := _text(values.get(name)))), None)


def _instant(value: object) -> float | None:
    """Give a claim's instant; true, text, negative and astronomical numbers are none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e11:
        return None
    return float(value)


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False
