"""Attempt after attempt at one request, until somebody has given the first content or there is nobody left to ask (R3).

What an attempt does is for its maker to say: a chat completion, a turn that is passed on as it is, one call. Here is
what all have in common: which account is next, what a failure means for it and for the request, and who owns the
conversations that come of it.
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable, Collection, Set
from contextlib import aclosing, closing
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

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
from chat2api.gateway.deadlines import AnswerLimits, Watchdog, deadline
from chat2api.gateway.provider import AnswerFacts, Caller
from chat2api.gateway.sources import Claim, Way
from chat2api.storage.values import ConversationOwner
from chat2api.upstream.chatgpt.session import Session

log = logging.getLogger(__name__)

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


class Attempt(Protocol[T_co]):
    """One attempt on one leased account."""

    @property
    def session(self) -> Session | None:
        """The session that it was made in, None before there was one."""
        ...

    @property
    def begun(self) -> bool:
        """Whether content was given, after which nothing may be tried again."""
        ...

    def answer(self, avoid: Set[Way], *, renew: bool) -> AsyncGenerator[T_co]:
        """Yield the answer, nothing before its first content; `renew` asks for a new access token first."""
        ...

    async def finish(self, failure: Exception | None) -> Verdict:
        """Free the account and abort what still runs, however it ended; give what the failure means."""
        ...


@dataclass(slots=True)
class Trials:
    """All attempts at one request: what they share, and the order in which they are made."""

    config: Config
    clock: Clock
    rng: random.Random
    caller: Caller
    claim: Claim
    model: str
    """The slug that accounts are leased for."""
    limits: AnswerLimits
    share: BudgetShare
    facts: AnswerFacts
    affinity: str | None = None
    """What stays with one account; see AccountPool.lease."""
    errand: bool = False
    """Whether it is a short question beside the answers, which needs no room."""
    made: int = 0
    """Attempts made so far."""
    watchdog: Watchdog = field(default_factory=Watchdog)
    """Watches one step after another, those of the attempts as well."""

    async def run(self, begin: Callable[[Lease, float], Attempt[T]]) -> AsyncGenerator[T]:
        """Yield the answer; nothing before its first content, so that until then another account may be tried.

        `begin` makes an attempt of a lease and of the instant, by the loop's clock, by which its first content must be
        here. Raises the last attempt's error when there was no content, StreamInterruptedError and kin when there was.
        """
        first_by = asyncio.get_running_loop().time() + self.limits.first_content
        attempts = Attempts(self.config.retry_times, self.share, guessed_limits=self.config.enable_limit)
        avoid: set[Way] = set()
        decision, account_id = Decision("next"), self.claim.account_id
        failure: UpstreamError | None = None
        pause = 0.0
        with closing(self.watchdog):
            while True:
                try:
                    async with deadline(
                        first_by, "first_content", "The backend did not answer in time.", self.watchdog
                    ):
                        if pause:
                            await self.clock.sleep(pause)
                        lease = await self._lease(account_id, attempts, failure)
                except UpstreamTimeoutError as error:
                    raise self._told(failure or error) from None
                self.made += 1
                self.facts.account = lease.account.label
                lease.refreshed = decision.refresh
                attempt = begin(lease, first_by)
                failure = None
                try:
                    async with aclosing(attempt.answer(avoid, renew=decision.refresh)) as batches:
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
                log.info(
                    "account %s: %s: %s; %s", lease.account.label, type(failure).__name__, failure, decision.action
                )
                if decision.action == "stop":
                    raise self._told(failure)
                pause = decision.delay
                if decision.action == "next" and pause and not self._has_another(attempts, pause):
                    if self.claim.account_id is not None:
                        raise self._told(failure)
                    pause = 0.0  # the lease tells at once that nobody is left
                account_id = lease.account.id if decision.action == "same" else self.claim.account_id
                if attempt.session is not None and verdict.exit_fault is not None:
                    avoid.add((attempt.session.origin, attempt.session.proxy))

    # What attempts need of it

    async def open_session(self, lease: Lease, avoid: Set[Way], *, renew: bool) -> Session:
        """Give the session of the leased account; errors as AccountSource.open_session."""
        return await self.claim.source.open_session(lease, workspace=self.caller.workspace, avoid=avoid, renew=renew)

    async def free(self, lease: Lease, session: Session | None, outcome: Outcome | Exception) -> Verdict:
        """Release the account and tell its exit how it went; give what the outcome means."""
        return await self.claim.source.free(lease, session, outcome)

    async def remember(self, lease: Lease, conversation_id: str, message_id: str | None) -> None:
        """Keep who owns a conversation, and its last message; trouble with the records is logged, not raised."""
        owner = ConversationOwner(conversation_id, lease.account.id, self.caller.owner, message_id, self.clock.now())
        try:
            await self.claim.source.records.put_conversation(owner)
        except StorageError as error:
            log.warning("cannot keep the owner of a conversation: %s", error)

    async def remember_files(self, conversation_id: str, files: Collection[str]) -> None:
        """Keep which files a conversation holds; trouble with the records is logged, not raised."""
        try:
            await self.claim.source.records.files.put(conversation_id, files)
        except StorageError as error:
            log.warning("cannot keep the files of a conversation: %s", error)

    # Who is next

    def _has_another(self, attempts: Attempts, pause: float) -> bool:
        """Whether after that pause there may be an account for another attempt, beyond those that failed already."""
        if self.claim.account_id is not None:
            return False  # it must be this one
        return self.claim.source.pool.has_another(
            attempts.used_accounts,
            model=self.model,
            workspace=self._pool_workspace(),
            allowed=self.claim.allowed,
            within=pause,
        )

    async def _lease(self, account_id: str | None, attempts: Attempts, failure: UpstreamError | None) -> Lease:
        """Lease the account for the next attempt; when there is none left, tell what the last attempt met."""
        exclude = attempts.used_accounts if account_id is None else frozenset[str]()
        try:
            return await self.claim.source.pool.lease(
                model=self.model,
                workspace=self._pool_workspace(),
                account_id=account_id,
                exclude=exclude,
                allowed=self.claim.allowed,
                affinity=self.affinity,
                owner=self.caller.owner,
                errand=self.errand,
            )
        except AllAccountsCoolingError as error:
            if account_id is not None and self.claim.account_id is None:
                # The one that was to be asked again was set aside meanwhile: another one then.
                return await self._lease(None, attempts, failure)
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
        seconds = pool.soonest(model=self.model, workspace=self._pool_workspace(), allowed=self.claim.allowed)
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


async def claim_conversation(
    claim: Claim, caller: Caller, conversation_id: str
) -> tuple[Claim, ConversationOwner | None]:
    """Give the claim narrowed to the account that a conversation lives on, and what is known of the conversation.

    Raises NotFoundError for one that is not the caller's (S8), or not of the workspace that they name. Who brings an
    account of their own is believed: the backend knows what belongs to it.
    """
    owned = await claim.source.records.conversation(conversation_id)
    if claim.account_id is not None:
        return claim, owned
    if owned is None or owned.owner != caller.owner or not may_be_claimed(claim, caller, owned.account_id):
        raise NotFoundError(
            "There is no such conversation, or it is not yours. Leave conversation_id out to begin a new one.",
            param="conversation_id",
            code="conversation_not_found",
        )
    return replace(claim, account_id=owned.account_id), owned


def may_be_claimed(claim: Claim, caller: Caller, account_id: str) -> bool:
    """Whether a caller may be led to that account of the pool: one that they are held to, in the workspace that they name.

    The backend refuses an account a workspace that is not its own, and it would be the shared account that suffers.
    """
    if not claim.may_use(account_id):
        return False
    account = claim.source.pool.account(account_id)
    return caller.workspace is None or (account is not None and account.workspace == caller.workspace)


def is_guest(caller: Caller, config: Config) -> bool:
    """Whether a caller shares accounts that are not theirs: with ADMIN_PASSWORD the operator's keys are for friends, too."""
    return caller.kind == "issued_key" or (caller.kind == "operator" and bool(config.admin_password))


def affinity_of(caller: Caller) -> str | None:
    """Give what shall stay with one account for a caller: their own key.

    The operator's keys serve everybody behind them: tied to one account, they would leave the others idle.
    """
    return caller.owner if caller.kind not in ("operator", "demo") else None


def is_unreadable(failure: Exception | None) -> bool:
    """Whether a failure is an answer that could not be decoded at all."""
    return isinstance(failure, UpstreamProtocolError) or (
        failure is not None and isinstance(failure.__cause__, UpstreamProtocolError)
    )


def _in_stream(error: UpstreamError) -> UpstreamError:
    """Give the error that ends an answer which has begun."""
    if isinstance(error, TransportError | UpstreamProtocolError | UpstreamTimeoutError):
        interrupted = StreamInterruptedError(f"The answer was cut off: {error.message}")
        interrupted.__cause__ = error
        return interrupted
    return error
