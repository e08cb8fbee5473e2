"""The website's conversation calls for every kind of caller: whose conversations they see, and on which account.

Who brings a token sees what its account has. Who comes with a key of this server shares accounts with others, and sees
and touches what was made with that key only (S8): the backend's list is looked through for those, and what the backend
can only do to a whole account is done to them one by one.
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence, Set
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import orjson

from chat2api.accounts.health import Verdict
from chat2api.accounts.pool import Lease, Outcome
from chat2api.clock import Clock
from chat2api.config import Config
from chat2api.errors import (
    Chat2APIError,
    InvalidAPIKeyError,
    MissingAPIKeyError,
    NotFoundError,
    StorageError,
    UpstreamNotFoundError,
    UpstreamProtocolError,
)
from chat2api.gateway.attempts import Trials, affinity_of, claim_conversation, is_guest, may_be_claimed
from chat2api.gateway.deadlines import AnswerLimits, answer_limits, is_reasoning
from chat2api.gateway.provider import AnswerFacts, Caller
from chat2api.gateway.site_turns import PassingChats, Piece, SiteAsk, SiteAttempt
from chat2api.gateway.sources import Claim, Sources, Way
from chat2api.protocol.chatgpt.drift import DriftWatch
from chat2api.protocol.chatgpt.models import check_shared_model
from chat2api.protocol.chatgpt.request import Surroundings
from chat2api.protocol.chatgpt.website import (
    MAX_LIMIT,
    Page,
    SiteCall,
    accounts_call,
    hide_all_call,
    hide_call,
    models_call,
    page_call,
    read_call,
    shared_accounts,
    shown_models,
    summary_of,
)
from chat2api.protocol.chatgpt.website_files import held_files
from chat2api.protocol.chatgpt.website_turns import SiteTurn
from chat2api.protocol.prompt import ModelChoice
from chat2api.storage.values import ConversationOwner
from chat2api.upstream.chatgpt.client import ChatGPTClient
from chat2api.upstream.chatgpt.session import Session

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_PAGES = 10
"""Pages of an account's list that are looked through for one caller's conversations."""

AT_ONCE = 4
"""Calls made at once where many are needed."""

_BESIDE = "conversations"
"""Stands for the model in leases that are for no turn."""


class Conversations:
    """The conversation calls of the website."""

    def __init__(
        self, config: Config, clock: Clock, client: ChatGPTClient, sources: Sources, drift: DriftWatch
    ) -> None:
        """Serve from those accounts through that client; `drift` is told of every answer."""
        self._config = config
        self._clock = clock
        self._client = client
        self._sources = sources
        self._drift = drift
        self._passing = PassingChats()
        self._rng = random.Random()

    def surroundings(self) -> Surroundings:
        """Give what the calls' bodies tell beside what is asked."""
        return self._client.surroundings()

    async def turn(
        self, caller: Caller, turn: SiteTurn, facts: AnswerFacts, label: str | None = None
    ) -> AsyncGenerator[Sequence[Piece]]:
        """Yield the backend's answer to a turn, its bytes as they come; nothing before its first content.

        `label` names the account to use; only an operator may name one. Until the first content another account may
        be tried, and an error is the whole answer's; later ones are raised too and end a begun answer. Closing the
        generator aborts the upstream call and frees the account.
        """
        claim = await self._claim(caller, label)
        facts.upstream = claim.source.upstream
        facts.model = turn.model
        shares = claim.account_id is None
        if is_guest(caller, self._config):
            turn = turn.shared(self.surroundings())
            check_shared_model(turn.model, turn.gizmo_id or "")
        if turn.conversation_id is not None:
            claim, owned = await self._claim_conversation(claim, caller, turn.conversation_id)
            if turn.parent_message_id is None and owned is not None:
                turn = replace(turn, parent_message_id=owned.last_message_id)
        if shares and turn.files:
            claim = await self._claim_files(claim, caller, turn.files)
        model = ModelChoice(turn.model, hints=turn.hints)
        limits = answer_limits(self._config, reasoning=is_reasoning(model))
        trials = self._trials(caller, claim, turn.model, limits, facts)
        work = SiteAsk(self._client, turn, self._drift, self._passing)
        with trials.share:
            async with aclosing(trials.run(partial(SiteAttempt, work, trials))) as batches:
                async for pieces in batches:
                    yield pieces

    # Calls about one conversation

    async def call(self, caller: Caller, call: SiteCall, label: str | None = None) -> bytes:
        """Make a call about a conversation or a file of the caller's, and give the backend's JSON.

        Raises NotFoundError for those that are not the caller's.
        """
        claim = await self._claim_signed_in(caller, label)
        shares = claim.account_id is None
        owned = None
        if call.conversation_id is not None:
            claim, owned = await self._claim_conversation(claim, caller, call.conversation_id)
        if call.file is not None and shares:
            claim = await self._claim_files(claim, caller, (call.file,))
        answer = await self._answer(caller, claim, call)
        if owned is not None:
            if call.name == "conversation" and shares:
                await _note_files(claim, owned.conversation_id, answer)
            if call.hides:
                await claim.source.records.forget_conversation(owned.conversation_id)
        return answer

    # Calls about all of them

    async def page(self, caller: Caller, page: Page, label: str | None = None) -> bytes:
        """Give one page of the caller's conversations, in the form of the backend's list."""
        claim = await self._claim_signed_in(caller, label)
        if claim.account_id is not None:
            return await self._answer(caller, claim, page_call(page))
        found = await self._own(caller, claim, archived=page.archived)
        found.sort(key=lambda item: str(item.get("update_time" if page.order == "updated" else "create_time")))
        found.reverse()
        return orjson.dumps(
            {
                "items": found[page.offset : page.offset + page.limit],
                "total": len(found),
                "limit": page.limit,
                "offset": page.offset,
                "has_missing_conversations": False,
            }
        )

    async def hide_all(self, caller: Caller, label: str | None = None) -> bytes:
        """Hide all conversations of the caller's; those that others made on the same account stay."""
        claim = await self._claim_signed_in(caller, label)
        if claim.account_id is not None:
            return await self._answer(caller, claim, hide_all_call({"is_visible": False}))

        async def hide(row: ConversationOwner) -> None:
            with suppress(UpstreamNotFoundError):  # it is hidden or has ended already
                await self._answer(caller, replace(claim, account_id=row.account_id), hide_call(row.conversation_id))
            await claim.source.records.forget_conversation(row.conversation_id)

        await _each(hide, await self._rows(caller, claim))
        return orjson.dumps({"success": True})

    async def models(self, caller: Caller, may_use: Callable[[str], bool], label: str | None = None) -> bytes:
        """Give the models that are offered to the caller, in the form of the backend's listing."""
        claim = await self._claim(caller, label)
        answer = await self._answer(caller, claim, models_call())
        return answer if claim.account_id is not None else orjson.dumps(shown_models(_object(answer), may_use))

    async def accounts(self, caller: Caller, label: str | None = None) -> bytes:
        """Give the caller's accounts at the backend; of an account that is shared, no more than all may know."""
        claim = await self._claim_signed_in(caller, label)
        answer = await self._answer(caller, claim, accounts_call())
        return (
            answer if claim.account_id is not None else orjson.dumps(shared_accounts(_object(answer), caller.workspace))
        )

    async def _own(self, caller: Caller, claim: Claim, *, archived: bool) -> list[dict[str, object]]:
        """Give the list's items for all conversations of the caller's."""
        wanted: dict[str, dict[str, ConversationOwner]] = {}
        for row in await self._rows(caller, claim):
            wanted.setdefault(row.account_id, {})[row.conversation_id] = row
        found: list[dict[str, object]] = []

        async def look_through(account_id: str) -> None:
            found.extend(
                await self._listed(caller, replace(claim, account_id=account_id), wanted[account_id], archived)
            )

        await _each(look_through, list(wanted))
        return found

    async def _listed(
        self, caller: Caller, claim: Claim, wanted: dict[str, ConversationOwner], archived: bool
    ) -> list[dict[str, object]]:
        """Give the items of an account's list that are wanted."""
        found: dict[str, dict[str, object]] = {}
        for number in range(MAX_PAGES):
            listing = _object(
                await self._answer(caller, claim, page_call(Page(number * MAX_LIMIT, MAX_LIMIT, archived=archived)))
            )
            items = listing.get("items")
            if not isinstance(items, list) or not items:
                return list(found.values())
            found |= {item["id"]: item for item in items if isinstance(item, dict) and item.get("id") in wanted}
            if len(items) < MAX_LIMIT or len(found) == len(wanted):
                return list(found.values())

        async def look_up(row: ConversationOwner) -> None:
            # Further back in the list than anybody wants to look.
            try:
                answer = await self._answer(caller, claim, read_call(row.conversation_id))
            except UpstreamNotFoundError:
                return
            item = summary_of(row.conversation_id, _object(answer))
            if item["is_archived"] == archived:
                found[row.conversation_id] = item

        await _each(look_up, [row for row in wanted.values() if row.conversation_id not in found])
        return list(found.values())

    async def _rows(self, caller: Caller, claim: Claim) -> list[ConversationOwner]:
        """Give what is known of the caller's conversations, on accounts that they may use and that are there."""
        rows = await claim.source.records.conversations(caller.owner)
        there = [row for row in rows if claim.source.pool.account(row.account_id) is not None]
        return [row for row in there if may_be_claimed(claim, caller, row.account_id)]

    # Which account

    async def _claim(self, caller: Caller, label: str | None) -> Claim:
        if caller.kind == "own_key":
            raise InvalidAPIKeyError("An API key is good for the routes under /v1. The website takes an AccessToken.")
        claim = await self._sources.claim(caller)
        if label is None:
            return claim
        named = [account for account in claim.source.pool.accounts() if label in (account.label, account.id)]
        if caller.kind != "operator" or not named:
            raise NotFoundError("There is no account of this label.", param="account", code="account_not_found")
        return replace(claim, account_id=named[0].id)

    async def _claim_signed_in(self, caller: Caller, label: str | None) -> Claim:
        if caller.kind == "anonymous":
            raise MissingAPIKeyError("This needs a sign-in: send a token or a key as `Authorization: Bearer <token>`.")
        return await self._claim(caller, label)

    async def _claim_conversation(
        self, claim: Claim, caller: Caller, conversation_id: str
    ) -> tuple[Claim, ConversationOwner | None]:
        passing = self._passing.get(conversation_id)
        if passing is not None and passing.owner == caller.owner:
            if claim.account_id is not None:
                return claim, passing
            if may_be_claimed(claim, caller, passing.account_id):
                return replace(claim, account_id=passing.account_id), passing
        return await claim_conversation(claim, caller, conversation_id)

    async def _claim_files(self, claim: Claim, caller: Caller, files: Iterable[object]) -> Claim:
        """Give the claim narrowed to an account on which the caller's own conversations hold those files.

        Raises NotFoundError to guests for files of others and for unknown ones. Operators are believed: it is their pool.
        """
        places = {account.id for account in claim.source.pool.accounts() if may_be_claimed(claim, caller, account.id)}
        if claim.account_id is not None:
            places &= {claim.account_id}
        for file in files:
            places &= await self._places(claim, caller, file)
        if places:
            return replace(claim, account_id=min(places))
        if is_guest(caller, self._config):
            raise NotFoundError(
                "There is no such file, or it is not yours, or it lies on another account than the rest.",
                param="messages",
                code="file_not_found",
            )
        return claim

    async def _places(self, claim: Claim, caller: Caller, file: object) -> frozenset[str]:
        """Give the accounts on which a conversation of the caller's holds a file."""
        if not isinstance(file, str):
            return frozenset()
        passing = self._passing.holder(file)
        if passing is not None and passing.owner == caller.owner:
            return frozenset({passing.account_id})
        return await claim.source.records.files.accounts(file, caller.owner)

    # One call

    async def _answer(self, caller: Caller, claim: Claim, call: SiteCall) -> bytes:
        """Make a call on the claimed account, or on the one that the pool gives; and give the body of its answer."""
        limits = AnswerLimits(*[self._config.first_content_timeout] * 3)
        trials = self._trials(caller, claim, _BESIDE, limits, AnswerFacts(), errand=True)
        with trials.share:
            async with aclosing(trials.run(partial(_CallAttempt, self._client, call, trials))) as bodies:
                return await anext(bodies)

    def _trials(
        self,
        caller: Caller,
        claim: Claim,
        model: str,
        limits: AnswerLimits,
        facts: AnswerFacts,
        *,
        errand: bool = False,
    ) -> Trials:
        return Trials(
            config=self._config,
            clock=self._clock,
            rng=self._rng,
            caller=caller,
            claim=claim,
            model=model,
            limits=limits,
            share=claim.source.budget.admit(),
            facts=facts,
            affinity=affinity_of(caller),
            errand=errand,
        )


class _CallAttempt:
    """One attempt at a call beside the turns."""

    def __init__(self, client: ChatGPTClient, call: SiteCall, trials: Trials, lease: Lease, first_by: float) -> None:
        self._client = client
        self._call = call
        self._trials = trials
        self._lease = lease
        self.session: Session | None = None
        self.begun = False

    async def answer(self, avoid: Set[Way], *, renew: bool) -> AsyncGenerator[bytes]:
        """Yield the body of the answer."""
        self.session = await self._trials.open_session(self._lease, avoid, renew=renew)
        answer = await self._client.call(self.session, self._call)
        self.begun = True
        self._trials.share.begin()
        yield answer.body

    async def finish(self, failure: Exception | None) -> Verdict:
        """Free the account; give what the failure means."""
        outcome = failure or (Outcome.SERVED if self.begun else Outcome.ABANDONED)
        return await self._trials.free(self._lease, self.session, outcome)


async def _each(do: Callable[[T], Coroutine[Any, Any, None]], items: Sequence[T]) -> None:
    """Do something with each item, a few at a time; the first failure ends it and is raised as it is."""
    left = iter(items)

    async def work() -> None:
        for item in left:
            await do(item)

    failure: Chat2APIError | None = None
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(AT_ONCE, len(items))):
                group.create_task(work())
    except BaseExceptionGroup as errors:
        failure = next((error for error in errors.exceptions if isinstance(error, Chat2APIError)), None)
        if failure is None:
            raise
    if failure is not None:
        raise failure


async def _note_files(claim: Claim, conversation_id: str, answer: bytes) -> None:
    """Keep which files a caller's conversation holds, now that they are told; trouble with the records is logged."""
    if b"asset_pointer" not in answer and b"attachments" not in answer:
        return  # most conversations are text, and long ones take a while to read
    held, records = held_files(_object(answer)), claim.source.records.files
    try:
        if not held <= await records.of(conversation_id):
            await records.put(conversation_id, held)
    except StorageError as error:
        log.warning("cannot keep the files of a conversation: %s", error)


def _object(answer: bytes) -> dict[str, object]:
    """Give the JSON object that the backend answered."""
    try:
        document = orjson.loads(answer)
    except orjson.JSONDecodeError as error:
        raise UpstreamProtocolError("ChatGPT's answer is not JSON.") from error
    if not isinstance(document, dict):
        raise UpstreamProtocolError("ChatGPT's answer is not an object.")
    return document
