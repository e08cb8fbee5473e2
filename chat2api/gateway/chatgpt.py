"""The ChatGPT provider: public operations served by web accounts, failing over until the first content."""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import lru_cache

from chat2api.accounts.budget import BudgetShare
from chat2api.accounts.health import Attempts, Decision, Verdict
from chat2api.accounts.pool import Lease, Outcome
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
    StorageError,
    StreamInterruptedError,
    TransportError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeoutError,
)
from chat2api.gateway.deadlines import AnswerLimits, answer_limits, deadline, is_reasoning
from chat2api.gateway.offers import Offers
from chat2api.gateway.provider import AnswerFacts, Caller
from chat2api.gateway.sources import Claim, Sources, Way
from chat2api.gateway.turns import TurnFollower
from chat2api.protocol.chatgpt.drift import UNREADABLE, DriftWatch
from chat2api.protocol.chatgpt.models import AUTO, choose_model, reply_name
from chat2api.protocol.events import Event, FileLink, Finished, ReasoningDelta, TakeEvents, TextDelta
from chat2api.protocol.openai.chat import ChatRequest
from chat2api.protocol.openai.limits import TurnLimiter
from chat2api.protocol.prompt import Message, ModelChoice, Prompt
from chat2api.storage.values import ConversationOwner
from chat2api.upstream.chatgpt.client import ChatGPTClient
from chat2api.upstream.chatgpt.session import Session

log = logging.getLogger(__name__)

_CONTENT = (TextDelta, ReasoningDelta, FileLink, Finished)


class ChatGPTProvider:
    """Serves chat completions from ChatGPT accounts."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        client: ChatGPTClient,
        sources: Sources,
        offers: Offers,
        drift: DriftWatch | None = None,
    ) -> None:
        """Serve from those accounts through that client; `drift` is told of every answer."""
        self._drift = drift or DriftWatch()
        self._config = config
        self._clock = clock
        self._client = client
        self._sources = sources
        self._offers = offers
        self._rng = random.Random()

    async def chat(
        self, caller: Caller, request: ChatRequest, facts: AnswerFacts, take: TakeEvents | None = None
    ) -> AsyncGenerator[Sequence[Event]]:
        """Yield one choice of a chat completion; see Provider."""
        if request.workspace_id is not None and caller.workspace is None:
            caller = replace(caller, workspace=request.workspace_id)
        claim = await self._sources.claim(caller)
        facts.upstream = claim.source.upstream
        prompt, claim = await self._prompt(caller, request, claim)
        facts.model_fallback = prompt.model.fallback_from
        facts.model = prompt.model.slug
        share = claim.source.budget.admit()
        limiter = TurnLimiter(request.max_tokens, request.stop)
        answering = _Answering(
            config=self._config,
            clock=self._clock,
            client=self._client,
            rng=self._rng,
            caller=caller,
            claim=claim,
            prompt=prompt,
            limits=answer_limits(self._config, reasoning=is_reasoning(prompt.model)),
            share=share,
            facts=facts,
            drift=self._drift,
            take=take if limiter.idle else None,
            affinity=_affinity(caller, request),
        )
        with share:
            async with aclosing(answering.events()) as batches:
                async for events in batches:
                    kept = limiter.feed(events)
                    if kept:
                        yield kept
                    if limiter.done:
                        return

    async def models(self, caller: Caller) -> Sequence[str]:
        """Give the slugs that the caller's accounts offer; see Provider."""
        return await self._offers.slugs(await self._sources.claim(caller), caller.workspace)

    async def offered(self, caller: Caller, model: str) -> bool:
        """Whether the caller's accounts offer a model now; see Provider. What is not known is taken from the tables."""
        try:
            live = frozenset(await self.models(caller))
        except NoAccountError:
            return False
        except Chat2APIError:
            live = self._offers.known
        choice = choose_model(model, live)
        return choice.fallback_from is None and (not live or choice.slug in live or choice.slug == AUTO)

    def reply_model(self, requested: str, served: str | None) -> str:
        """Give the public name of the model that serves; see Provider."""
        return reply_name(requested, _choose(requested, self._offers.known), served)

    def keeps_history(self, request: ChatRequest) -> bool:
        """Whether the conversation of this request is stored upstream; see Provider."""
        temporary = self._config.history_disabled if request.history_disabled is None else request.history_disabled
        return not temporary or request.conversation_id is not None

    async def _prompt(self, caller: Caller, request: ChatRequest, claim: Claim) -> tuple[Prompt, Claim]:
        """Give what to send, and the claim narrowed to the account that owns the conversation named."""
        live = await self._offers.slugs_for(request.model, claim, caller.workspace)
        model = choose_model(request.model, live, anonymous=caller.kind == "anonymous")
        prompt = Prompt(
            messages=request.messages,
            model=model,
            temporary=not self.keeps_history(request),
            thinking_effort=request.thinking_effort if is_reasoning(model) else None,
        )
        if request.conversation_id is None:
            return prompt, claim
        owned = await claim.source.records.conversation(request.conversation_id)
        if claim.account_id is None:
            if owned is None or owned.owner != caller.owner or not claim.may_use(owned.account_id):
                raise NotFoundError(
                    "There is no such conversation, or it is not yours. Leave conversation_id out to begin a new one.",
                    param="conversation_id",
                    code="conversation_not_found",
                )
            claim = replace(claim, account_id=owned.account_id)
        parent = request.parent_message_id or (owned.last_message_id if owned is not None else None)
        continued = replace(
            prompt,
            messages=new_messages(request.messages),
            conversation_id=request.conversation_id,
            parent_message_id=parent,
        )
        return continued, claim


@dataclass(slots=True)
class _Answering:
    """One choice being answered: attempt after attempt until the first content, then the turn to its end."""

    config: Config
    clock: Clock
    client: ChatGPTClient
    rng: random.Random
    caller: Caller
    claim: Claim
    prompt: Prompt
    limits: AnswerLimits
    share: BudgetShare
    facts: AnswerFacts
    drift: DriftWatch
    take: TakeEvents | None
    affinity: str | None = None
    """What stays with one account; see AccountPool.lease."""
    made: int = 0
    """Attempts made so far."""

    async def events(self) -> AsyncGenerator[Sequence[Event]]:
        """Yield the answer; nothing before its first content, so that until then another account may be tried.

        Raises the last attempt's error when there was no content, StreamInterruptedError and kin when there was.
        """
        first_by = asyncio.get_running_loop().time() + self.limits.first_content
        attempts = Attempts(self.config.retry_times, self.share, guessed_limits=self.config.enable_limit)
        avoid: set[Way] = set()
        decision, account_id = Decision("next"), self.claim.account_id
        failure: UpstreamError | None = None
        while True:
            try:
                async with deadline(first_by, "first_content", "The backend did not answer in time."):
                    await self.clock.sleep(decision.delay)
                    lease = await self._lease(account_id, attempts, failure)
            except UpstreamTimeoutError as error:
                raise self._told(failure or error) from None
            self.made += 1
            self.facts.account = lease.account.label
            attempt = _Attempt(self, lease, first_by)
            failure = None
            try:
                async with aclosing(attempt.events(avoid, renew=decision.refresh)) as batches:
                    async for batch in batches:
                        yield batch
                return
            except UpstreamError as error:
                failure = _in_stream(error) if attempt.begun else error
            finally:
                verdict = await attempt.finish(failure)
            if attempt.begun:
                failure.final = True  # a client that repeats by itself would pay for the answer twice
                raise failure
            decision = attempts.decide(failure, verdict, lease.account.id, jitter=self.rng.random())
            log.info("account %s: %s: %s; %s", lease.account.label, type(failure).__name__, failure, decision.action)
            if decision.action == "stop":
                raise self._told(failure)
            account_id = lease.account.id if decision.action == "same" else self.claim.account_id
            if attempt.session is not None and verdict.exit_fault is not None:
                avoid.add((attempt.session.origin, attempt.session.proxy))

    async def _lease(self, account_id: str | None, attempts: Attempts, failure: UpstreamError | None) -> Lease:
        """Lease the account for the next attempt; when there is none left, tell what the last attempt met."""
        exclude = attempts.used_accounts if account_id is None else frozenset[str]()
        try:
            return await self.claim.source.pool.lease(
                model=self.prompt.model.slug,
                workspace=self._pool_workspace(),
                account_id=account_id,
                exclude=exclude,
                allowed=self.claim.allowed,
                affinity=self.affinity,
                owner=self.caller.owner,
            )
        except AllAccountsCoolingError as error:
            if failure is None or isinstance(failure, AccountLimitedError):
                error.final = error.final or self.made > 1
                raise
            raise self._told(failure) from None
        except NoAccountError as error:
            if self.caller.kind == "own_token":
                raise self._told(failure or AccountRejectedError(error.message, reason="token_expired")) from None
            if failure is None or isinstance(failure, AccountRejectedError):
                raise
            if isinstance(failure, AccountLimitedError):
                self._tell_soonest()
            raise self._told(failure) from None

    def _tell_soonest(self) -> None:
        """Raise AllAccountsCoolingError with the soonest end of all waits; return when somebody could serve, or nobody.

        Every account has been tried, and left out of the last pick for that.
        """
        pool = self.claim.source.pool
        seconds = pool.soonest(
            model=self.prompt.model.slug, workspace=self._pool_workspace(), allowed=self.claim.allowed
        )
        if seconds:
            raise AllAccountsCoolingError(
                "Every account that could serve this is waiting for its limit to end.",
                retry_after=seconds,
                final=self.made > 1,
            )

    def _pool_workspace(self) -> str | None:
        """The workspace that restricts the pick; an account of the caller's own is picked by name."""
        return self.caller.workspace if self.claim.account_id is None else None

    def _told(self, error: UpstreamError) -> Chat2APIError:
        """Give the error as the caller is told it: attempts are spent, so clients shall not repeat it by themselves."""
        if isinstance(error, AccountRejectedError) and self.caller.kind == "own_token":
            return CallerTokenRejectedError(
                "ChatGPT does not accept the token that you sent. Get a new one and use that."
            )
        # A limit ends at a known time, and a client may come back then, unless it has cost several calls already: its
        # own repetitions would multiply them. A failure with a time is still a failure.
        error.final = (
            error.final or error.retry_after is None or not isinstance(error, AccountLimitedError) or self.made > 1
        )
        return error


class _Attempt:
    """One attempt on one leased account."""

    def __init__(self, answering: _Answering, lease: Lease, first_by: float) -> None:
        """Make an attempt; call `finish` once it is over, however it ends."""
        self._answering = answering
        self._lease = lease
        self._first_by = first_by
        self._follower: TurnFollower | None = None
        self._served = False
        self.session: Session | None = None
        self.begun = False
        """Whether content was given, after which nothing may be tried again."""

    async def events(self, avoid: set[Way], *, renew: bool) -> AsyncGenerator[list[Event]]:
        """Yield the turn's events from the first content on."""
        work = self._answering
        source = work.claim.source
        self._lease.refreshed = renew
        async with deadline(self._first_by, "first_content", "The backend did not begin its answer in time."):
            self.session = session = await source.open_session(
                self._lease, workspace=work.caller.workspace, avoid=avoid, renew=renew
            )
            prompt = await self._with_parent(session, work.prompt)
            turn = await work.client.start_turn(session, prompt)
        self._follower = follower = TurnFollower(
            work.client, work.clock, session, prompt, work.limits, self._first_by, turn, work.take
        )
        held: list[Event] = []
        async with aclosing(follower.events()) as batches:
            async for batch in batches:
                held += batch
                if not self.begun and not any(isinstance(event, _CONTENT) for event in held):
                    continue
                if not prompt.temporary:
                    await self._remember(held)
                self.begun = True
                work.share.begin()
                given, held = held, []
                yield given
        self._served = True

    async def finish(self, failure: Exception | None) -> Verdict:
        """Free the account and abort what still runs; give what the failure means."""
        self._note_shapes(failure)
        if self._follower is not None:
            await self._follower.aclose()
        outcome = failure or (Outcome.SERVED if self._served or self.begun else Outcome.ABANDONED)
        verdict = await self._lease.release(outcome)
        if self.session is not None:
            told = verdict if outcome is not Outcome.ABANDONED else None
            self._answering.claim.source.report(self.session, told)
        return verdict

    def _note_shapes(self, failure: Exception | None) -> None:
        """Tell the drift alarm which shapes of the answer were not understood, if there was one."""
        follower = self._follower
        unreadable = isinstance(failure, UpstreamProtocolError) or (
            failure is not None and isinstance(failure.__cause__, UpstreamProtocolError)
        )
        if follower is None and not unreadable:
            return
        unknown = follower.unknown + follower.turn.unknown if follower is not None else Counter[str]()
        if unreadable:
            unknown[UNREADABLE] += 1
        self._answering.drift.note(unknown, self._answering.clock.monotonic())

    async def _with_parent(self, session: Session, prompt: Prompt) -> Prompt:
        """Name the message that a continued conversation goes on from, where nobody has named it."""
        if prompt.conversation_id is None or prompt.parent_message_id is not None:
            return prompt
        current = await self._answering.client.current_message(session, prompt.conversation_id)
        return replace(prompt, parent_message_id=current)

    async def _remember(self, events: list[Event]) -> None:
        """Keep who owns the conversation, before the caller learns its id and after each turn."""
        for event in events:
            identifier = getattr(event, "conversation_id", None)
            if identifier is None:
                continue
            work = self._answering
            message_id = event.message_id if isinstance(event, Finished) else None
            owner = ConversationOwner(
                identifier, self._lease.account.id, work.caller.owner, message_id, work.clock.now()
            )
            try:
                await work.claim.source.records.put_conversation(owner)
            except StorageError as error:
                log.warning("cannot keep the owner of a conversation: %s", error)


def _affinity(caller: Caller, request: ChatRequest) -> str | None:
    """Give what shall stay with one account: the end user whom the request names, else the caller's own key.

    The operator's keys serve everybody behind them: tied to one account, they would leave the others idle.
    """
    if request.user:
        return f"{caller.owner}\0{request.user}"
    return caller.owner if caller.kind not in ("operator", "demo") else None


@lru_cache(maxsize=256)
def _choose(name: str, live: frozenset[str]) -> ModelChoice:
    """Remember what a name stands for: it is asked several times for each answer."""
    return choose_model(name, live)


def new_messages(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Give the messages that a continued conversation does not know yet: those with a text after the last answer.

    Where nothing of the kind stands there, the last message with a text.
    """
    last_answer = max((index for index, message in enumerate(messages) if message.role == "assistant"), default=-1)
    fresh = tuple(message for message in messages[last_answer + 1 :] if message.text)
    return fresh or tuple(message for message in messages if message.text)[-1:]


def _in_stream(error: UpstreamError) -> UpstreamError:
    """Give the error that ends an answer which has begun."""
    if isinstance(error, TransportError | UpstreamProtocolError | UpstreamTimeoutError):
        interrupted = StreamInterruptedError(f"The answer was cut off: {error.message}")
        interrupted.__cause__ = error
        return interrupted
    return error
