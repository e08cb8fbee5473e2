"""Tiers as callers meet them: their own paths, the list of their models, and a small page that tells what they may.

A tier's paths are no routes of the app, since they change while it runs: `TierRoutes` recognises them and gives the rest
of the path to a set of routes of its own, which has those of the API that a tier serves, and nothing else.
"""

from collections.abc import Iterable, MutableMapping
from typing import Any, cast

from quart import Quart, render_template
from quart.typing import ResponseReturnValue
from quart.wrappers.base import BaseRequestWebsocket
from werkzeug.routing import Map

from chat2api.api.auth import access_class, declare_access
from chat2api.api.context import TIER, current_runtime, current_tier, find_runtime
from chat2api.api.dispatch import LeanQuart
from chat2api.api.pages import api_base
from chat2api.errors import NotFoundError
from chat2api.keys.scope import may_use_model
from chat2api.keys.terms import UNLIMITED, Json
from chat2api.keys.tiers import Tier, TierModel
from chat2api.storage.keys import IssuedKey, KeyLimits

OWNER = "chat2api"
CREATED = 1_677_610_602
"""Clients want a number that does not change; see `protocol/openai/models.py`."""

LIST, ONE, PAGE = "tiers.list_models", "tiers.get_model", "tiers.page"
_PUBLIC_ROUTES = {"/v1/models": LIST, "/v1/models/<path:model>": ONE}
_SHORT = ("/chat/completions", "/models")
"""What clients ask for that take a tier's base for the whole base URL, without `/v1`."""


class TierRoutes:
    """The routes below a tier's base. `find` is what `LeanQuart.find_mount` asks."""

    def __init__(self, app: LeanQuart, prefix: str) -> None:
        """Take over the app's API routes; prefix is the API_PREFIX with its slash, or ""."""
        self._app = app
        self._prefix = prefix
        self.map: Map = app.url_map_class()
        self.map.strict_slashes = False
        self.map.merge_slashes = False
        for rule in app.url_map.iter_rules():
            path = rule.rule.removeprefix(prefix)
            if access_class(app, rule.endpoint) == "api" and path not in _PUBLIC_ROUTES:
                self._add(path, rule.endpoint, rule.methods or ())
        for path, endpoint in _PUBLIC_ROUTES.items():
            self._add(path, endpoint, ("GET", "OPTIONS"))
        self._add("/", PAGE, ("GET", "OPTIONS"))

    def _add(self, path: str, endpoint: str, methods: Iterable[str]) -> None:
        rule = self._app.url_rule_class(path, endpoint=endpoint, methods=methods)
        rule.provide_automatic_options = True
        self.map.add(rule)

    def find(self, request: BaseRequestWebsocket) -> tuple[Map, str] | None:
        """Give the routes and the rest of the path for a request under a tier's base; None for all others."""
        runtime = find_runtime(self._app)
        path = request.path
        if runtime is None or not path.startswith(self._prefix):
            return None
        found = runtime.tiers.find(path[len(self._prefix) :])
        if found is None or found[1].startswith("//"):  # the routes would pass over further slashes
            return None
        tier, rest = found
        cast("MutableMapping[str, Any]", request.scope)[TIER] = tier
        return self.map, f"/v1{rest}" if rest.startswith(_SHORT) else rest or "/"


def install_tiers(app: LeanQuart, prefix: str) -> None:
    """Let tiers have their paths; call it when all routes are there."""
    app.view_functions[LIST] = list_models
    app.view_functions[ONE] = get_model
    app.view_functions[PAGE] = page
    declare_access(app, LIST, "public")
    declare_access(app, ONE, "public")
    declare_access(app, PAGE, "login")
    app.find_mount = TierRoutes(app, prefix).find


def taken_segments(app: Quart, prefix: str) -> frozenset[str]:
    """Give the first segments of the app's paths, under which no tier can have its base."""
    firsts = (rule.rule.removeprefix(prefix).split("/")[1] for rule in app.url_map.iter_rules())
    return frozenset(first for first in firsts if first and not first.startswith("<"))


async def list_models() -> Json:
    """All models of the tier with their limits; no key is asked for."""
    return show_tier_models(_tier())


async def get_model(model: str) -> Json:
    """One model of the tier; 404 when it is none."""
    return show_tier_model(_tier(), model)


async def page() -> ResponseReturnValue:
    """What the tier is for, who may enter, its models and limits."""
    runtime, tier = current_runtime(), _tier()
    return await render_template(
        "tier.html",
        tier=tier,
        public=runtime.tiers.public is tier,
        base_url=base_of(tier),
        person=shown_limits(tier.per_person),
    )


def base_of(tier: Tier) -> str:
    """Give the base URL that clients of a tier are told."""
    return f"{api_base(current_runtime().config).removesuffix('/v1')}{tier.bases[0]}/v1"


def shown_limits(limits: KeyLimits) -> list[tuple[str, int]]:
    """Give the limits that there are, by name."""
    names = (
        "requests_per_minute", "tokens_per_minute", "requests_at_once", "requests_per_day", "tokens_per_day",
    )  # fmt: skip
    return [(name, limit) for name in names if (limit := getattr(limits, name)) is not None]


def show_tier_models(tier: Tier, key: IssuedKey | None = None) -> Json:
    """Give the list of a tier's models, those that a key may not use left out."""
    models = [model for model in tier.models if key is None or may_use_model(key.scope, model.name)]
    return {"object": "list", "data": [_shown(model) for model in models]}


def show_tier_model(tier: Tier, name: str) -> Json:
    """Give one of a tier's models. Raises NotFoundError (model_not_found)."""
    return _shown(tier.require_model(name))


def _tier() -> Tier:
    tier = current_tier()
    if tier is None:
        raise NotFoundError("There is nothing at this path.")
    return tier


def _shown(model: TierModel) -> Json:
    limits = model.limits
    return {
        "id": model.name,
        "object": "model",
        "created": CREATED,
        "owned_by": OWNER,
        "limits": {
            name: UNLIMITED if limit is None else limit
            for name, limit in (
                ("requests_per_minute", limits.requests_per_minute),
                ("tokens_per_minute", limits.tokens_per_minute),
            )
        },
    }
