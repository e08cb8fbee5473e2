"""What the routes know of the gateway: who calls, and a provider with one method for each public operation."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from chat2api.keys.tiers import Tier
from chat2api.protocol.events import Event, TakeEvents
from chat2api.protocol.openai.chat import ChatRequest
from chat2api.storage.keys import IssuedKey

CallerKind = Literal["operator", "issued_key", "demo", "own_token", "own_key", "anonymous", "public"]


_LABELS: dict[CallerKind, str] = {
    "operator": "operator",
    "own_token": "own",
    "own_key": "own",
    "anonymous": "anonymous",
    "demo": "demo",
    "public": "public",
    "issued_key": "",
}
"""By what the ledger and the log call callers without an issued key."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call, decided once by `api/auth.py`.

    `owner` is a digest that names the owner of what the call makes; it is no secret and holds none. `token` is the
    caller's own AccessToken or RefreshToken (own_token) or API key (own_key), None for the other kinds. `workspace` is
    the ChatGPT account id that the caller asked for. `key` is the issued key that was sent, and `allowed` the ids of the
    accounts that it is held to, None for all. `tier` is the tier in which the call is made, and `person` who is held to its
    limits there; None and "" elsewhere. A `public` caller came into a tier without a key of their own: the API keys and
    sign-in-free chat serve them, the accounts never do.
    """

    kind: CallerKind
    owner: str
    token: str | None = field(default=None, repr=False)
    workspace: str | None = None
    key: IssuedKey | None = None
    allowed: frozenset[str] | None = None
    tier: Tier | None = None
    person: str = ""

    @property
    def payer(self) -> str:
        """By what the ledger and the log call them: the id of their issued key, or what stands for all without one."""
        if self.key is not None:
            return self.key.id
        return f"tier {self.tier.name}" if self.kind == "public" and self.tier is not None else _LABELS[self.kind]


@dataclass(slots=True)
class AnswerFacts:
    """What becomes known while an answer is on its way, told in response headers.

    Filled in by the provider before it yields the first events.
    """

    upstream: str | None = None
    """`simulator` when no real backend answered."""
    model_fallback: str | None = None
    """The model name that nobody knows and for which the default answered."""
    model: str | None = None
    """The slug that was asked of the backend."""
    account: str | None = None
    """The label of the account that served, or was tried last."""


class Provider(Protocol):
    """Serves the public operations from some upstream."""

    def chat(
        self, caller: Caller, request: ChatRequest, facts: AnswerFacts, take: TakeEvents | None = None
    ) -> AsyncGenerator[Sequence[Event]]:
        """Yield one choice of a chat completion as batches of neutral events, in the order of protocol/events.py.

        After the first content `take` may be offered deltas, from the loop and without a switch of tasks; those that it
        takes are not yielded.
        Nothing is yielded before the first content, so an error until then is the whole answer's error; later ones are
        raised too and end a begun answer. Closing the generator aborts the upstream call and frees the account.
        """
        ...

    async def models(self, caller: Caller) -> Sequence[str]:
        """Give the slugs that live accounts offer to this caller, sorted; the defaults when none can be asked."""
        ...

    async def offered(self, caller: Caller, model: str) -> bool:
        """Whether accounts that this caller may use offer the model now, whatever it is called; False without accounts."""
        ...

    def reply_model(self, requested: str, served: str | None) -> str:
        """Give the public name of the model that serves: of its slug, or of what was asked while that is unknown."""
        ...

    def keeps_history(self, request: ChatRequest) -> bool:
        """Whether the conversation of this request is stored upstream and may be continued."""
        ...
