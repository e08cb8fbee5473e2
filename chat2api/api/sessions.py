"""Sign-ins and their cookies: how one begins, is found again, and ends (S13, S21).

The cookie holds 256 random bits, the records their digest. A sign-in also remembers a digest of the secret it began with,
and is looked up in the records at each request: once that key or password is gone, or somebody signed out elsewhere, the
next request is refused, here and on every replica.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from quart import Request, Response

from chat2api.api.context import Visitor
from chat2api.api.peers import is_loopback_host, is_secure
from chat2api.config import Config
from chat2api.errors import PermissionDeniedError
from chat2api.keys.digests import find_digest, secret_digest
from chat2api.runtime import Runtime
from chat2api.storage.sign_ins import LONGEST_SECONDS, SignIn, SignInKind

_SECURE_NAME = "__Host-chat2api"
_PLAIN_NAME = "chat2api"

TOUCH_SECONDS = 300.0
"""How often a sign-in's last use is written down; far below the twelve idle hours that it decides on."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A secret that was shown and is right: what it is, whose, and the digest that a sign-in keeps of it."""

    kind: SignInKind
    proof: str
    key_id: str | None = None


def recognise(runtime: Runtime, secret: str) -> Shown | None:
    """Tell what a secret is: an operator key, if these open pages, or an issued key; None for neither.

    With ADMIN_PASSWORD set, operator keys are for API calls only.
    """
    key = runtime.keys.find(secret)
    if key is not None:
        return Shown("key", runtime.keys.fingerprint(secret), key.id)
    if not runtime.config.admin_password and runtime.operator_keys.matches(secret):
        return Shown("operator", secret_digest(secret).hex())
    return None


def password_shown(runtime: Runtime) -> Shown:
    """Give what a sign-in by ADMIN_PASSWORD keeps: a keyed digest, which ends the sign-in when the password changes."""
    return Shown("password", runtime.records.digest("admin password", runtime.config.admin_password))


async def begin_sign_in(runtime: Runtime, shown: Shown) -> str:
    """Start a sign-in and give the cookie's value, new each time. Raises StorageError."""
    value = secrets.token_hex(32)
    now = runtime.clock.now()
    await runtime.records.sign_ins.begin(
        SignIn(_digest(value), shown.kind, shown.proof, shown.key_id, began_at=now, used_at=now)
    )
    return value


async def find_visitor(runtime: Runtime, value: str) -> Visitor | None:
    """Give who holds this cookie; None when the sign-in is over or what it rests on opens nothing any more."""
    sign_in = await runtime.records.sign_ins.find(_digest(value))
    now = runtime.clock.now()
    if sign_in is None:
        return None
    if sign_in.ended(now) or not _still_opens(runtime, sign_in):
        await runtime.records.sign_ins.end(sign_in.digest)
        return None
    if now - sign_in.used_at >= TOUCH_SECONDS:
        await runtime.records.sign_ins.touch(sign_in.digest, now)
    return Visitor(
        role="person" if sign_in.kind == "key" else "operator",
        who=_who(sign_in.kind, sign_in.proof, sign_in.key_id),
        key_id=sign_in.key_id,
        cookie=value,
        csrf=csrf_token(value),
    )


def visitor_by_bearer(runtime: Runtime, shown: Shown) -> Visitor:
    """Give the visitor who sent a secret as bearer, without a cookie."""
    return Visitor(
        role="person" if shown.kind == "key" else "operator",
        who=_who(shown.kind, shown.proof, shown.key_id),
        key_id=shown.key_id,
    )


async def end_sign_in(runtime: Runtime, value: str) -> None:
    """End the sign-in of this cookie."""
    await runtime.records.sign_ins.end(_digest(value))


def csrf_token(cookie: str) -> str:
    """Give the token that forms of this sign-in carry: it follows from the cookie, which no page can read."""
    return hmac.digest(cookie.encode(), b"csrf", "sha256").hex()


def csrf_matches(cookie: str, presented: str) -> bool:
    """Whether a form's token belongs to this sign-in."""
    return find_digest(secret_digest(presented), (secret_digest(csrf_token(cookie)),)) is not None


def read_cookie(incoming: Request, config: Config) -> str | None:
    """Give the sign-in's cookie of a request: only the one that could have been set the way this request came."""
    return incoming.cookies.get(_SECURE_NAME if is_secure(incoming, config) else _PLAIN_NAME) or None


def check_transport(incoming: Request, config: Config) -> None:
    """Refuse to sign in over plain HTTP from elsewhere, unless ALLOW_HTTP says that this is wanted."""
    if is_secure(incoming, config) or is_loopback_host(incoming) or config.allow_http:
        return
    raise PermissionDeniedError(
        "Signing in over plain HTTP would show the key to the network. Put TLS in front and name its address "
        "(PUBLIC_ORIGINS=https://chat.example.org), or accept the risk (ALLOW_HTTP=true).",
        code="plain_http",
    )


def set_cookie(response: Response, incoming: Request, config: Config, value: str) -> None:
    """Hand out the cookie of a new sign-in."""
    secure = is_secure(incoming, config)
    name = _SECURE_NAME if secure else _PLAIN_NAME
    age = int(LONGEST_SECONDS)
    response.set_cookie(name, value, max_age=age, path="/", secure=secure, httponly=True, samesite="Strict")


def clear_cookie(response: Response, incoming: Request, config: Config) -> None:
    """Take the cookie back."""
    secure = is_secure(incoming, config)
    name = _SECURE_NAME if secure else _PLAIN_NAME
    response.set_cookie(name, "", max_age=0, path="/", secure=secure, httponly=True, samesite="Strict")


def _still_opens(runtime: Runtime, sign_in: SignIn) -> bool:
    config = runtime.config
    if sign_in.kind == "password":
        right = bytes.fromhex(password_shown(runtime).proof)
        return bool(config.admin_password) and find_digest(bytes.fromhex(sign_in.proof), (right,)) is not None
    if sign_in.kind == "operator":
        proof = bytes.fromhex(sign_in.proof)
        return not config.admin_password and find_digest(proof, runtime.operator_keys.digests) is not None
    return sign_in.key_id is not None and runtime.keys.opens(sign_in.key_id, sign_in.proof)


def _who(kind: SignInKind, proof: str, key_id: str | None) -> str:
    if kind == "key":
        return f"key {key_id}"
    return "password" if kind == "password" else f"operator key {proof[:8]}"


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
