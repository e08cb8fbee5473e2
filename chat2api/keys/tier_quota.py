"""Limits of tiers: for each person in one, and for each of its models, which all of them share.

A person is an issued key, or an address, of which only a keyed digest is known here. What a person used is forgotten once
it counts for nothing any more: a minute after their last call, or at midnight where their day is limited. Counters go by
names, so tiers that are read anew go on where they were.
"""

from dataclasses import dataclass

from chat2api.clock import Clock
from chat2api.keys.quota import refusal
from chat2api.keys.tiers import Tier, TierModel
from chat2api.storage.keys import KeyLimits
from chat2api.storage.quotas import MemoryQuotas, NoRoom, Reservation, Room

MAX_PERSONS = 100_000
"""Persons remembered for one tier; beyond that the one longest away is forgotten early."""


@dataclass(frozen=True, slots=True)
class TierHold:
    """What one request holds in a tier until it is settled."""

    tier: str
    person: Reservation
    model: Reservation


class TierQuotas:
    """Holds the callers of tiers to their limits, in this process."""

    def __init__(self, clock: Clock) -> None:
        """Begin with nothing used."""
        self._clock = clock
        self._persons: dict[str, MemoryQuotas] = {}
        self._models = MemoryQuotas(clock)

    async def reserve(self, tier: Tier, person: str, model: TierModel, tokens: int) -> TierHold:
        """Admit one request that may cost that many tokens: all that it needs, or nothing.

        Raises RateLimitedError and QuotaExceededError as for keys. Always `settle` what this gives.
        """
        persons = self._of(tier)
        own = await persons.reserve(person, tier.per_person, tokens)
        if isinstance(own, NoRoom):
            raise refusal(own, "your key" if person.startswith("key:") else "your address")
        shared = await self._models.reserve(_name(tier, model), model.limits, tokens)
        if isinstance(shared, NoRoom):
            await persons.settle(own, tokens=0, charged=False)
            raise refusal(shared, f"the model `{model.name}`, which all callers of the tier share")
        return TierHold(tier.name, own, shared)

    async def settle(self, hold: TierHold, *, tokens: int, charged: bool, keep_rate: bool = False) -> None:
        """End a request; see QuotaState."""
        await self._persons[hold.tier].settle(hold.person, tokens=tokens, charged=charged, keep_rate=keep_rate)
        await self._models.settle(hold.model, tokens=tokens, charged=charged, keep_rate=keep_rate)

    async def rooms(self, tier: Tier, person: str, model: TierModel | None) -> tuple[Room, ...]:
        """Give the state of each limit that a person has in a tier, and of those of the model."""
        own = await self._of(tier).rooms(person, tier.per_person)
        return own if model is None else own + await self._models.rooms(_name(tier, model), model.limits)

    async def forget(self) -> None:
        """Drop what counts for nothing any more; to be called every now and then, also while nobody comes."""
        for persons in self._persons.values():
            persons.forget()

    @property
    def remembered(self) -> int:
        """How many persons something is remembered of."""
        return sum(persons.remembered for persons in self._persons.values())

    def _of(self, tier: Tier) -> MemoryQuotas:
        persons = self._persons.get(tier.name)
        if persons is None:
            persons = self._persons[tier.name] = MemoryQuotas(self._clock, most=MAX_PERSONS)
        return persons


def counts_tokens(tier: Tier, model: TierModel) -> bool:
    """Whether a request's tokens must be known before it is admitted."""
    return any(_counts_tokens(limits) for limits in (tier.per_person, model.limits))


def _counts_tokens(limits: KeyLimits) -> bool:
    return not (limits.tokens_per_minute is limits.tokens_per_day is limits.tokens_total is None)


def _name(tier: Tier, model: TierModel) -> str:
    return f"{tier.name}/{model.name}"
