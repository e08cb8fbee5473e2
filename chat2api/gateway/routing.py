"""Which provider serves a request: by the model's name, by who asks, and by what there is.

A model may name its provider (`openai/gpt-4o`, `chatgpt/gpt-4o`), unless the API itself has a model of that name. Otherwise
the first rule whose pattern fits the name decides; where none does, a model that live accounts offer is served by them and
every other by the API keys. Who brings a credential of their own is served by the provider that it belongs to, and no rule can
send them elsewhere.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, Protocol, cast, get_args

from chat2api.clock import Clock
from chat2api.errors import Chat2APIError, NotFoundError
from chat2api.gateway.provider import Caller, CallerKind
from chat2api.protocol.openai.models import ModelObject, model_list, model_not_found

log = logging.getLogger(__name__)

ProviderName = Literal["chatgpt", "openai"]
"""chatgpt: web accounts. openai: a server that speaks the OpenAI API, by API key."""

OFFER_SECONDS = 10.0
"""How long it is remembered which models a caller's accounts offer."""

_NAMES: tuple[ProviderName, ...] = get_args(ProviderName)
_BOUND: Mapping[CallerKind, ProviderName] = {
    "own_token": "chatgpt",
    "anonymous": "chatgpt",
    "demo": "chatgpt",
    "own_key": "openai",
}
"""Callers that one provider alone can serve."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes. `model` is its name there; `named` whether the caller chose the provider by it.

    `fallback` serves when `provider` has nobody who can, and nothing has been said yet.
    """

    provider: ProviderName
    model: str
    named: bool = False
    fallback: ProviderName | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of MODEL_ROUTES: names that fit the pattern (`*`, `?`, `[…]`) go to the first provider, else the next."""

    pattern: str
    providers: tuple[ProviderName, ...]


class AccountModels(Protocol):
    """What routing asks of the accounts."""

    async def offered(self, caller: Caller, model: str) -> bool:
        """Whether accounts that this caller may use offer the model now; False without accounts."""
        ...

    async def models(self, caller: Caller) -> Sequence[str]:
        """Give the slugs that they offer."""
        ...


class KeyModels(Protocol):
    """What routing asks of the API keys."""

    @property
    def configured(self) -> bool:
        """Whether the operator has set API keys."""
        ...

    def serves(self, caller: Caller) -> bool:
        """Whether there is an API key for this caller."""
        ...

    async def models(self, caller: Caller) -> Sequence[ModelObject]:
        """Give the models that the API lists for them."""
        ...

    async def lists(self, caller: Caller, model: str) -> bool:
        """Whether the API lists a model by exactly that name; False where that cannot be told."""
        ...


class Routing:
    """Finds the provider of each request."""

    def __init__(self, accounts: AccountModels, keys: KeyModels, rules: Sequence[Rule], clock: Clock) -> None:
        """Route between those accounts and those API keys by these rules, the first that fits first."""
        self._accounts = accounts
        self._keys = keys
        self._rules = tuple(rules)
        self._clock = clock
        self._offered: dict[tuple[frozenset[str] | None, str | None, str], tuple[float, bool]] = {}

    async def route(self, caller: Caller, model: str) -> Route:
        """Give where a request for this model goes.

        Raises NotFoundError (model_not_found) for a provider by name that has nothing for this caller, and for a name
        that the accounts do not know when they were named.
        """
        prefix, slash, rest = model.partition("/")
        able = self._able(caller)
        may_name = self._keys.configured or caller.kind == "own_key"  # else there is nothing to choose between
        if slash and rest and prefix in _NAMES and may_name:
            named = _NAMES[_NAMES.index(prefix)]
            if named not in able or (named == "chatgpt" and not await self._accounts.offered(caller, rest)):
                raise model_not_found(model)
            return Route(named, rest, named=True) if named == "chatgpt" else await self._route_to_api(caller, model)
        if len(able) == 1:
            return Route(able[0], model)
        for rule in self._rules:
            if fnmatchcase(model, rule.pattern):
                return Route(rule.providers[0], model, fallback=next(iter(rule.providers[1:]), None))
        return Route("chatgpt" if await self._is_offered(caller, model) else "openai", model)

    async def route_to_keys(self, caller: Caller, model: str) -> Route:
        """Give where a request goes that API keys alone can serve.

        Raises NotFoundError where there is none for this caller, or another provider was named.
        """
        prefix, slash, rest = model.partition("/")
        if "openai" not in self._able(caller):
            raise NotFoundError(
                "Only API keys serve this call, and there is none for you here. The operator can set OPENAI_API_KEYS; you "
                "can send a key of your own where OWN_TOKENS allows it."
            )
        if slash and rest and prefix in _NAMES:
            if prefix != "openai":
                raise model_not_found(model)
            return await self._route_to_api(caller, model)
        return Route("openai", model)

    async def _route_to_api(self, caller: Caller, model: str) -> Route:
        """Give the way to the API for a name that begins with it: some servers have such names themselves."""
        if await self._keys.lists(caller, model):
            return Route("openai", model)
        return Route("openai", model.partition("/")[2], named=True)

    async def models(self, caller: Caller) -> list[ModelObject]:
        """Give all models that the caller may ask for, the accounts' first, each name once.

        Raises the failure of the only provider, or the first one's when all failed.
        """
        listed: dict[str, ModelObject] = {}
        failure: Chat2APIError | None = None
        answered = False
        for provider in self._able(caller):
            try:
                found = await self._models_of(provider, caller)
            except Chat2APIError as error:
                log.info("models of %s could not be had: %s", provider, error)
                failure = failure or error
                continue
            answered = True
            for model in found:
                listed.setdefault(model["id"], model)
        if failure is not None and not answered:
            raise failure
        return list(listed.values())

    async def _models_of(self, provider: ProviderName, caller: Caller) -> Sequence[ModelObject]:
        if provider == "chatgpt":
            return model_list(await self._accounts.models(caller))["data"]
        return await self._keys.models(caller)

    def _able(self, caller: Caller) -> tuple[ProviderName, ...]:
        """Give the providers that can serve a caller at all; a key that is held to accounts is held to them."""
        if (bound := _BOUND.get(caller.kind)) is not None:
            return (bound,)
        if caller.tier is not None and caller.tier.provider is not None:
            return (caller.tier.provider,)
        if caller.kind == "public":  # the API keys, else sign-in-free chat
            return ("openai",) if self._keys.serves(caller) else ("chatgpt",)
        if caller.allowed is not None or not self._keys.serves(caller):
            return ("chatgpt",)
        return _NAMES

    async def _is_offered(self, caller: Caller, model: str) -> bool:
        key = (caller.allowed, caller.workspace, model)
        now = self._clock.monotonic()
        known = self._offered.get(key)
        if known is None or known[0] <= now:
            if len(self._offered) >= 1024:
                self._offered.clear()
            known = self._offered[key] = (now + OFFER_SECONDS, await self._accounts.offered(caller, model))
        return known[1]


def parse_rules(written: Sequence[str]) -> tuple[Rule, ...]:
    """Give the rules of MODEL_ROUTES, each `pattern=provider` or `pattern=provider|provider`."""
    rules = []
    for item in written:
        pattern, _, providers = item.partition("=")
        rules.append(Rule(pattern, tuple(cast(ProviderName, name) for name in providers.split("|"))))
    return tuple(rules)
