"""Who may call what: trust is decided here, once, before any handler.

Every route is registered with an access class; `check_access_classes` refuses an app in which one has none. The table that
this module carries out is section 2.1 of the project's reliability promises, for the routes that exist.
"""

import ipaddress
from collections.abc import Sequence
from typing import Literal
from urllib.parse import urlsplit

from quart import Quart, Request, current_app, request
from werkzeug.datastructures import Headers

from chat2api.accounts.tokens import tell_kind
from chat2api.api.context import PeerAddress, current_runtime, set_caller
from chat2api.config import Config, Reach
from chat2api.errors import (
    InvalidAPIKeyError,
    InvalidRequestError,
    MisdirectedRequestError,
    PermissionDeniedError,
    RateLimitedError,
    StorageError,
)
from chat2api.gateway.provider import Caller
from chat2api.keys.digests import secret_digest
from chat2api.keys.issue import has_key_prefix

AccessClass = Literal["open", "api", "admin"]
"""`open`: everybody, no secret behind it. `api`: API calls, by key or by the policies for calls without one. `admin`: the
operator alone."""

OWN_TOKEN_RATE = 30
"""Calls with an own token per minute and address, other than from this machine."""
ANONYMOUS_RATE = 10
"""Calls without a bearer per minute and address, other than from this machine."""

_LOOPBACK_NAMES = {"localhost", "localhost."}
_CLASSES = "chat2api_access"


def declare_access(app: Quart, endpoint_prefix: str, access: AccessClass) -> None:
    """Say which class the endpoints with that prefix (a blueprint's name and dot, or a whole name) belong to."""
    app.extensions.setdefault(_CLASSES, {})[endpoint_prefix] = access


def access_class(app: Quart, endpoint: str) -> AccessClass | None:
    """Give the declared class of an endpoint, None when nobody declared one."""
    classes: dict[str, AccessClass] = app.extensions.get(_CLASSES, {})
    if endpoint in classes:
        return classes[endpoint]
    blueprint = endpoint.rpartition(".")[0]
    return classes.get(blueprint + ".") if blueprint else None


def check_access_classes(app: Quart) -> None:
    """Raise RuntimeError when a route has no access class: such an app must not start."""
    bare = sorted(rule.endpoint for rule in app.url_map.iter_rules() if access_class(app, rule.endpoint) is None)
    if bare:
        raise RuntimeError(f"routes without an access class: {', '.join(bare)}")


async def guard_request() -> None:
    """Let the current request pass or raise; run before every handler."""
    endpoint = request.endpoint
    if endpoint is None or request.method == "OPTIONS":
        return  # 404, 405 and preflights reach no handler of ours
    access = access_class(current_app, endpoint)
    if access == "api":
        set_caller(await authenticate(request))
    elif access == "admin":
        set_caller(await authenticate_operator(request))


async def authenticate(incoming: Request) -> Caller:
    """Give the caller of an API call; raise InvalidAPIKeyError and kin with advice when there is none."""
    runtime = current_runtime()
    bearer, workspace = read_bearer(incoming.headers)
    if bearer is None:
        return await _anonymous_caller(incoming, workspace)
    if runtime.demo is not None and runtime.demo.key_matches(bearer):
        return Caller("demo", owner="demo", workspace=workspace)
    keys = runtime.operator_keys
    if keys.matches(bearer):
        return Caller("operator", owner="key:" + secret_digest(bearer).hex()[:32], workspace=workspace)
    if has_key_prefix(bearer):
        return _issued_key_caller(bearer, workspace)
    if tell_kind(bearer) in ("access", "refresh"):
        await _admit_own_token(incoming)
        return Caller("own_token", owner="own:" + secret_digest(bearer).hex()[:32], token=bearer, workspace=workspace)
    if keys.shut is not None:
        raise StorageError(keys.shut)
    raise InvalidAPIKeyError(
        "Incorrect API key provided. Use the operator key (README tells where it lies; AUTHORIZATION sets your own), or your "
        "own ChatGPT AccessToken or RefreshToken where OWN_TOKENS allows it."
    )


async def authenticate_operator(incoming: Request) -> Caller:
    """Give the operator; raise InvalidAPIKeyError for nobody, PermissionDeniedError for callers who may do other things."""
    if read_bearer(incoming.headers)[0] is None:
        raise InvalidAPIKeyError("This needs the operator key. Send it as `Authorization: Bearer <key>`.")
    caller = await authenticate(incoming)
    if caller.kind != "operator":
        raise PermissionDeniedError("This key may not manage the server; the operator key may.")
    return caller


def _issued_key_caller(bearer: str, workspace: str | None) -> Caller:
    """Give the caller of an issued key. Raises InvalidAPIKeyError: such a bearer never leaves this server (S10)."""
    runtime = current_runtime()
    key = runtime.keys.look_up(bearer)
    if key is None:
        raise InvalidAPIKeyError("Incorrect API key provided. This server has issued no such key.")
    if (ended := key.ended(runtime.clock.now())) is not None:
        raise InvalidAPIKeyError(f"This API key is {ended}. Ask the operator of this server for another one.")
    if runtime.keys.stopped:
        raise PermissionDeniedError("The operator of this server has stopped all issued keys for now.")
    return Caller(
        "issued_key",
        owner=f"issued:{key.id}",
        workspace=workspace,
        key=key,
        allowed=runtime.key_accounts.allowed(key),
    )


def read_bearer(headers: Headers) -> tuple[str | None, str | None]:
    """Give (bearer, workspace) of a request; None for what it does not have.

    The workspace comes from the header ChatGPT-Account-ID, else from `Bearer <token>,<account-id>`.
    """
    values = headers.getlist("Authorization")
    if len(values) > 1:
        raise InvalidRequestError("Send one Authorization header, not several.", param="Authorization")
    workspace = headers.get("ChatGPT-Account-ID", "").strip() or None
    if not values or not values[0].strip():
        return None, _checked_workspace(workspace)
    scheme, _, credential = values[0].strip().partition(" ")
    if scheme.lower() != "bearer" or not credential.strip():
        raise InvalidAPIKeyError("Send the key as `Authorization: Bearer <key>`.")
    bearer, _, suffix = credential.strip().partition(",")
    return bearer.strip(), _checked_workspace(workspace or suffix.strip() or None)


def _checked_workspace(value: str | None) -> str | None:
    if value is not None and (
        len(value) > 128 or not value.isascii() or not value.replace("-", "").replace("_", "").isalnum()
    ):
        raise InvalidRequestError("ChatGPT-Account-ID is not an account id.", param="ChatGPT-Account-ID")
    return value


async def _anonymous_caller(incoming: Request, workspace: str | None) -> Caller:
    config = current_runtime().config
    refusal = InvalidAPIKeyError(
        "You didn't provide an API key. Send it as `Authorization: Bearer <key>`. (Calls without a key are governed by the "
        f"setting ANONYMOUS, which is `{config.anonymous}`.)"
    )
    if workspace is not None:
        raise refusal
    peer = peer_address(incoming, config)
    if not _reaches(config.anonymous, peer, config):
        raise refusal
    _check_keyless(incoming, config)
    await _count("anonymous", peer, ANONYMOUS_RATE)
    return Caller("anonymous", owner="anonymous")


async def _admit_own_token(incoming: Request) -> None:
    config = current_runtime().config
    peer = peer_address(incoming, config)
    if not _reaches(config.own_tokens, peer, config):
        raise InvalidAPIKeyError(
            "Own AccessTokens and RefreshTokens are not taken here. The setting OWN_TOKENS "
            f"(now `{config.own_tokens}`) would allow it; else use a key of this server."
        )
    if config.own_tokens == "loopback":
        check_host(incoming, config)
    await _count("own_token", peer, OWN_TOKEN_RATE)


def _reaches(reach: Reach, peer: PeerAddress, config: Config) -> bool:
    return reach == "on" or (reach == "loopback" and config.loopback and peer.loopback)


def _check_keyless(incoming: Request, config: Config) -> None:
    """Keep other web pages out: a call without a key is one that any page in the operator's browser could make."""
    check_host(incoming, config)
    origin = incoming.headers.get("Origin")
    if origin is not None and origin.rstrip("/") not in config.cors_origins:
        raise PermissionDeniedError(
            "This web origin may not make calls without a key. The setting CORS_ORIGINS names those that may."
        )


def check_host(incoming: Request, config: Config) -> None:
    """Refuse a Host that is neither a loopback name, an IP literal, nor named in PUBLIC_ORIGINS (DNS rebinding)."""
    host = incoming.headers.get("Host", "").lower()
    allowed = {urlsplit(origin).netloc.lower() for origin in config.public_origins}
    if host in allowed or _is_literal_or_loopback(host):
        return
    raise MisdirectedRequestError("This host name is not answered for. Add its origin to the setting PUBLIC_ORIGINS.")


def _is_literal_or_loopback(host: str) -> bool:
    name = host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]
    if name in _LOOPBACK_NAMES or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def peer_address(incoming: Request, config: Config) -> PeerAddress:
    """Give where the request came from; X-Forwarded-For counts only from peers in TRUSTED_PROXIES."""
    address = _parse_address(incoming.remote_addr or "")
    if address is not None and _trusted(address, config.trusted_proxies):
        for hop in reversed(incoming.headers.get("X-Forwarded-For", "").split(",")):
            forwarded = _parse_address(hop.strip())
            if forwarded is None:
                break
            address = forwarded
            if not _trusted(address, config.trusted_proxies):
                break
    if address is None:
        return PeerAddress("unknown", loopback=False)
    if isinstance(address, ipaddress.IPv6Address):
        return PeerAddress(str(ipaddress.ip_network((address, 64), strict=False)), address.is_loopback)
    return PeerAddress(str(address), address.is_loopback)


def _parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, ipaddress.IPv6Address) else address


def _trusted(address: ipaddress.IPv4Address | ipaddress.IPv6Address, networks: Sequence[str]) -> bool:
    return any(address in ipaddress.ip_network(network) for network in networks)


async def _count(what: str, peer: PeerAddress, limit: int) -> None:
    if peer.loopback:
        return
    verdict = await current_runtime().shared.hit(f"{what}:{peer.network}", limit, 60.0)
    if not verdict.allowed:
        raise RateLimitedError(
            f"Too many calls of this kind from one address: {limit} a minute are allowed without a key of this server.",
            retry_after=verdict.reset,
        )
