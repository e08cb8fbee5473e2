"""Who may call what: trust is decided here, once, before any handler.

Every route is registered with an access class; `check_access_classes` refuses an app in which one has none. The table that
this module carries out is section 2.1 of the project's reliability promises, for the routes that exist.
"""

from typing import Literal

from quart import Quart, Request
from quart.typing import ResponseReturnValue
from werkzeug.datastructures import Headers

from chat2api.accounts.tokens import tell_kind
from chat2api.api.admission import Guess, PageAccess, admit
from chat2api.api.context import (
    PeerAddress,
    Visitor,
    current_app,
    current_request,
    current_runtime,
    current_tier,
    set_caller,
    set_visitor,
)
from chat2api.api.entry import check_route, enter_with_key, enter_without_key, in_public_tier, no_key_of
from chat2api.api.peers import check_host, peer_address
from chat2api.config import Config, Reach
from chat2api.errors import (
    InvalidAPIKeyError,
    InvalidRequestError,
    MissingAPIKeyError,
    PermissionDeniedError,
    RateLimitedError,
    StorageError,
)
from chat2api.gateway.provider import Caller
from chat2api.keys.digests import find_digest, secret_digest
from chat2api.keys.issue import has_key_prefix
from chat2api.keys.users import has_user_prefix
from chat2api.storage.keys import IssuedKey

AccessClass = Literal["open", "public", "api", "site"] | PageAccess
"""`open`: everybody, no secret behind it. `public`: the same, and every web page may read it. `api`: API calls, by key or
by the policies for calls without one. `site`: the same for the website's calls. The others are for people and what their
browsers send: see `PageAccess`."""

OWN_TOKEN_RATE = 30
"""Calls with an own token per minute and address, other than from this machine."""
ANONYMOUS_RATE = 10
"""Calls without a bearer per minute and address, other than from this machine."""

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
    classes = {rule.endpoint: access_class(app, rule.endpoint) for rule in app.url_map.iter_rules()}
    bare = sorted(endpoint for endpoint, access in classes.items() if access is None)
    if bare:
        raise RuntimeError(f"routes without an access class: {', '.join(bare)}")
    app.extensions[_CLASSES].update(classes)  # so that a request finds its own at once


async def guard_request() -> ResponseReturnValue | None:
    """Let the current request pass, answer it with a way to sign in, or raise; run before every handler."""
    incoming = current_request()
    endpoint = incoming.endpoint
    if endpoint is None or incoming.method == "OPTIONS":
        return None  # 404, 405 and preflights reach no handler of ours
    access = access_class(current_app(), endpoint)
    if access == "api" or access == "site":
        set_caller(await authenticate(incoming, site=access == "site"))
    elif access is not None and access != "open" and access != "public":
        visitor = await admit(incoming, access, lambda: read_bearer(incoming.headers)[0])
        if visitor is not None and not isinstance(visitor, Visitor):
            return visitor
        set_visitor(visitor)
    return None


async def authenticate(incoming: Request, *, site: bool = False) -> Caller:
    """Give the caller of an API call; raise InvalidAPIKeyError and kin with advice when there is none.

    With `site` it is one of the website's, where a token is taken without the word Bearer as well, and which nobody may
    make who is known by no key: conversations have owners.
    """
    try:
        bearer, workspace = read_bearer(incoming.headers, bare=site)
    except InvalidAPIKeyError:
        if not in_public_tier():
            raise
        bearer, workspace = None, None
    visitor = _gateway_caller(incoming, bearer, workspace) if site else enter_without_key(incoming, bearer)
    caller = visitor or enter_with_key(await _find_caller(incoming, bearer, workspace))
    check_route(caller, incoming.endpoint or "", site=site)
    return caller


async def _find_caller(incoming: Request, bearer: str | None, workspace: str | None) -> Caller:
    runtime = current_runtime()
    if bearer is None:
        return await _anonymous_caller(incoming, workspace)
    keys = runtime.operator_keys
    if has_key_prefix(bearer) and not keys.matches(bearer):
        return _issued_key_caller(incoming, bearer, workspace)
    if has_user_prefix(bearer):
        return _local_user_caller(incoming, bearer, workspace)
    guess = Guess(incoming, bearer)
    if runtime.demo is not None and runtime.demo.key_matches(bearer):
        return Caller("demo", owner="demo", workspace=workspace)
    if keys.matches(bearer):
        guess.was_right()
        return Caller("operator", owner="key:" + guess.digest.hex()[:32], workspace=workspace)
    if tell_kind(bearer) in ("access", "refresh"):
        await _admit_own_token(incoming)
        return _own_token_caller(bearer, workspace)
    if tell_kind(bearer) == "api_key":
        await _admit_own_token(incoming)
        return Caller("own_key", owner="own:" + secret_digest(bearer).hex()[:32], token=bearer, workspace=workspace)
    if keys.shut is not None:
        raise StorageError(keys.shut)
    guess.was_wrong()
    if (asked := current_tier()) is not None:
        raise no_key_of(asked)
    raise InvalidAPIKeyError(
        "Incorrect API key provided. Use the operator key (README tells where it lies; AUTHORIZATION sets your own), or your "
        "own ChatGPT AccessToken, RefreshToken or OpenAI API key where OWN_TOKENS allows it."
    )


def _gateway_caller(incoming: Request, bearer: str | None, workspace: str | None) -> Caller | None:
    """Give the caller behind another server of ours that sends our AUTH_KEY; None without one, and for keys of this server.

    It brings a token of its own pool, or none and uses ours. Raises PermissionDeniedError for a wrong key.
    """
    wanted = current_runtime().config.auth_key
    presented = incoming.headers.get("authkey", "")
    if not wanted or not presented:
        return None
    guess = Guess(incoming, presented)
    if find_digest(secret_digest(presented), (secret_digest(wanted),)) is None:
        guess.was_wrong()
        # No 401: a server in front would take it for a word about the token of its account.
        raise PermissionDeniedError("Incorrect authkey. It must be the value of this server's setting AUTH_KEY.")
    guess.was_right()
    if bearer is None:
        return Caller("operator", owner="authkey", workspace=workspace)
    return _own_token_caller(bearer, workspace) if tell_kind(bearer) in ("access", "refresh") else None


def _own_token_caller(bearer: str, workspace: str | None) -> Caller:
    return Caller("own_token", owner="own:" + secret_digest(bearer).hex()[:32], token=bearer, workspace=workspace)


async def authenticate_operator(incoming: Request) -> None:
    """Raise unless an operator asks, on a route that tells others less; errors as for the class `admin`."""
    await admit(incoming, "admin", lambda: read_bearer(incoming.headers)[0])


def _issued_key_caller(incoming: Request, bearer: str, workspace: str | None) -> Caller:
    """Give the caller of an issued key. Raises InvalidAPIKeyError: such a bearer never leaves this server (S10).

    It is looked up before guesses are: nobody guesses 256 bits, and a right key shall work whatever others send from the
    same address.
    """
    runtime = current_runtime()
    key = runtime.keys.look_up(bearer)
    if key is None:
        Guess(incoming, bearer).was_wrong()
        raise InvalidAPIKeyError("Incorrect API key provided. This server has issued no such key.")
    return _key_caller(key, workspace)


def _local_user_caller(incoming: Request, bearer: str, workspace: str | None) -> Caller:
    """Give the caller of a local user's token: their key's. Raises InvalidAPIKeyError: such a bearer never leaves (S10)."""
    runtime = current_runtime()
    user = runtime.users.find(bearer)
    key = runtime.keys.get(user.key_id) if user is not None else None
    if key is None:
        Guess(incoming, bearer).was_wrong()
        raise InvalidAPIKeyError("This sign-in has ended. Sign in again with POST /auth/login.")
    return _key_caller(key, workspace)


def _key_caller(key: IssuedKey, workspace: str | None) -> Caller:
    runtime = current_runtime()
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


def read_bearer(headers: Headers, *, bare: bool = False) -> tuple[str | None, str | None]:
    """Give (bearer, workspace) of a request; None for what it does not have.

    The workspace comes from the header ChatGPT-Account-ID, else from `Bearer <token>,<account-id>`.
    """
    values = headers.getlist("Authorization")
    if len(values) > 1:
        raise InvalidRequestError("Send one Authorization header, not several.", param="Authorization")
    workspace = headers.get("ChatGPT-Account-ID", "").strip() or None
    if not values or not values[0].strip():
        return None, _checked_workspace(workspace)
    scheme, space, credential = values[0].strip().partition(" ")
    if bare and not space and scheme.lower() != "bearer":
        scheme, credential = "bearer", scheme
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
    refusal = MissingAPIKeyError(
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
            "Own AccessTokens, RefreshTokens and API keys are not taken here. The setting OWN_TOKENS "
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


async def _count(what: str, peer: PeerAddress, limit: int) -> None:
    if peer.loopback:
        return
    verdict = await current_runtime().shared.hit(f"{what}:{peer.network}", limit, 60.0)
    if not verdict.allowed:
        raise RateLimitedError(
            f"Too many calls of this kind from one address: {limit} a minute are allowed without a key of this server.",
            retry_after=verdict.reset,
        )
