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

import orjson

from chat2api.accounts.budget import BudgetShare, RetryBudget
from chat2api.accounts.exits import Exit, Exits
from chat2api.accounts.health import Attempts, Decision, Verdict, judge
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
    UpstreamProtocolError,
    UpstreamRefusedRequestError,
    UpstreamTimeoutError,
)
from chat2api.gateway.deadlines import AnswerLimits, deadline
from chat2api.gateway.provider import AnswerFacts, Caller
from chat2api.protocol.openai.models import ModelObject
from chat2api.protocol.openai.passing import first_event
from chat2api.protocol.openai.refusals import (
    classify_refusal,
    is_bare_error,
    mask_error,
    read_error,
    status_of_error,
)
from chat2api.upstream.exchange import ResponseStream
from chat2api.upstream.openai import ApiCall, OpenAIClient, read_refusal

log = logging.getLogger(__name__)

FIRST_LIMIT = 256 * 1024
"""Bytes of an answer that are held before it is decided that it has begun."""

LIST_LIMIT = 8 * 1024 * 1024
"""Bytes of a list that is read here."""

MODELS_SECONDS = 300.0
"""How long the API's list of models is used."""

_MODELS = "models"
"""Stands for a model where the list of models is asked for."""

_OWN = "own"
"""Stands for the caller's own key where attempts are counted."""

_THINKING = re.compile(r"(?:.*/)?(?:o\d|gpt-[5-9]).*|.*(?:thinking|reason|think|-r\d\b|deep-research|-pro\b).*")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One of the operator's keys. `label` is a short digest that pages, metrics and the ledger show."""

    label: str
    secret: str = field(repr=False)


class ApiAnswer:
    """An answer that has begun: `first` is what came of its body. Always `aclose` it with how it went."""

    def __init__(
        self, status: int, headers: Mapping[str, str], first: bytes, stream: ResponseStream | None, attempt: "_Attempt"
    ) -> None:
        """Made by OpenAIProvider.open only."""
        self.status = status
        self.headers = headers
        self.first = first
        self.stream = stream
        """What comes behind `first`; None when that is all."""
        self._attempt = attempt

    @property
    def is_events(self) -> bool:
        """Whether the body is an event stream."""
        return is_event_stream(self.headers)

    async def aclose(self, outcome: Outcome | Exception) -> None:
        """Abort what still comes and free the key."""
        await self._attempt.finish(outcome)


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
        share = self.budget.admit()
        pinned = self._id_of(key) if key is not None and caller.kind != "own_key" else None
        with share:
            opening = _Opening(
                self, self._clock, self._config, caller, call, model, first_by, facts, affinity, share, pinned
            )
            return await opening.run(self._rng)

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

    async def try_key(self, key_id: str) -> Sequence[ModelObject]:
        """Give the models that the API lists for one of the operator's keys, which is asked once.

        Raises UpstreamError for what is wrong, and what a lease raises when the key cannot be used now.
        """
        key, seconds = self.keys[key_id], self._config.preparation_timeout
        lease = await self.pool.lease(model=_MODELS, account_id=key_id, errand=True)
        attempt = _Attempt(self, ApiCall("GET", ("models",), seconds), _MODELS, key.secret, lease, key.label)
        outcome: Outcome | Exception = Outcome.ABANDONED
        try:
            by = asyncio.get_running_loop().time() + seconds
            async with deadline(by, "first_content", "The API did not answer in time."):
                answer = await attempt.open(set())
            models = read_offered(answer.status, await self.read_whole(answer, seconds))
            outcome = Outcome.SERVED
        except UpstreamError as error:
            outcome = error
            raise
        finally:
            await attempt.finish(outcome)
        return models

    async def ask_again(self, key_id: str) -> bool:
        """Ask once more by a key that was refused, and tell whether the API accepts it now: then it serves again.

        Raises UpstreamError when that cannot be told.
        """
        key, seconds = self.keys[key_id], self._config.preparation_timeout
        attempt = _Attempt(self, ApiCall("GET", ("models",), seconds), _MODELS, key.secret, None, key.label)
        outcome: Outcome | Exception = Outcome.ABANDONED
        try:
            by = asyncio.get_running_loop().time() + seconds
            async with deadline(by, "first_content", "The API did not answer in time."):
                answer = await attempt.open(set())
            await self.read_whole(answer, seconds)
            outcome = Outcome.SERVED
        except UpstreamError as error:
            outcome = error
            raise
        finally:
            await attempt.finish(outcome)
        if answer.status == 401:
            return False
        await self.pool.accept(key_id)
        return True

    async def _list(self, caller: Caller) -> Sequence[ModelObject]:
        seconds = self._config.preparation_timeout
        loop = asyncio.get_running_loop()
        call = ApiCall("GET", ("models",), seconds)
        answer = await self.open(caller, call, model=_MODELS, first_by=loop.time() + seconds, facts=AnswerFacts())
        body = await self.read_whole(answer, seconds)
        if answer.status == 401:
            raise CallerTokenRejectedError("The API does not accept the key that you sent.")
        return read_offered(answer.status, body)

    async def read_whole(self, answer: ApiAnswer, seconds: float) -> bytes:
        """Give the whole body of a short answer and close it. Raises UpstreamError."""
        outcome: Outcome | Exception = Outcome.ABANDONED
        try:
            pieces = [answer.first]
            async with asyncio.timeout(seconds):
                while answer.stream is not None and (data := await answer.stream.read()):
                    pieces.append(data)
                    if sum(map(len, pieces)) > LIST_LIMIT:
                        raise UpstreamProtocolError("The API's list is too long.")
            outcome = Outcome.SERVED
        except TimeoutError as error:
            raise UpstreamTimeoutError("The API did not end its answer in time.", phase="whole") from error
        finally:
            await answer.aclose(outcome)
        return b"".join(pieces)


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

    async def _begin(self, key_id: str | None, attempts: Attempts, failure: UpstreamError | None) -> "_Attempt":
        """Take the key for the next attempt; when there is none left, tell what the last attempt met."""
        provider = self.provider
        if self.caller.kind == "own_key":
            return _Attempt(provider, self.call, self.model, cast(str, self.caller.token), None, "own")
        try:
            lease = await provider.pool.lease(
                model=self.model,
                account_id=key_id if key_id != _OWN else None,
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
        return _Attempt(provider, self.call, self.model, key.secret, lease, key.label)

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


class _Attempt:
    """One attempt with one key."""

    def __init__(
        self, provider: OpenAIProvider, call: ApiCall, model: str, secret: str, lease: Lease | None, label: str
    ) -> None:
        """Make an attempt with a leased key, or with the caller's own (no lease); `finish` it, however it ends."""
        self._provider = provider
        self._call = call
        self._model = model
        self._secret = secret
        self._stream: ResponseStream | None = None
        self._finished = False
        self._sent = False
        self.lease = lease
        self.label = label
        self.id = lease.account.id if lease is not None else _OWN
        self.proxy: Exit = None

    async def open(self, avoid: set[Exit]) -> ApiAnswer:
        """Give the answer once something of it is here. Raises what is wrong with the key or the server."""
        provider = self._provider
        self.proxy = provider.exits.choose(self.id, provider.client.host, avoid=avoid)
        self._sent = True
        self._stream = stream = await provider.client.open(self._secret, self.proxy, self._call)
        if not 200 <= stream.status < 300:
            return await self._refused(stream)
        kind = stream.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "text/html" and self._call.accept != "*/*":
            raise UpstreamProtocolError("The API answered with a page.")
        if kind == "text/event-stream":
            return await self._begin_events(stream)
        return await self._begin_whole(stream, is_json=kind == "application/json")

    async def _refused(self, stream: ResponseStream) -> ApiAnswer:
        body = await read_refusal(stream)
        error = classify_refusal(stream.status, stream.headers, body)
        own = self.lease is None
        if error is not None and not (own and 400 <= stream.status < 500):
            raise error
        await stream.aclose()
        headers = {**stream.headers, "content-type": "application/json"}
        return ApiAnswer(stream.status, headers, mask_error(body), None, self)

    async def _begin_events(self, stream: ResponseStream) -> ApiAnswer:
        """Wait for the first event: an error there is this attempt's failure, or the answer's real status."""
        data = b""
        while True:
            first = first_event(data)
            if first.kind == "content" or len(data) > FIRST_LIMIT:
                return ApiAnswer(stream.status, stream.headers, data, stream, self)
            if first.kind == "error":
                return await self._failed_late(stream, first.error)
            if first.kind == "unreadable":
                raise UpstreamProtocolError("The API's answer does not begin with an event.")
            more = await stream.read()
            if not more:
                raise UpstreamProtocolError("The API's answer ended before its first event.")
            data += more

    async def _failed_late(self, stream: ResponseStream, payload: bytes) -> ApiAnswer:
        """Treat an error behind the head of an answer as the refusal that it is."""
        _, kind, code = read_error(payload)
        status = status_of_error(kind, code)
        error = classify_refusal(status, stream.headers, payload)
        if error is not None and not (self.lease is None and status < 500):
            raise error
        await stream.aclose()
        headers = {**stream.headers, "content-type": "application/json"}
        return ApiAnswer(status, headers, mask_error(payload), None, self)

    async def _begin_whole(self, stream: ResponseStream, *, is_json: bool) -> ApiAnswer:
        """Take a short JSON answer whole, so that one that breaks off may be tried again; others from their first bytes."""
        pieces: list[bytes] = []
        size = 0
        while data := await stream.read():
            pieces.append(data)
            size += len(data)
            if not is_json or size > FIRST_LIMIT:
                return ApiAnswer(stream.status, stream.headers, b"".join(pieces), stream, self)
        body = b"".join(pieces)
        if is_json and not body.strip() and stream.status != 204:
            raise UpstreamProtocolError("The API's answer is empty.")
        if is_json and is_bare_error(body):
            return await self._failed_late(stream, body)
        return ApiAnswer(stream.status, stream.headers, body, None, self)

    async def finish(self, outcome: Outcome | Exception) -> Verdict:
        """Abort what still comes, free the key, and give what a failure means; later calls change nothing."""
        if self._finished:
            return Verdict()
        self._finished = True
        try:
            if self._stream is not None:
                await self._stream.aclose()
        finally:
            if self.lease is not None:
                verdict = await self.lease.release(outcome)
            else:
                verdict = judge(outcome, model=self._model) if isinstance(outcome, Exception) else Verdict()
            self._report(outcome, verdict)
        return verdict

    def _report(self, outcome: Outcome | Exception, verdict: Verdict) -> None:
        if not self._sent:
            return
        exits, host = self._provider.exits, self._provider.client.host
        if outcome is Outcome.ABANDONED:
            exits.abandon(self.proxy, host)
        else:
            exits.report(self.proxy, host, verdict.exit_fault, seconds=verdict.exit_seconds)


def is_event_stream(headers: Mapping[str, str]) -> bool:
    """Whether an answer's body is an event stream."""
    return headers.get("content-type", "").partition(";")[0].strip().lower() == "text/event-stream"


def read_offered(status: int, body: bytes) -> list[ModelObject]:
    """Give the models of an answer to the question for them. Raises UpstreamRefusedRequestError, UpstreamProtocolError."""
    if status >= 400:
        raise UpstreamRefusedRequestError("The API does not list its models for this key.")
    return read_models(body)


def read_models(body: bytes) -> list[ModelObject]:
    """Give the models of the API's list, each as it was told. Raises UpstreamProtocolError."""
    return [cast(ModelObject, item) for item in read_list(body)]


def read_list(body: bytes) -> list[dict[str, object]]:
    """Give what a list of the API's names by ids. Raises UpstreamProtocolError."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UpstreamProtocolError("The API's list cannot be read.") from error
    listed = value.get("data") if isinstance(value, dict) else None
    if not isinstance(listed, list):
        raise UpstreamProtocolError("The API's list cannot be read.")
    return [item for item in listed if isinstance(item, dict) and isinstance(item.get("id"), str)]
