"""Tiers: groups of callers with models, limits and rules of their own, under paths of their own."""

from dataclasses import dataclass, field
from typing import Literal

from chat2api.keys.scope import same_model
from chat2api.protocol.openai.models import model_not_found
from chat2api.protocol.openai.rules import Rules
from chat2api.sentences import Phrases
from chat2api.storage.keys import KeyLimits

ProviderName = Literal["openai", "chatgpt"]
PROVIDERS: tuple[ProviderName, ...] = ("openai", "chatgpt")
MOST_NAMED = 20
"""Models of a tier that are told to who asks for another."""


@dataclass(frozen=True, slots=True)
class TierModel:
    """A model of a tier and how much of it all callers together may use."""

    name: str
    limits: KeyLimits


@dataclass(frozen=True, slots=True)
class Tier:
    """One tier as the file says it.

    `bases` are the paths under which it is served, without API_PREFIX and without `/v1`. `per_person` holds each issued
    key, and each address from which calls come without one. `provider` None leaves the choice to the server's routing.
    `shared_key` is "" where there is none; it is meant to be known by many.
    """

    name: str
    bases: tuple[str, ...]
    models: tuple[TierModel, ...]
    per_person: KeyLimits
    rules: Rules
    notice: str = ""
    provider: ProviderName | None = None
    shared_key: str = field(default="", repr=False)

    def find_model(self, name: str) -> TierModel | None:
        """Give the model that is called so, None where the tier has it not."""
        for model in self.models:
            if model.name == name:
                return model
        return next((model for model in self.models if same_model(model.name, name)), None)

    def require_model(self, name: str) -> TierModel:
        """Give the model that is called so. Raises NotFoundError (model_not_found), which names the tier's."""
        model = self.find_model(name)
        if model is None:
            raise model_not_found(name, [one.name for one in self.models[:MOST_NAMED]])
        return model


SAY = Phrases(
    "built_in_tier",
    {"notice": "For trying things out: text only, short answers. What you send goes to the provider of the model."},
)


def _model_limits(requests: int, tokens: int) -> KeyLimits:
    return KeyLimits(requests_per_minute=requests, tokens_per_minute=tokens, requests_at_once=None)


BUILT_IN = Tier(
    name="free",
    bases=("/free",),
    models=(
        TierModel("gpt-4o-mini", _model_limits(60, 100_000)),
        TierModel("gpt-3.5-turbo", _model_limits(60, 100_000)),
    ),
    per_person=KeyLimits(requests_per_minute=10, tokens_per_minute=20_000, requests_at_once=2, requests_per_day=200),
    rules=Rules(system="drop", text_only=True, max_answer_tokens=1000),
    notice=SAY("notice"),
)
"""The only tier where no file is named; the example in the documents says the same."""
