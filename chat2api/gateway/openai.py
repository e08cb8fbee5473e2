"""The OpenAI provider: calls relayed to a server that speaks the OpenAI API, by the operator's keys or the caller's own.

The operator's keys are a pool like the accounts: one that is limited rests for the time that was stated, one that is
refused is set aside, and until the answer's first byte another one may be tried. Afterwards nothing is tried again.
"""

import asyncio
import logging
import random
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from chat2api.accounts.budget import BudgetShare, RetryBudget
from chat2api.accounts.exits import Exit, Exits
from chat2api.accounts.health import Attempts, Decision
from chat2api.accounts.pool import AccountPool, Lease, Outcome
from chat2api.clock import Clock
from chat2api.config import Config
from chat2api.errors import (
    AccountLimitedError,
    AccountRejectedError,
    AllAccountsCoolingError,
    CallerTokenRejectedError,
    Chat2APIError,
    NoAccountError,
    NotFoundError,
    UpstreamError,
    UpstreamTimeoutError,
)
from chat2api.gateway.api_answers import OWN, ApiAnswer, ApiAttempt, read_models, read_offered
from chat2api.gateway.deadlines import AnswerLimits, deadline
from chat2api.gateway.provider import AnswerFacts, Caller
from chat2api.protocol.openai.models import ModelObject
from chat2api.upstream.openai import ApiCall, OpenAIClient

log = logging.getLogger(__name__)

MODELS_SECONDS = 300.0
"""How long the API's list of models is used."""

UNTOLD_SECONDS = 30.0
"""How long nobody asks again for names that could not be had."""

MAX_NAMED = 256
"""Callers' own keys whose models' names are remembered."""

_MODELS = "models"
"""Stands for a model where the list of models is asked for."""

_THINKING = re.compile(r"(?:.*/)?(?:o\d|gpt-[5-9]).*|.*(?:thinking|reason|think|-r\d\b|deep-research|-pro\b).*")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One of the operator's keys. `label` is a short digest that pages, metrics and the ledger show."""

    label: str
    secret: str = field(repr=False)


class OpenAIProvider:
    """Relays calls."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        client: OpenAIClient,
        pool: AccountPool,
        keys: Mapping[str, ApiKey],
        exits: Exits,
    ) -> None:
        """Relay through that client; `pool` holds the operator's keys, and `keys` says what its accounts' ids stand for."""
        self._config = config
        self._clock = clock
        self.client = client
        self.pool = pool
        self.keys = keys
        self.exits = exits
        self.budget = RetryBudget()
        self.id = secrets.token_hex(8)
        """Names this server to others of its kind that a call passes through."""
        self._rng = random.Random()
        self._listed: tuple[float, Sequence[ModelObject]] = (float("-inf"), ())
        self._listing = asyncio.Lock()
        self._names: dict[str, tuple[float, frozenset[str]]] = {}
        self.tells_usage = True
        """Whether the server takes the question for a stream's usage, as far as is known."""

    @property
    def configured(self) -> bool:
        """Whether the operator has set API keys."""
        return bool(self.keys)

    def serves(self, caller: Caller) -> bool:
        """Whether there is a key for this caller."""
        return caller.kind == "own_key" or (caller.kind in ("operator", "issued_key", "public") and bool(self.keys))

    def limits(self, model: str) -> AnswerLimits:
        """Give how long the phases of an answer may take."""
        config = self._config
        if _THINKING.fullmatch(model):
            silence = max(config.event_timeout, config.first_content_timeout_reasoning)
            return AnswerLimits(config.first_content_timeout_reasoning, silence, config.answer_timeout_reasoning)
        return AnswerLimits(config.first_content_timeout, config.event_timeout, config.answer_timeout)

    async def open(
        self,
        caller: Caller,
        call: ApiCall,
        *,
        model: str,
        first_by: float,
        facts: AnswerFacts,
        affinity: str | None = None,
        key: str | None = None,
    ) -> ApiAnswer:
        """Give the answer to a call once it has begun; until then other keys are tried.

        `first_by` is an instant of the loop's clock. `key` is the label of the key that alone can serve, of the operator's;
        None for any. A refusal that is about the request is an answer as well, masked. Raises the last attempt's error
        when no key could serve, and NotFoundError when the one that was named is not there any more.
        """
        if not self.tells_usage:
            call = call.plain()
        share = self.budget.admit()
        pinned = self._id_of(key) if key is not None and caller.kind != "own_key" else None
        with share:
            opening = _Opening(
                self, self._clock, self._config, caller, call, model, first_by, facts, affinity, share, pinned
            )
            return await opening.run(self._rng)

    def note_plain(self) -> None:
        """Take note that the server does not take the question for a stream's usage: it is not asked again."""
        log.info("the API takes no stream_options: usage is estimated where it does not tell it by itself")
        self.tells_usage = False

    def attempt(
        self, call: ApiCall, model: str, secret: str, lease: Lease | None, label: str, *, who: str = ""
    ) -> ApiAttempt:
        """Give an attempt at a call with a key; `finish` it, however it ends."""
        return ApiAttempt(self.client, self.exits, call, model=model, secret=secret, lease=lease, label=label, who=who)

    def _id_of(self, label: str) -> str:
        for account_id, key in self.keys.items():
            if key.label == label:
                return account_id
        raise NotFoundError("The API key that made this object is not configured any more.")

    async def models(self, caller: Caller) -> Sequence[ModelObject]:
        """Give the API's list of models, kept for a while; of the caller's own key, as it is now."""
        if caller.kind == "own_key":
            return await self._list(caller)
        async with self._listing:
            if self._listed[0] <= self._clock.monotonic():
                self._listed = (self._clock.monotonic() + MODELS_SECONDS, await self._list(caller))
            return self._listed[1]

    async def lists(self, caller: Caller, model: str) -> bool:
        """Whether the API lists a model by exactly that name, by a list of the last minutes; False where it gives none."""
        whose = caller.owner if caller.kind == "own_key" else ""
        now = self._clock.monotonic()
        until, names = self._names.get(whose, (0.0, frozenset()))
        if until <= now:
            if len(self._names) >= MAX_NAMED:
                self._names.clear()
            try:
                names = frozenset([one["id"] for one in await self.models(caller)])
                until = now + MODELS_SECONDS
            except Chat2APIError as error:
                log.info("it cannot be told what the API calls its models: %s", error)
                until = now + UNTOLD_SECONDS
            self._names[whose] = (until, names)
        return model in names

    async def try_key(self, key_id: str) -> Sequence[ModelObject]:
        """Give the models that the API lists for one of the operator's keys, which is asked once.

        Raises UpstreamError for what is wrong, and what a lease raises when the key cannot be used now.
        """
        lease = await self.pool.lease(model=_MODELS, account_id=key_id, errand=True)
        status, body = await self._ask(key_id, lease)
        return read_offered(status, body)

    async def ask_again(self, key_id: str) -> bool:
        """Ask once more by a key that was refused, and tell whether the API accepts it now: then it serves again.

        Raises UpstreamError when that cannot be told.
        """
        status, _ = await self._ask(key_id, None)
        if status == 401:
            return False
        await self.pool.accept(key_id)
        return True

    async def _ask(self, key_id: str, lease: Lease | None) -> tuple[int, bytes]:
        """Ask for the models by one key, and give the answer's status and body."""
        key, seconds = self.keys[key_id], self._config.preparation_timeout
        attempt = self.attempt(ApiCall("GET", ("models",), seconds), _MODELS, key.secret, lease, key.label)
        outcome: Outcome | Exception = Outcome.ABANDONED
        try:
            by = asyncio.get_running_loop().time() + seconds
            async with deadline(by, "first_content", "The API did not answer in time."):
                answer = await attempt.open(set())
            body = await answer.read_whole(seconds)
            if answer.status < 400:
                read_models(body)
            outcome = Outcome.SERVED
        except UpstreamError as error:
            outcome = error
            raise
        finally:
            await attempt.finish(outcome)
        return answer.status, body

    async def _list(self, caller: Caller) -> Sequence[ModelObject]:
        seconds = self._config.preparation_timeout
        loop = asyncio.get_running_loop()
        call = ApiCall("GET", ("models",), seconds)
        answer = await self.open(caller, call, model=_MODELS, first_by=loop.time() + seconds, facts=AnswerFacts())
        body = await answer.read_whole(seconds)
        if answer.status == 401:
            raise CallerTokenRejectedError("The API does not accept the key that you sent.")
        return read_offered(answer.status, body)


@dataclass(slots=True)
class _Opening:
    """One call on its way to its answer's first byte."""

    provider: OpenAIProvider
    clock: Clock
    config: Config
    caller: Caller
    call: ApiCall
    model: str
    first_by: float
    facts: AnswerFacts
    affinity: str | None
    share: BudgetShare
    pinned: str | None = None
    """The account's id of the only key that can serve."""
    made: int = 0

    async def run(self, rng: random.Random) -> ApiAnswer:
        """Try until an answer begins. Raises the last failure as the caller is told it."""
        attempts = Attempts(self.config.retry_times, self.share, guessed_limits=self.config.enable_limit)
        avoid: set[Exit] = set()
        decision, key_id = Decision("next"), self.pinned
        failure: UpstreamError | None = None
        while True:
            try:
                async with deadline(self.first_by, "first_content", "The API did not answer in time."):
                    await self.clock.sleep(decision.delay)
                    attempt = await self._begin(key_id, attempts, failure)
            except UpstreamTimeoutError as error:
                raise self._told(failure or error) from None
            self.made += 1
            try:
                async with deadline(self.first_by, "first_content", "The API did not begin its answer in time."):
                    answer = await attempt.open(avoid)
                if self._is_too_much(answer):
                    self.provider.note_plain()
                    self.call = self.call.plain()
                    self.made -= 1
                    await attempt.finish(Outcome.SERVED)
                    decision, key_id = Decision("same"), attempt.id
                    continue
                self.share.begin()
                return answer
            except UpstreamError as error:
                failure = error
            except BaseException:
                await attempt.finish(Outcome.ABANDONED)
                raise
            verdict = await attempt.finish(failure)
            decision = attempts.decide(failure, verdict, attempt.id, jitter=rng.random())
            log.info("API key %s: %s: %s; %s", attempt.label, type(failure).__name__, failure, decision.action)
            if self.call.upload is not None and not self.call.upload.restart():
                raise self._told(failure)  # too much of the body has gone out to send it again
            only = attempt.lease is None or self.pinned is not None
            if decision.action == "stop" or (decision.action == "next" and only):
                raise self._told(failure)
            key_id = attempt.id if decision.action == "same" else None
            if verdict.exit_fault is not None and attempt.proxy is not None:
                avoid.add(attempt.proxy)

    def _is_too_much(self, answer: ApiAnswer) -> bool:
        """Whether a call is refused for the question for usage, which we alone have added."""
        return self.call.plain_body is not None and answer.status in (400, 422) and b"stream_options" in answer.first

    async def _begin(self, key_id: str | None, attempts: Attempts, failure: UpstreamError | None) -> "ApiAttempt":
        """Take the key for the next attempt; when there is none left, tell what the last attempt met."""
        provider = self.provider
        if self.caller.kind == "own_key":
            token = cast(str, self.caller.token)
            return provider.attempt(self.call, self.model, token, None, "own", who=_who(self.caller))
        try:
            lease = await provider.pool.lease(
                model=self.model,
                account_id=key_id if key_id != OWN else None,
                exclude=attempts.used_accounts if key_id is None else frozenset(),
                affinity=self.affinity,
                owner=self.caller.owner,
            )
        except AllAccountsCoolingError as error:
            if (
                key_id is not None and self.pinned is None
            ):  # it has been set aside for what it has just met: the next one then
                return await self._begin(None, attempts, failure)
            if failure is not None and not isinstance(failure, AccountLimitedError):
                raise self._told(failure) from None
            raise self._all_resting(error.retry_after) from None
        except NoAccountError:
            waits = isinstance(failure, AccountLimitedError | AccountRejectedError)  # one may wait beside the refused
            if waits and (seconds := provider.pool.soonest(model=self.model)):
                raise self._all_resting(seconds) from None
            if failure is not None and not isinstance(failure, AccountRejectedError):
                raise self._told(failure) from None
            raise NoAccountError(
                "No usable API key: the API refused each of them. The operator can set others in OPENAI_API_KEYS."
            ) from None
        key = provider.keys[lease.account.id]
        self.facts.account = key.label
        return provider.attempt(self.call, self.model, key.secret, lease, key.label, who=_who(self.caller))

    def _all_resting(self, seconds: float | None) -> AllAccountsCoolingError:
        return AllAccountsCoolingError(
            "Every API key that could serve this is waiting for its limit to end.",
            retry_after=seconds,
            final=self.made > 1,
        )

    def _told(self, error: UpstreamError) -> Chat2APIError:
        """Give the error as the caller is told it: clients shall not multiply the attempts that were made (R3a)."""
        limited = isinstance(error, AccountLimitedError) and error.retry_after is not None and self.made <= 1
        error.final = error.final or not limited
        return error


def _who(caller: Caller) -> str:
    """Give a caller as the exits tell them apart: by their key, or by address within their tier."""
    return f"{caller.owner}\0{caller.person}" if caller.kind == "public" else caller.owner
