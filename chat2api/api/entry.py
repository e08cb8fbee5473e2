"""Who comes into a tier: with an issued key of it, with its shared key, or, in public mode, without any.

`api/auth.py` asks here for every API call, under a tier's path or not: a key belongs to its tier whatever path it is used
on, and so do the tier's rules.
"""

import hashlib
import hmac
from dataclasses import replace

from quart import Request

from chat2api.api.context import current_runtime, current_tier
from chat2api.api.peers import peer_address
from chat2api.errors import InvalidAPIKeyError, PermissionDeniedError
from chat2api.gateway.provider import Caller
from chat2api.keys.issue import has_key_prefix
from chat2api.keys.tiers import Tier
from chat2api.keys.users import has_user_prefix
from chat2api.protocol.openai.rules import Rules, hold_chat_to
from chat2api.storage.keys import IssuedKey

RULED = frozenset({"chat.create_chat_completion"})
"""Endpoints whose bodies are held to a tier's rules before anybody else reads them."""
PLAIN = frozenset({
    "models.list_models", "models.get_model", "usage.usage", "usage.subscription", "usage.billing_usage",
})  # fmt: skip
"""Endpoints to which no rule applies, since they take no messages and give no answers."""


def enter_without_key(incoming: Request, bearer: str | None) -> Caller | None:
    """Give the caller who comes into a tier with no key of their own; None where that is decided elsewhere.

    Under a public tier's path every bearer but an issued key and a local user's token counts as none: most clients insist on
    sending something, and what is compared with no secret can be no guess at one.
    Raises InvalidAPIKeyError for a path of a tier that needs a key when there is none.
    """
    book, asked = current_runtime().tiers, current_tier()
    if bearer is not None and (shared := book.with_shared_key(bearer)) is not None:
        return _visitor(incoming, _the_same(shared, asked))
    ours = bearer is not None and (has_key_prefix(bearer) or has_user_prefix(bearer))
    if in_public_tier() and asked is not None and not ours:
        return _visitor(incoming, asked)
    if bearer is not None:
        return None
    if asked is None and book.public is not None:
        return _visitor(incoming, book.public)
    if asked is not None:
        raise InvalidAPIKeyError(
            f"The tier `{asked.name}` needs a key. Send one of the tier as `Authorization: Bearer <key>`. (The setting "
            "PUBLIC_MODE names the tier that needs none.)"
        )
    return None


def in_public_tier() -> bool:
    """Whether the current request lies under a path of the tier that needs no key."""
    asked = current_tier()
    return asked is not None and asked.name == getattr(current_runtime().tiers.public, "name", None)


def enter_with_key(caller: Caller) -> Caller:
    """Give a caller as the tier has them: of their key, or of the path that they called.

    Raises PermissionDeniedError where the two differ, InvalidAPIKeyError for callers who may enter no tier.
    """
    asked = current_tier()
    key = caller.key
    if key is not None and key.tier is not None:
        tier = current_runtime().tiers.get(key.tier)
        if tier is None:
            raise PermissionDeniedError(
                f"This key is for the tier `{key.tier}`, which this server has not now. Ask its operator."
            )
        return replace(caller, tier=_the_same(tier, asked), person=person_of(key))
    if asked is None:
        return caller
    if key is not None:
        raise PermissionDeniedError("This key is for no tier. Use it on the paths that begin with /v1.")
    if caller.kind in ("operator", "demo"):
        return replace(caller, tier=asked, person=caller.kind)
    raise no_key_of(asked)


def no_key_of(tier: Tier) -> InvalidAPIKeyError:
    """Make the error for a bearer that opens nothing under a tier's path."""
    return InvalidAPIKeyError(f"This is no key of the tier `{tier.name}`. Ask the operator of this server for one.")


def person_of(key: IssuedKey) -> str:
    """Give by what the holder of a key is known in their tier."""
    return f"key:{key.id}"


def check_route(caller: Caller, endpoint: str, *, site: bool = False) -> None:
    """Raise PermissionDeniedError for an endpoint that the caller's tier has not, whatever path led there.

    `site` says that it is one of the website's calls, which are for no tier.
    """
    tier, name = caller.tier, endpoint.rpartition("/")[2]  # what stands before the slash is another place of the same
    if tier is None or name in PLAIN or name in RULED:
        return
    # Who has no key of their own owns nothing, so nothing may be stored for them that others could fetch.
    if tier.rules == Rules() and caller.kind != "public" and not site:
        return
    raise PermissionDeniedError(f"The tier `{tier.name}` is for chat completions only.", code="not_in_tier")


def hold_to_tier(caller: Caller, body: object) -> object:
    """Give the body of a chat completion as the caller's tier leaves it: the same object where nothing is changed.

    Raises InvalidRequestError for what the tier's rules refuse.
    """
    return body if caller.tier is None else hold_chat_to(caller.tier.rules, body)


def _the_same(tier: Tier, asked: Tier | None) -> Tier:
    if asked is not None and asked.name != tier.name:
        raise PermissionDeniedError(f"This key is for the tier `{tier.name}`: use it at {tier.bases[0]}.")
    return tier


def _visitor(incoming: Request, tier: Tier) -> Caller:
    """Give a caller who is known by their address alone, of which only a digest is kept."""
    runtime = current_runtime()
    network = peer_address(incoming, runtime.config).network
    digest = hmac.new(runtime.address_key, network.encode(), hashlib.sha256).hexdigest()[:32]
    return Caller("public", owner=f"tier:{tier.name}", tier=tier, person=f"address:{digest}")
