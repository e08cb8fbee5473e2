"""What a request costs: admitted before it reaches an account, measured while it is answered, settled and booked at its end.

Every route that makes an account work opens a `Charge`, adds the events of its answer to it and settles it, however it
ends. An issued key is held to its limits by that; the ledger hears of all callers.

What is charged: an answer as far as it came, also when the caller left in the middle. What is not: a request that was
refused, one that failed without giving its caller anything, and one whose caller left before anything came (which
stays in the rate of the last minute, or leaving early would be a way round it).
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

from quart import Response

from chat2api.api.context import current_caller, current_globals, current_runtime, on_request_end, track_answer
from chat2api.api.metrics import current_notes
from chat2api.api.relay import AnswerRelay, Batch
from chat2api.errors import Chat2APIError, StorageError
from chat2api.gateway.provider import AnswerFacts, Caller
from chat2api.keys.quota import EXPECTED_COMPLETION, limits_tokens, rate_headers, tightest
from chat2api.keys.scope import may_use_model
from chat2api.keys.tier_quota import TierHold, counts_tokens
from chat2api.protocol.events import Event, FileLink, Finished
from chat2api.protocol.openai.models import model_not_found
from chat2api.protocol.openai.usage import LONG_TEXT, CompletionMeter, Usage, prompt_tokens
from chat2api.protocol.prompt import Message
from chat2api.runtime import Runtime
from chat2api.storage.quotas import Reservation, Room
from chat2api.storage.usage import UsageRow, day_of

UNKNOWN_MODEL = "unknown"
"""Booked for a request that failed before its model's name was found to mean anything."""


class Charge:
    """The cost of one request. Made by `open_charge`; always `settle` it."""

    def __init__(self, runtime: Runtime, caller: Caller, messages: Sequence[Message], more_tokens: int = 0) -> None:
        """Begin to measure; nothing is reserved yet. `more_tokens` come to the texts of the prompt."""
        self._runtime = runtime
        self._caller = caller
        self._messages = messages
        self._more_tokens = more_tokens
        self._meter = CompletionMeter()
        self._prompt_tokens: int | None = None
        self._images = 0
        self._served: str | None = None
        self._begun = False
        self._began = runtime.clock.monotonic()
        self._day = day_of(runtime.clock.now())
        self._reservation: Reservation | None = None
        self._hold: TierHold | None = None
        self._measured: Usage | None = None
        self._settled = False
        self._notes = current_notes()
        self.facts = AnswerFacts()
        """For the provider, which fills it in."""

    @property
    def key_id(self) -> str | None:
        """The id of the issued key that pays, None for other callers."""
        return self._caller.key.id if self._caller.key is not None else None

    async def reserve(self, model: str, max_tokens: int | None, choices: int) -> None:
        """Admit the request, by the limits of the caller's key and of their tier.

        Raises RateLimitedError, QuotaExceededError or StorageError.
        """
        await self._count_long_prompt()
        key, tier = self._caller.key, self._caller.tier
        shared = tier.find_model(model) if tier is not None else None
        tokens = 0
        if (key is not None and limits_tokens(key)) or (tier and shared and counts_tokens(tier, shared)):
            tokens = self._count_prompt() + choices * (max_tokens or EXPECTED_COMPLETION)
        if key is not None:
            self._reservation = await self._runtime.quotas.reserve(key, tokens)
            self._day = self._reservation.day
        if tier is not None and shared is not None:
            try:
                self._hold = await self._runtime.tier_quotas.reserve(tier, self._caller.person, shared, tokens)
            except Chat2APIError:
                if self._reservation is not None:
                    await self._runtime.quotas.settle(self._reservation, tokens=0, charged=False)
                raise

    def add(self, events: Iterable[Event], index: int = 0) -> None:
        """Add events of one choice as they go to the caller."""
        self._begun = True
        self._meter.add(events, index)
        for event in events:
            if isinstance(event, Finished):
                self._served = event.model or self._served
            elif isinstance(event, FileLink) and event.kind == "image":
                self._images += 1

    def measure(self, usage: Usage, images: int = 0) -> None:
        """Take what the backend itself counted, in place of what is added."""
        self._begun = True
        self._measured = usage
        self._images = images

    def usage(self) -> Usage:
        """Give the tokens so far; what is booked in the end is the same count."""
        if self._measured is not None:
            return self._measured
        return self._meter.usage(self._count_prompt())

    async def settle(self, *, failed: bool, told: bool = True) -> None:
        """End the request: give back what it did not use, and book what it did. Later calls change nothing.

        `failed` says that an error ended it, `told` that what came before the error reached the caller.
        """
        if self._settled:
            return
        self._settled = True
        charged = self._begun and (told or not failed)
        usage = self.usage() if charged else Usage(0, 0)
        model = self._served or self.facts.model or UNKNOWN_MODEL
        account = (self.facts.account or "") if self._caller.kind in ("operator", "issued_key") else ""
        payer = self._caller.payer
        if self._notes is not None:
            self._notes.answer(key=payer, model=model, account=account, usage=usage, failed=failed)
        if charged or failed:
            self._runtime.ledger.book(
                UsageRow(
                    self._day,
                    payer,
                    account,
                    model,
                    int(charged),
                    usage.prompt_tokens,
                    usage.completion_tokens,
                    self._images if charged else 0,
                    self._runtime.clock.monotonic() - self._began,
                    int(failed),
                )
            )
        tokens = usage.total_tokens
        if self._reservation is not None:
            await self._runtime.quotas.settle(self._reservation, tokens=tokens, charged=charged, keep_rate=not failed)
        if self._hold is not None:
            await self._runtime.tier_quotas.settle(self._hold, tokens=tokens, charged=charged, keep_rate=not failed)

    def _count_prompt(self) -> int:
        if self._prompt_tokens is None:
            self._prompt_tokens = prompt_tokens(self._messages) + self._more_tokens
        return self._prompt_tokens

    async def _count_long_prompt(self) -> None:
        """Count a prompt now, outside of the loop, that would hold the loop up later."""
        if sum([len(message.text) for message in self._messages]) > LONG_TEXT:
            self._prompt_tokens = await asyncio.to_thread(prompt_tokens, self._messages) + self._more_tokens


async def open_charge(
    messages: Sequence[Message],
    *,
    model: str,
    max_tokens: int | None = None,
    choices: int = 1,
    more_tokens: int = 0,
    check: bool = True,
) -> Charge:
    """Admit the current request, which asks for this model; without `check` its caller sees to whether it may.

    The prompt has `more_tokens` beside its texts.

    Raises NotFoundError (model_not_found) for a model that is not among the key's, RateLimitedError and
    QuotaExceededError where its limits leave no room.
    """
    caller = current_caller()
    if check:
        check_model(caller, model)
    charge = Charge(current_runtime(), caller, messages, more_tokens)
    current_globals().model = model
    await charge.reserve(model, max_tokens, choices)
    return charge


def begin_answer(
    charge: Charge,
    open_source: Callable[[Callable[[Batch], bool]], AsyncGenerator[Batch]],
    size_of: Callable[[Batch], int],
    *,
    choices: int = 1,
    told: bool = True,
) -> AnswerRelay[Batch]:
    """Start the answer that the current request has a charge for, and end both with the request.

    What comes from `open_source`, as AnswerRelay takes it, is for its caller to add to the charge; `told` is for
    `Charge.settle`.
    """
    runtime = current_runtime()
    relay = AnswerRelay(open_source, runtime.spawn, size_of, runtime.alarms, choices=choices)
    track_answer(relay, charge.key_id)

    async def finish() -> None:
        try:
            await relay.aclose()
        finally:
            await charge.settle(failed=relay.failed, told=told)

    on_request_end(finish)
    return relay


@asynccontextmanager
async def held_to_rate() -> AsyncIterator[None]:
    """Hold the current request, which makes no model work, to its key's limits; it counts in the last minute only."""
    key = current_caller().key
    if key is None:
        yield
        return
    quotas = current_runtime().quotas
    reservation = await quotas.reserve(key, 0)
    try:
        yield
    finally:
        await quotas.settle(reservation, tokens=0, charged=False, keep_rate=True)


def check_model(caller: Caller, model: str) -> None:
    """Raise NotFoundError (model_not_found) for a model that the caller's key or tier does not have."""
    if caller.tier is not None:
        caller.tier.require_model(model)
    if caller.key is not None and not may_use_model(caller.key.scope, model):
        raise model_not_found(model)


async def tell_limits(response: Response) -> Response:
    """Set the `x-ratelimit-*` headers on every answer to an issued key, and to a caller of a tier."""
    caller: Caller | None = current_globals().get("caller")
    if caller is not None and (caller.key is not None or caller.tier is not None):
        try:
            rooms = await _rooms(caller)
        except StorageError:
            return response  # the answer counts for more than the numbers beside it
        response.headers.update(rate_headers(rooms))
    return response


async def _rooms(caller: Caller) -> Iterable[Room]:
    """Give the limits that hold for a caller; of several of one kind, the one with the least left."""
    runtime, tier = current_runtime(), caller.tier
    rooms = await runtime.quotas.rooms(caller.key) if caller.key is not None else ()
    if tier is None:
        return rooms
    asked = current_globals().get("model")
    model = tier.find_model(asked) if asked is not None else None
    return tightest((*rooms, *await runtime.tier_quotas.rooms(tier, caller.person, model)))
