"""Which models the accounts offer, asked of the backend and kept for a while."""

import asyncio
import logging
from collections.abc import Sequence
from functools import lru_cache

from chat2api.accounts.pool import Outcome
from chat2api.clock import Clock
from chat2api.errors import Chat2APIError, NoAccountError, UpstreamError
from chat2api.gateway.sources import AccountSource, Claim
from chat2api.protocol.chatgpt.models import choose_model
from chat2api.protocol.prompt import ModelChoice
from chat2api.upstream.chatgpt.client import ChatGPTClient
from chat2api.upstream.chatgpt.session import Session

log = logging.getLogger(__name__)

LIFETIME = 300.0
"""How long an account's list is used, in seconds."""

FORGOTTEN_AFTER = 24 * 3600.0
"""How long after its end a list still counts among what is known to be offered."""

MAX_ASKED = 8
"""Accounts asked at once: one for each plan and workspace, as accounts of one plan are offered the same."""

_MODELS = "models"
"""Stands for the model in leases that only ask for the list."""


@lru_cache(maxsize=256)
def choose(name: str, live: frozenset[str], *, anonymous: bool = False) -> ModelChoice:
    """Give what `choose_model` gives, and remember it: what a name stands for is asked several times for each answer."""
    return choose_model(name, live, anonymous=anonymous)


class Offers:
    """The slugs that accounts offer."""

    def __init__(self, client: ChatGPTClient, clock: Clock) -> None:
        """Ask through that client."""
        self._client = client
        self._clock = clock
        self._lists: dict[str, tuple[float, frozenset[str]]] = {}
        self._asking: dict[str, asyncio.Lock] = {}
        self._known: frozenset[str] = frozenset()

    @property
    def known(self) -> frozenset[str]:
        """All slugs that any account is known to offer, without asking."""
        return self._known

    async def slugs(self, claim: Claim, workspace: str | None) -> Sequence[str]:
        """Give the slugs of the caller's accounts, sorted.

        Raises NoAccountError when there is none to ask, or the last failure when none of them answered.
        """
        names: set[str] = set()
        failure: Chat2APIError | None = None
        for account_id in self._to_ask(claim, workspace):
            try:
                names |= await self._ask(claim.source, account_id, workspace)
            except Chat2APIError as error:
                log.info("models of an account could not be had: %s", error)
                failure = error
        if names or failure is None:
            return sorted(names)
        raise failure

    async def slugs_for(self, name: str, claim: Claim, workspace: str | None) -> frozenset[str]:
        """Give the slugs to choose a model from; asked of the backend only for a name that no table knows."""
        if choose(name, self.known).fallback_from is None:
            return self.known
        try:
            return frozenset(await self.slugs(claim, workspace))
        except Chat2APIError:
            return self.known

    def _to_ask(self, claim: Claim, workspace: str | None) -> list[str]:
        if claim.account_id is not None:
            return [claim.account_id]
        chosen: dict[tuple[str | None, str | None], str] = {}
        for account in claim.source.pool.accounts():
            if not account.usable or not claim.may_use(account.id):
                continue
            if workspace is None or account.workspace == workspace:
                chosen.setdefault((account.plan, account.workspace_id), account.id)
        if not chosen:
            raise NoAccountError("No usable account. Add one with `chat2api tokens add`.")
        return list(chosen.values())[:MAX_ASKED]

    async def _ask(self, source: AccountSource, account_id: str, workspace: str | None) -> frozenset[str]:
        async with self._asking.setdefault(account_id, asyncio.Lock()):
            known = self._lists.get(account_id)
            if known is not None and known[0] > self._clock.monotonic():
                return known[1]
            lease = await source.pool.lease(model=_MODELS, account_id=account_id, errand=True)
            outcome: Outcome | Exception = Outcome.ABANDONED
            session: Session | None = None
            try:
                session = await source.open_session(lease, workspace=workspace)
                offered = await self._client.models(session)
                outcome = Outcome.SERVED
            except UpstreamError as error:
                outcome = error
                raise
            finally:
                await source.free(lease, session, outcome)
            slugs = frozenset(model.slug for model in offered)
            now = self._clock.monotonic()
            self._lists[account_id] = (now + LIFETIME, slugs)
            self._forget_before(now - FORGOTTEN_AFTER)
            self._known = frozenset().union(*(offered for _, offered in self._lists.values()))
            return slugs

    def _forget_before(self, limit: float) -> None:
        """Drop what was known until then, of accounts that may be gone."""
        for account_id in [name for name, (ends, _) in self._lists.items() if ends <= limit]:
            del self._lists[account_id]
        for account_id in [name for name, lock in self._asking.items() if not lock.locked()]:
            if account_id not in self._lists:
                del self._asking[account_id]
