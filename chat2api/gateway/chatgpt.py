"""The ChatGPT provider: public operations served by web accounts, failing over until the first content."""

import logging
import random
from collections import Counter
from collections.abc import AsyncGenerator, Sequence, Set
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial

from chat2api.accounts.health import Verdict
from chat2api.accounts.pool import Lease, Outcome
from chat2api.clock import Clock
from chat2api.config import Config
from chat2api.errors import Chat2APIError, NoAccountError
from chat2api.gateway.attempts import Trials, affinity_of, claim_conversation, is_guest, is_unreadable
from chat2api.gateway.deadlines import Watchdog, answer_limits, deadline, is_reasoning
from chat2api.gateway.offers import Offers, choose
from chat2api.gateway.provider import AnswerFacts, Caller
from chat2api.gateway.sources import Claim, Sources, Way
from chat2api.gateway.turns import TurnFollower
from chat2api.protocol.chatgpt.drift import UNREADABLE, DriftWatch
from chat2api.protocol.chatgpt.models import AUTO, check_shared_model, reply_name
from chat2api.protocol.events import Event, FileLink, Finished, ReasoningDelta, TakeEvents, TextDelta
from chat2api.protocol.openai.chat import ChatRequest
from chat2api.protocol.openai.limits import TurnLimiter
from chat2api.protocol.prompt import Message, Prompt
from chat2api.upstream.alarms import Alarms
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
        alarms: Alarms | None = None,
    ) -> None:
        """Serve from those accounts through that client; `drift` is told of every answer, `alarms` keep its limits."""
        self._alarms = alarms
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
        choice = _Choice(self._client, prompt, self._drift, take if limiter.idle else None)
        trials = Trials(
            config=self._config,
            clock=self._clock,
            rng=self._rng,
            caller=caller,
            claim=claim,
            model=prompt.model.slug,
            limits=answer_limits(self._config, reasoning=is_reasoning(prompt.model)),
            share=share,
            facts=facts,
            affinity=_affinity(caller, request),
            watchdog=Watchdog(self._alarms),
        )
        with share:
            async with aclosing(trials.run(partial(_ChatAttempt, choice, trials))) as batches:
                async for events in batches:
                    kept = limiter.feed(events)
                    if kept:
                        yield kept
                    if limiter.done and not limiter.idle:
                        return  # a cut; an answer that ends by itself is over with the next step

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
        choice = choose(model, live)
        return choice.fallback_from is None and (not live or choice.slug in live or choice.slug == AUTO)

    def reply_model(self, requested: str, served: str | None) -> str:
        """Give the public name of the model that serves; see Provider."""
        return reply_name(requested, choose(requested, self._offers.known), served)

    def keeps_history(self, request: ChatRequest) -> bool:
        """Whether the conversation of this request is stored upstream; see Provider."""
        temporary = self._config.history_disabled if request.history_disabled is None else request.history_disabled
        return not temporary or request.conversation_id is not None

    async def _prompt(self, caller: Caller, request: ChatRequest, claim: Claim) -> tuple[Prompt, Claim]:
        """Give what to send, and the claim narrowed to the account that owns the conversation named."""
        if is_guest(caller, self._config):
            check_shared_model(request.model)
        live = await self._offers.slugs_for(request.model, claim, caller.workspace)
        model = choose(request.model, live, anonymous=caller.kind == "anonymous")
        prompt = Prompt(
            messages=request.messages,
            model=model,
            temporary=not self.keeps_history(request),
            thinking_effort=request.thinking_effort if request.thinking_effort and is_reasoning(model) else None,
        )
        if request.conversation_id is None:
            return prompt, claim
        claim, owned = await claim_conversation(claim, caller, request.conversation_id)
        parent = request.parent_message_id or (owned.last_message_id if owned is not None else None)
        continued = replace(
            prompt,
            messages=new_messages(request.messages),
            conversation_id=request.conversation_id,
            parent_message_id=parent,
        )
        return continued, claim


class _ChatAttempt:
    """One attempt at a choice of a chat completion."""

    def __init__(self, work: "_Choice", trials: Trials, lease: Lease, first_by: float) -> None:
        """Make an attempt; call `finish` once it is over, however it ends."""
        self._work = work
        self._trials = trials
        self._lease = lease
        self._first_by = first_by
        self._follower: TurnFollower | None = None
        self._served = False
        self.session: Session | None = None
        self.begun = False

    async def answer(self, avoid: Set[Way], *, renew: bool) -> AsyncGenerator[Sequence[Event]]:
        """Yield the turn's events from the first content on."""
        work, trials = self._work, self._trials
        late = "The backend did not begin its answer in time."
        async with deadline(self._first_by, "first_content", late, trials.watchdog):
            self.session = session = await trials.open_session(self._lease, avoid, renew=renew)
            prompt = await self._with_parent(session, work.prompt)
            turn = await work.client.start_turn(session, prompt)
        self._follower = follower = TurnFollower(
            work.client, trials.clock, session, prompt, trials.limits, self._first_by, turn, work.take, trials.watchdog
        )
        held: list[Event] = []
        while batch := await follower.next():
            held += batch
            if not self.begun and not any([isinstance(event, _CONTENT) for event in held]):
                continue
            if not prompt.temporary:
                await self._remember(held)
            self.begun = True
            trials.share.begin()
            given, held = held, []
            yield given
        self._served = True

    async def finish(self, failure: Exception | None) -> Verdict:
        """Free the account and abort what still runs; give what the failure means."""
        self._note_shapes(failure)
        if self._follower is not None:
            await self._follower.aclose()
        outcome = failure or (Outcome.SERVED if self._served or self.begun else Outcome.ABANDONED)
        return await self._trials.free(self._lease, self.session, outcome)

    def _note_shapes(self, failure: Exception | None) -> None:
        """Tell the drift alarm which shapes of the answer were not understood, if there was one."""
        follower = self._follower
        unreadable = is_unreadable(failure)
        if follower is None and not unreadable:
            return
        unknown = Counter[str]()
        if follower is not None and (follower.unknown or follower.turn.unknown):
            unknown = follower.unknown + follower.turn.unknown
        if unreadable:
            unknown[UNREADABLE] += 1
        self._work.drift.note(unknown, self._trials.clock.monotonic())

    async def _with_parent(self, session: Session, prompt: Prompt) -> Prompt:
        """Name the message that a continued conversation goes on from, where nobody has named it."""
        if prompt.conversation_id is None or prompt.parent_message_id is not None:
            return prompt
        current = await self._work.client.current_message(session, prompt.conversation_id)
        return replace(prompt, parent_message_id=current)

    async def _remember(self, events: list[Event]) -> None:
        """Keep who owns the conversation, before the caller learns its id and after each turn."""
        for event in events:
            identifier = getattr(event, "conversation_id", None)
            if identifier is None:
                continue
            message_id = event.message_id if isinstance(event, Finished) else None
            await self._trials.remember(self._lease, identifier, message_id)


@dataclass(frozen=True, slots=True)
class _Choice:
    """What is asked for one choice, and through whom."""

    client: ChatGPTClient
    prompt: Prompt
    drift: DriftWatch
    take: TakeEvents | None


def _affinity(caller: Caller, request: ChatRequest) -> str | None:
    """Give what shall stay with one account: the end user whom the request names, else the caller."""
    return f"{caller.owner}\0{request.user}" if request.user else affinity_of(caller)


def new_messages(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Give the messages that a continued conversation does not know yet: those with a text after the last answer.

    Where nothing of the kind stands there, the last message with a text.
    """
    last_answer = max((index for index, message in enumerate(messages) if message.role == "assistant"), default=-1)
    fresh = tuple(message for message in messages[last_answer + 1 :] if message.text)
    return fresh or tuple(message for message in messages if message.text)[-1:]
